package policies

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrDocument is wrapped by every error about a text that does not decode.
	ErrDocument = errors.New("invalid policy document")
	// ErrReference is wrapped when a document names another one that does not exist.
	ErrReference = errors.New("no such document")
)

// String prints "file:line:column".
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Problem is one thing that is wrong with a text.
type Problem struct {
	At      Position
	Message string
	Excerpt string // the line and its neighbours with a mark, several lines; empty without a place
}

// String prints the place and the message in one line.
func (p Problem) String() string { return p.At.String() + ": " + p.Message }

// A DecodeError holds everything that is wrong with a text, in the order of the text. It wraps ErrDocument.
type DecodeError struct{ Problems []Problem }

// Error prints every problem with its excerpt.
func (e *DecodeError) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(p.String())
		if p.Excerpt != "" {
			b.WriteByte('\n')
			b.WriteString(strings.TrimRight(p.Excerpt, "\n"))
		}
	}
	return b.String()
}

// Unwrap returns ErrDocument.
func (e *DecodeError) Unwrap() error { return ErrDocument }
