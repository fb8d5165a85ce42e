package ldap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/directory"
)

// maxAttempts is how often a tree that changes under the reader is read before the read fails.
const maxAttempts = 4

// session is one bound connection.
type session struct {
	target
	conn *goldap.Conn
	tap  *tap
}

func (t target) open(ctx context.Context) (*session, func(), error) {
	conn, below, err := t.connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	// The client has no notion of a context: ending the connection ends whatever waits on it.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	return &session{t, conn, below}, func() { stop(); conn.Close() }, nil
}

// readStable reads the tree until it is one that the server had as a whole. Pages are fetched one after another, so an
// entry that moves from a page to come to one that is past would be missed and look removed. A read counts when the
// server's change marker stands still from before to after it, or when two reads in a row agree, or when it finds what
// is known already.
func (s *session) readStable(trusted bool, known directory.Digest) (*directory.Snapshot, marker, error) {
	var previous directory.Digest
	before, err := s.marker()
	if err != nil {
		return nil, marker{}, err
	}
	for attempt := range maxAttempts {
		snap, err := s.readTree()
		// A duplicate or an orphan may come of a move while reading, too: only when it stays is it the directory's.
		torn := errors.Is(err, directory.ErrInconsistent)
		if err != nil && !torn {
			return nil, marker{}, err
		}
		after, markerErr := s.marker()
		if markerErr != nil {
			return nil, marker{}, markerErr
		}
		still := trusted && !before.late && before.known() && before == after
		if torn {
			if still || attempt > 0 {
				return nil, marker{}, err
			}
			before = after
			continue
		}
		digest := snap.Digest()
		if still || digest == known || digest == previous {
			return snap, after, nil
		}
		previous, before = digest, after
	}
	return nil, marker{}, s.wrapAs(ErrUnstable, duringSearch, fmt.Errorf("no two of %d reads in a row agree", maxAttempts))
}

// readTree reads every entry once.
func (s *session) readTree() (*directory.Snapshot, error) {
	b := directory.NewBuilder(s.Base)
	attributes := s.Schema.Attributes()
	err := s.pages(s.Schema.Filter(), func(entry directory.Entry) error {
		object, problems, err := s.Schema.Map(entry)
		if err != nil {
			return s.wrapAs(ErrContent, duringBuild, err)
		}
		b.AddProblem(problems...)
		if object != nil {
			b.Add(object)
		}
		return nil
	}, attributes)
	if err != nil {
		return nil, err
	}
	snap, err := b.Build()
	if err != nil {
		return nil, s.wrapAs(ErrContent, duringBuild, err)
	}
	return snap, nil
}

// search runs one search to its end. Every result code but success is an error, whatever entries came with it.
func (s *session) search(base string, scope int, filter string, attributes []string, controls ...goldap.Control) (*goldap.SearchResult, error) {
	// A request is made anew for every page: the client keeps what it adds to one.
	request := goldap.NewSearchRequest(base, scope, goldap.NeverDerefAliases, 0, 0, false, filter, attributes, controls)
	result, err := s.conn.Search(request)
	if err != nil {
		return nil, s.wrap(duringSearch, err)
	}
	return result, nil
}

// complete fetches what a server holds back of an attribute with many values: it answers "member;range=0-1499" where
// "member" was asked for (MS-ADTS 3.1.1.3.1.3.3).
func (s *session) complete(dn string, a directory.Attribute) (directory.Attribute, error) {
	r, ranged := parseRange(a.Name)
	if !ranged {
		return a, nil
	}
	values := a.Values
	if !r.whole(0, len(values)) {
		return directory.Attribute{}, s.wrapAs(ErrUnstable, duringSearch, fmt.Errorf("entry %q: %s came with %d values", dn, a.Name, len(values)))
	}
	for part := 1; r.end >= 0; part++ {
		if part > maxRanges || len(values) > maxEntries {
			return directory.Attribute{}, s.wrapAs(ErrProtocol, duringSearch, fmt.Errorf("%w: entry %q: after %d parts with %d values of %s more is to come", errEndless, dn, part, len(values), r.name))
		}
		want := fmt.Sprintf("%s;range=%d-*", r.name, r.end+1)
		result, err := s.search(dn, goldap.ScopeBaseObject, "(objectClass=*)", []string{want})
		if err != nil {
			return directory.Attribute{}, err
		}
		found := false
		if len(result.Entries) == 1 {
			for _, more := range result.Entries[0].Attributes {
				next, ok := parseRange(more.Name)
				if ok && strings.EqualFold(next.name, r.name) && next.whole(r.end+1, len(more.Values)) && !found {
					values = append(values, more.Values...)
					found, r.end = true, next.end
				}
			}
		}
		if !found {
			// The values went away in between, or the server does not keep to its ranges: no half group either way.
			return directory.Attribute{}, s.wrapAs(ErrUnstable, duringSearch, fmt.Errorf("entry %q: %s was not returned", dn, want))
		}
	}
	return directory.Attribute{Name: r.name, Values: values}, nil
}

// A valueRange is which of the values of an attribute come: from the first on up to the end, which is -1 where that is all.
type valueRange struct {
	name       string // of the attribute
	first, end int    // both -1 where the server says what is no range
}

// whole says that these are the values that were asked for, as many as there have to be: fewer would be a part of the group, and
// none no progress.
func (r valueRange) whole(first, values int) bool {
	return r.first == first && (r.end < 0 || r.end-r.first+1 == values)
}

// parseRange reads "member;range=0-1499"; false when the description of the attribute says nothing of a range.
func parseRange(description string) (valueRange, bool) {
	name, option, ok := strings.Cut(description, ";")
	if !ok || len(option) < 6 || !strings.EqualFold(option[:6], "range=") {
		return valueRange{}, false
	}
	from, to, _ := strings.Cut(option[6:], "-")
	first, begins := rangeIndex(from)
	end, ends := rangeIndex(to)
	if to == "*" {
		end, ends = -1, true
	}
	if !begins || !ends {
		return valueRange{name, -1, -1}, true
	}
	return valueRange{name, first, end}, true
}

// rangeIndex reads an index in the one way that it is written.
func rangeIndex(text string) (int, bool) {
	n, err := strconv.Atoi(text)
	return n, err == nil && n >= 0 && strconv.Itoa(n) == text
}

// A marker is what the server says about its latest change: OpenLDAP's contextCSN, Active Directory's server and
// highestCommittedUSN, or the counters of 389 Directory Server. The zero marker means that it says nothing.
type marker struct {
	text string
	// late says that a change may count before it can be read, so that one reading of the marker proves nothing.
	late bool
}

func (m marker) known() bool { return m.text != "" }

func (s *session) marker() (marker, error) {
	switch s.Schema.Identity {
	case directory.ObjectGUID:
		return s.usn()
	case directory.NSUniqueID:
		return s.counters()
	default:
		return s.contextCSN()
	}
}

func (s *session) usn() (marker, error) {
	root, err := s.search("", goldap.ScopeBaseObject, "(objectClass=*)", []string{"highestCommittedUSN", "dsServiceName"})
	if err != nil || len(root.Entries) != 1 {
		return marker{}, err
	}
	// Update sequence numbers are those of one server: another server's say nothing about this one's.
	usn, server := root.Entries[0].GetEqualFoldAttributeValue("highestCommittedUSN"), root.Entries[0].GetEqualFoldAttributeValue("dsServiceName")
	if usn == "" || server == "" {
		return marker{}, nil
	}
	return marker{text: server + " " + usn}, nil
}

// contextCSN reads the change sequence numbers at the naming context's own entry.
func (s *session) contextCSN() (marker, error) {
	root, err := s.search("", goldap.ScopeBaseObject, "(objectClass=*)", []string{"namingContexts"})
	if err != nil || len(root.Entries) != 1 {
		return marker{}, err
	}
	for _, name := range root.Entries[0].GetEqualFoldAttributeValues("namingContexts") {
		dn, err := directory.ParseDN(name)
		if err != nil || !s.Base.Equal(dn) && !s.Base.IsDescendantOf(dn) {
			continue
		}
		result, err := s.search(name, goldap.ScopeBaseObject, "(objectClass=*)", []string{"contextCSN"})
		if errors.Is(err, ErrNoBase) || errors.Is(err, ErrDenied) {
			return marker{}, nil // we may see less than the whole context: then there is no marker
		}
		if err != nil || len(result.Entries) != 1 {
			return marker{}, err
		}
		values := slices.Sorted(slices.Values(result.Entries[0].GetEqualFoldAttributeValues("contextCSN")))
		return marker{text: strings.Join(values, " ")}, nil
	}
	return marker{}, nil
}
