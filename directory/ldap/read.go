package ldap

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	name, end, ranged := parseRange(a.Name)
	if !ranged {
		return a, nil
	}
	values := a.Values
	for part := 1; end >= 0; part++ {
		if part > maxRanges || len(values) > maxEntries {
			return directory.Attribute{}, s.wrapAs(ErrProtocol, duringSearch, fmt.Errorf("%w: entry %q: after %d parts with %d values of %s more is to come", errEndless, dn, part, len(values), name))
		}
		want := fmt.Sprintf("%s;range=%d-*", name, end+1)
		result, err := s.search(dn, goldap.ScopeBaseObject, "(objectClass=*)", []string{want})
		if err != nil {
			return directory.Attribute{}, err
		}
		next := -2
		if len(result.Entries) == 1 {
			for _, more := range result.Entries[0].Attributes {
				n, e, ok := parseRange(more.Name)
				// A range that ends holds as many values as it says: fewer would be a part of the group, and none no progress.
				if ok && strings.EqualFold(n, name) && (e < 0 || e-end == len(more.Values)) && next == -2 {
					values = append(values, more.Values...)
					next = e
				}
			}
		}
		if next == -2 {
			// The values went away in between, or the server does not keep to its ranges: no half group either way.
			return directory.Attribute{}, s.wrapAs(ErrUnstable, duringSearch, fmt.Errorf("entry %q: %s was not returned", dn, want))
		}
		end = next
	}
	return directory.Attribute{Name: name, Values: values}, nil
}

// parseRange splits "member;range=0-1499" into the name and the last index, -1 for "*".
func parseRange(description string) (name string, end int, ok bool) {
	name, option, ok := strings.Cut(description, ";")
	if !ok || len(option) < 6 || !strings.EqualFold(option[:6], "range=") {
		return description, 0, false
	}
	_, last, ok := strings.Cut(option[6:], "-")
	if !ok {
		return description, 0, false
	}
	if last == "*" {
		return name, -1, true
	}
	if _, err := fmt.Sscanf(last, "%d", &end); err != nil || end < 0 || fmt.Sprint(end) != last {
		return description, 0, false
	}
	return name, end, true
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
