package contentsync

import (
	"errors"
	"fmt"
	"maps"

	"github.com/bailiwick-net/bailiwick/directory"
)

// ErrAnew is wrapped by every error of Apply: the session says something that cannot be followed, and everything has to
// be read anew, without cookie.
var ErrAnew = errors.New("the content has to be read anew")

// A Stage is where a session is.
type Stage uint8

// The stages: the refresh stage by its phases, then the persist stage (RFC 4533 3.3, 3.4).
//
//	Refreshing --present, set of present--> PresentPhase --refreshPresent, not done--> DeletePhase
//	     |                                       | refreshPresent, done                  |
//	     +--delete, set of deleted--> DeletePhase                                        | refreshDelete
//	     +--refreshPresent or refreshDelete, done--------> Persisting <------------------+
const (
	// Refreshing is the refresh stage before it is known which phase it starts with.
	Refreshing Stage = iota
	PresentPhase
	DeletePhase
	Persisting
)

func (s Stage) String() string {
	return [...]string{"refresh", "present phase", "delete phase", "persist stage"}[s]
}

// A Replica is content of a server as a session left it, and the cookie that resumes there. The zero Replica is empty.
type Replica struct {
	content content
	cookie  Cookie
}

// Cookie resumes at this content; empty when it cannot be resumed.
func (r Replica) Cookie() Cookie { return r.cookie }

// Len returns the number of entries.
func (r Replica) Len() int { return r.content.len }

// Item returns what is kept of an entry.
func (r Replica) Item(u directory.UUID) (Item, bool) { return r.content.get(u) }

// Items returns a copy of the content.
func (r Replica) Items() map[directory.UUID]Item { return maps.Collect(r.content.all()) }

// A Session follows one operation. It is used by one goroutine.
type Session struct {
	// inner says that entries may come from outside the base, below containers of which alone is told.
	inner   bool
	resumed bool
	stage   Stage
	content content
	cookie  Cookie
	version uint64

	// Of a resumed refresh: the entries that were sent (true) or are present (false), and the containers that were sent,
	// by the key of the name that they had.
	seen    map[directory.UUID]bool
	renamed map[string]renaming
}

type renaming struct{ from, to directory.DN }

// Resume starts a session that the server was given the replica's cookie for. With inner the base is not the top of what
// the server holds.
func Resume(r Replica, inner bool) *Session {
	return &Session{
		inner: inner, resumed: true, content: r.content.clone(), cookie: r.cookie,
		seen: map[directory.UUID]bool{}, renamed: map[string]renaming{},
	}
}

// Start starts a session without cookie: the server sends everything.
func Start(inner bool) *Session {
	return &Session{inner: inner, content: newContent()}
}

// Stage tells where the session is. Before Persisting its content is none.
func (s *Session) Stage() Stage { return s.stage }

// Cookie is that of the content.
func (s *Session) Cookie() Cookie { return s.cookie }

// Version counts the changes of the content.
func (s *Session) Version() uint64 { return s.version }

// Replica returns the content to resume at; ok is false while the refresh is not complete. The session must not be used
// afterwards.
func (s *Session) Replica() (r Replica, ok bool) {
	if s.stage != Persisting {
		return Replica{}, false
	}
	return Replica{content: s.content, cookie: s.cookie}, true
}

// Snapshot builds what the content means, of the snapshot before where there was one. The error is that of
// directory.Builder.Build.
func (s *Session) Snapshot(base directory.DN) (*directory.Snapshot, error) {
	if s.stage != Persisting {
		return nil, fmt.Errorf("%w: the refresh is not complete", directory.ErrInconsistent)
	}
	return s.content.build(base)
}

// Apply takes a message. After an error, which wraps ErrAnew, the session is of no use.
func (s *Session) Apply(m Message) error {
	switch m := m.(type) {
	case EntryState:
		return s.entry(m)
	case IDSet:
		return s.set(m)
	case NewCookie:
		s.cookie = s.cookie.merge(m.Cookie)
		return nil
	case PhaseEnd:
		return s.end(m)
	}
	return fmt.Errorf("%w: message %T", ErrAnew, m)
}

func (s *Session) refuse(what string) error {
	return fmt.Errorf("%w: %s in the %s", ErrAnew, what, s.stage)
}

// enter moves from Refreshing into the phase that a message belongs to, and says whether the message may come.
func (s *Session) enter(phase Stage) bool {
	if s.stage == Refreshing && s.resumed {
		s.stage = phase
	}
	return s.stage == phase
}

func (s *Session) entry(m EntryState) error {
	switch m.State {
	case Add, Modify:
		if err := s.put(m.UUID, m.Item); err != nil {
			return err
		}
	case Present:
		if !s.enter(PresentPhase) {
			return s.refuse("an entry in state present")
		}
		if err := s.present(m.UUID); err != nil {
			return err
		}
	case Delete:
		if s.stage != Persisting && !s.enter(DeletePhase) {
			return s.refuse("an entry in state delete")
		}
		if err := s.drop(m.UUID); err != nil {
			return err
		}
	default:
		return s.refuse("an entry in " + m.State.String())
	}
	s.cookie = s.cookie.merge(m.Cookie)
	return nil
}

func (s *Session) set(m IDSet) error {
	if m.Deletes {
		if s.stage != Persisting && !s.enter(DeletePhase) {
			return s.refuse("a set of deleted entries")
		}
		return s.dropAll(m)
	}
	if !s.enter(PresentPhase) {
		return s.refuse("a set of present entries")
	}
	for _, u := range m.UUIDs {
		if err := s.present(u); err != nil {
			return err
		}
	}
	s.cookie = s.cookie.merge(m.Cookie)
	return nil
}

func (s *Session) dropAll(m IDSet) error {
	gone := make(map[directory.UUID]struct{}, len(m.UUIDs))
	for _, u := range m.UUIDs {
		gone[u] = struct{}{}
	}
	// Within one set the order says nothing: what is left below a container counts, when the whole set is gone.
	var containers []directory.UUID
	for _, u := range m.UUIDs {
		if s.container(u) {
			containers = append(containers, u)
			continue
		}
		if err := s.drop(u); err != nil {
			return err
		}
	}
	for _, u := range containers {
		if err := s.dropContainer(u, gone); err != nil {
			return err
		}
	}
	s.cookie = s.cookie.merge(m.Cookie)
	return nil
}

func (s *Session) end(m PhaseEnd) error {
	switch {
	case s.stage == Persisting:
		return s.refuse("the end of a phase")
	case m.Deletes && s.stage == PresentPhase:
		return s.refuse("the end of a delete phase")
	case m.Deletes && !m.Done:
		// RFC 4533 3.3.2: the delete phase is the last one.
		return s.refuse("the end of a delete phase that does not end the refresh")
	case !m.Deletes && s.stage == DeletePhase:
		return s.refuse("the end of a present phase")
	}
	if !m.Deletes && s.resumed {
		// RFC 4533 3.3.1: what was neither sent nor named present is gone. The caller confirms that before it believes it.
		var gone []directory.UUID
		for u := range s.content.all() {
			if _, ok := s.seen[u]; !ok {
				gone = append(gone, u)
			}
		}
		for _, u := range gone {
			s.content.drop(u)
			s.version++
		}
	}
	s.cookie = s.cookie.merge(m.Cookie)
	s.stage = DeletePhase
	if m.Done {
		if err := s.follow(); err != nil {
			return err
		}
		s.stage, s.seen, s.renamed = Persisting, nil, nil
	}
	return nil
}

// follow gives the entries that were not sent the names that their containers have after a refresh: of a subtree that
// was moved, the server sends the top.
func (s *Session) follow() error {
	if len(s.renamed) == 0 {
		return nil
	}
	for u, item := range maps.Collect(s.content.all()) {
		if s.seen[u] {
			continue
		}
		for up := item.DN.Parent(); !up.IsZero(); up = up.Parent() {
			if r, ok := s.renamed[up.Key()]; ok {
				if r.from.String() == r.to.String() {
					break
				}
				if err := s.rename(u, item, r.from, r.to); err != nil {
					return err
				}
				break
			}
		}
	}
	return nil
}

// mayContain says whether there may be entries below one: machines and groups have none of ours.
func mayContain(item Item) bool {
	_, container := item.Object.(directory.Container)
	return container || item.Object == nil
}

func (s *Session) rename(u directory.UUID, item Item, from, to directory.DN) error {
	dn, err := item.DN.Replant(from, to)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAnew, err)
	}
	item.DN = dn
	if item.Object != nil {
		item.Object = directory.Rename(item.Object, dn)
	}
	s.content.put(u, item)
	return nil
}

func (s *Session) present(u directory.UUID) error {
	if _, ok := s.content.get(u); !ok {
		// The server takes us to have it since the cookie: then the cookie is not that of our content.
		return s.refuse(fmt.Sprintf("entry %s, which is unknown, is present unchanged", u))
	}
	if !s.seen[u] {
		s.seen[u] = false
	}
	return nil
}

// put takes an entry over. A container that has another name takes what is below it along: a server tells of the one
// entry that was renamed.
func (s *Session) put(u directory.UUID, item Item) error {
	old, known := s.content.get(u)
	_, container := item.Object.(directory.Container)
	if s.stage == Persisting && container && !known && s.inner {
		return s.refuse(fmt.Sprintf("container %q appears: it may have come into the base with entries below it, of which nothing is told", item.DN))
	}
	s.content.put(u, item)
	s.version++
	switch {
	case s.stage != Persisting && s.resumed:
		if known && !s.seen[u] && mayContain(old) {
			s.renamed[old.DN.Key()] = renaming{old.DN, item.DN}
		}
		s.seen[u] = true
	case s.stage == Persisting && known && old.DN.String() != item.DN.String():
		for v, below := range maps.Collect(s.content.below(old.DN)) {
			if v == u {
				continue
			}
			if err := s.rename(v, below, old.DN, item.DN); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Session) drop(u directory.UUID) error {
	if s.container(u) {
		return s.dropContainer(u, nil)
	}
	if s.content.drop(u) {
		s.version++
	}
	return nil
}

func (s *Session) container(u directory.UUID) bool {
	item, _ := s.content.get(u)
	_, ok := item.Object.(directory.Container)
	return ok
}

// dropContainer refuses when entries other than those in gone are below the container: LDAP deletes leaves only, so it
// left the base with all that is below it, or the filter without.
func (s *Session) dropContainer(u directory.UUID, gone map[directory.UUID]struct{}) error {
	item, ok := s.content.get(u)
	if !ok {
		return nil
	}
	if s.stage == Persisting {
		for v, below := range s.content.below(item.DN) {
			if _, too := gone[v]; !too {
				return s.refuse(fmt.Sprintf("container %q is gone, of %q below it nothing is told", item.DN, below.DN))
			}
		}
	}
	s.content.drop(u)
	s.version++
	return nil
}
