package directory

import (
	"errors"
	"fmt"
)

// Sentinels; errors of this package wrap one of them.
var (
	// ErrSyntax says that a DN or a UUID is not well formed.
	ErrSyntax = errors.New("malformed directory value")
	// ErrInconsistent says that a set of entries cannot be one tree.
	ErrInconsistent = errors.New("inconsistent directory")
)

// A SyntaxError is a malformed DN or UUID.
type SyntaxError struct {
	What   string // "distinguished name" or "UUID"
	Input  string // the text as given, shortened when it is long
	Offset int    // byte offset at which it stops making sense
	Reason string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s %q: %s (at byte %d)", e.What, e.Input, e.Reason, e.Offset)
}

func (e *SyntaxError) Unwrap() error { return ErrSyntax }

// A DuplicateError names the two entries that claim the same identity or name.
type DuplicateError struct {
	What  string // "UUID", "distinguished name", "machine name" or "DNS name"
	Value string
	A, B  DN
}

func (e *DuplicateError) Error() string {
	return fmt.Sprintf("%s %q is used twice, by %q and by %q: rename or remove one of them", e.What, e.Value, e.A, e.B)
}

func (e *DuplicateError) Unwrap() error { return ErrInconsistent }

// An OrphanError names an entry whose parent is not a container of the same tree: the read was incomplete, the reader
// may not see the parent, or the parent's object class is not one that the schema maps to a container.
type OrphanError struct {
	DN     DN
	Parent DN
	Base   DN
}

func (e *OrphanError) Error() string {
	if !e.DN.Equal(e.Base) && !e.DN.IsDescendantOf(e.Base) {
		return fmt.Sprintf("entry %q is not below the base %q", e.DN, e.Base)
	}
	return fmt.Sprintf("entry %q: its parent %q was not read as a container: check that the reader may see it and that its object class is mapped", e.DN, e.Parent)
}

func (e *OrphanError) Unwrap() error { return ErrInconsistent }

// shorten keeps an error readable when its input is not.
func shorten(s string) string {
	const limit = 200
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "..."
}
