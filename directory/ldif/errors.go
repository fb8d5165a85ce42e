package ldif

import (
	"errors"
	"fmt"
)

// Sentinels; a SyntaxError wraps one of them.
var (
	// ErrSyntax says that a file is not LDIF.
	ErrSyntax = errors.New("malformed LDIF")
	// ErrUnsupported says that a file is LDIF of a kind that is refused: change records and values by URL.
	ErrUnsupported = errors.New("unsupported LDIF")
	// ErrClosed is returned by Next after Close.
	ErrClosed = errors.New("LDIF source is closed")
)

// A SyntaxError says what is wrong in which line.
type SyntaxError struct {
	File   string
	Line   int // from 1
	Reason string
	Kind   error // ErrSyntax or ErrUnsupported
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Reason) }

func (e *SyntaxError) Unwrap() error { return e.Kind }
