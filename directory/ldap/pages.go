package ldap

import (
	"fmt"
	"slices"
	"strings"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/directory"
)

// pagesAhead is how many octets of entries may wait to be looked at when the next page is asked for.
const pagesAhead = 1 << 20

// pages searches the whole tree and hands over every entry, which is good until each returns. It returns nil only when the
// server said that it is done.
func (s *session) pages(filter string, each func(directory.Entry) error, attributes []string) error {
	return s.pagesOf(s.Base.String(), filter, each, attributes)
}

// pagesOf is pages for any tree, with controls beside that of the pages.
func (s *session) pagesOf(base, filter string, each func(directory.Entry) error, attributes []string, controls ...goldap.Control) error {
	// The server may go on while an entry is completed by searches on the same connection: any number of octets may wait.
	in := newIntake(0)
	fetched := make(chan error, 1)
	go func() { fetched <- s.fetch(in, base, filter, attributes, controls) }()
	var d decoder
	var references []string
	seen := newArrivals(s.PageSize)
	take := func() error {
		for _, batch := range in.take() {
			err := d.each(batch, func(r received) error {
				switch r.op {
				case opSearchResultReference:
					if !s.SkipReferences {
						references = append(references, r.uri)
					}
				case opSearchResultEntry:
					if err := seen.add(r.entry.DN); err != nil {
						return s.wrapAs(ErrProtocol, duringSearch, err)
					}
					if err := s.completeAll(&r.entry); err != nil {
						return err
					}
					return each(r.entry)
				}
				return nil
			})
			if err != nil {
				return s.wrap(duringSearch, err)
			}
		}
		return nil
	}
	for over := false; !over; {
		var end error
		select {
		case <-in.ready:
		case end = <-fetched:
			over = true
		}
		if err := take(); err != nil {
			in.abandon()
			return err
		}
		if len(references) > 0 {
			in.abandon()
			return s.wrapAs(ErrReferral, duringSearch, fmt.Errorf("part of the tree is at %s", strings.Join(references, ", ")))
		}
		if end != nil {
			return end
		}
	}
	return nil
}

// completeAll completes an entry as the server sent it.
func (s *session) completeAll(e *directory.Entry) error {
	for i, a := range e.Attributes {
		attribute, err := s.complete(e.DN, a)
		if err != nil {
			return err
		}
		e.Attributes[i] = attribute
	}
	return nil
}

// fetch asks for page after page. When it returns, every entry that came is in the intake.
func (s *session) fetch(in *intake, base, filter string, attributes []string, controls []goldap.Control) error {
	var cookie []byte
	var watch parts
	for page := 0; ; page++ {
		in.settle(pagesAhead)
		if in.abandoned() {
			return nil
		}
		paging := &goldap.ControlPaging{PagingSize: s.PageSize, Cookie: cookie}
		before := in.entries.Load()
		s.tap.announce(in)
		result, err := s.search(base, goldap.ScopeWholeSubtree, filter, attributes, append(slices.Clip(controls), paging)...)
		if err != nil {
			return err
		}
		if len(result.Entries)+len(result.Referrals) > 0 {
			return s.wrapAs(ErrProtocol, duringSearch, fmt.Errorf("page %d came by another way than expected", page+1))
		}
		control := goldap.FindControl(result.Controls, goldap.ControlTypePaging)
		if control == nil {
			if page > 0 {
				// RFC 2696 section 3: every page carries the control. Without it nobody knows whether this was the last.
				return s.wrapAs(ErrProtocol, duringSearch, fmt.Errorf("page %d carries no paging control", page+1))
			}
			return nil // the server does not page: this was everything
		}
		answer, ok := control.(*goldap.ControlPaging)
		if !ok {
			return s.wrapAs(ErrProtocol, duringSearch, fmt.Errorf("page %d carries a malformed paging control", page+1))
		}
		if len(answer.Cookie) == 0 {
			return nil
		}
		if err := watch.next(cookie, answer.Cookie, in.entries.Load()-before); err != nil {
			return s.wrapAs(ErrProtocol, duringSearch, fmt.Errorf("page %d: %w", page+1, err))
		}
		cookie = answer.Cookie
	}
}
