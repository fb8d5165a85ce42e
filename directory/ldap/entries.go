package ldap

import (
	"context"
	"slices"

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
	err = s.pages(filter, func(e directory.Entry) error {
		e.Attributes = slices.Clone(e.Attributes)
		for i := range e.Attributes {
			e.Attributes[i].Values = slices.Clone(e.Attributes[i].Values)
		}
		entries = append(entries, e)
		return nil
	}, attributes)
	if err != nil {
		return nil, err
	}
	return entries, nil
}
