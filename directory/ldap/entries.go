package ldap

import (
	"context"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/directory"
)

// Entries reads the entries below the base of c that a filter (RFC 4515) matches, with some of their attributes, in one
// pass: for reading what nobody changes meanwhile. All of them come back, or an error.
func Entries(ctx context.Context, c Config, filter string, attributes []string) ([]directory.Entry, error) {
	t, err := c.target()
	if err != nil {
		return nil, err
	}
	s, done, err := t.open(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	var entries []directory.Entry
	err = s.pages(filter, func(e *goldap.Entry) error {
		entry, err := s.entry(e)
		entries = append(entries, entry)
		return err
	}, attributes)
	if err != nil {
		return nil, err
	}
	return entries, nil
}
