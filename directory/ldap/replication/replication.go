// Package replication says what the changes that an Active Directory domain controller tells, by DirSync (MS-ADTS
// 3.1.1.3.4.1.3) or by update sequence numbers, make of what is known, and whether they can be changes of what is known.
//
// Its invariants: the content after a batch of changes is what a read of the whole tree at its end would have found, or
// the batch is refused; names follow the identities that they are of, also those of members of groups, of whose change a
// domain controller does not tell; the sequence numbers of one database say nothing about another.
//
// The package is pure. Asking the server, and reading everything anew, is left to directory/ldap.
package replication

import (
	"errors"
	"fmt"
	"slices"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/ldap/contentsync"
)

// ErrAnew is wrapped when changes cannot be followed, and everything has to be read anew.
var ErrAnew = errors.New("the directory has to be read anew")

// A Server is a state of the database of a domain controller.
type Server struct {
	// Invocation identifies the database; it changes when the domain controller is restored from a backup as it should be.
	Invocation directory.UUID
	// USN is the highest update sequence number that was committed.
	USN uint64
}

// Continues says whether the numbers go on from those of an earlier state: the error, which wraps ErrAnew, tells why
// changes since then cannot be asked for.
func (s Server) Continues(before Server) error {
	switch {
	case s.Invocation != before.Invocation:
		return fmt.Errorf("%w: another domain controller or another database answers (invocation %s, before %s)", ErrAnew, s.Invocation, before.Invocation)
	case s.USN < before.USN:
		return fmt.Errorf("%w: the update sequence number %d of the domain controller was %d before: its database was put back", ErrAnew, s.USN, before.USN)
	}
	return nil
}

// A Change is an entry as it is now.
type Change struct {
	UUID directory.UUID
	// Gone says that it was deleted, or is not below the base any more.
	Gone bool
	// Item is what it is; the zero Item when it is gone.
	Item contentsync.Item
}

// A Content is what is known of a directory. It is used by one goroutine.
type Content struct {
	// inner says that entries may come from outside the base, below containers of which alone is told.
	inner   bool
	replica contentsync.Replica
	session *contentsync.Session
}

// New makes the content of a read of the whole tree; of an entry that it found twice, the last state counts. With inner the
// base is not the top of what the server holds.
func New(inner bool, all []Change) (*Content, error) {
	c := &Content{inner: inner, session: contentsync.Start(false)}
	return c, c.apply(all)
}

// Items returns a copy of what is known.
func (c *Content) Items() map[directory.UUID]contentsync.Item {
	c.rest()
	return c.replica.Items()
}

// Len returns the number of entries.
func (c *Content) Len() int {
	c.rest()
	return c.replica.Len()
}

// Has says whether the entry is known.
func (c *Content) Has(u directory.UUID) bool {
	c.rest()
	_, known := c.replica.Item(u)
	return known
}

// rest ends the session of the last batch.
func (c *Content) rest() {
	if c.session != nil {
		c.replica, _ = c.session.Replica() // apply leaves a session whose refresh is complete
		c.session = nil
	}
}

// Snapshot builds what the content means. The error is that of directory.Builder.Build.
func (c *Content) Snapshot(base directory.DN) (*directory.Snapshot, error) {
	if c.session == nil {
		c.session = contentsync.Resume(c.replica, false)
		if err := c.apply(nil); err != nil {
			return nil, err
		}
	}
	return c.session.Snapshot(base)
}

// Apply takes a batch of changes, and says how many entries are otherwise than before: none when the batch was applied
// already. The order is of no matter, but that the last state counts of an entry that is told of twice. After an error,
// which wraps ErrAnew, the content is of no use.
func (c *Content) Apply(batch []Change) (different int, err error) {
	c.rest()
	batch = latest(batch)
	before := c.replica
	moved := false
	for _, change := range batch {
		old, known := before.Item(change.UUID)
		switch {
		case change.Gone && !known, !change.Gone && known && same(old, change.Item):
			continue
		case !change.Gone && !known:
			if _, container := change.Item.Object.(directory.Container); container && c.inner {
				return 0, fmt.Errorf("%w: container %q appears: it may have come into the base with entries below it, of which nothing is told", ErrAnew, change.Item.DN)
			}
		case change.Gone || !old.DN.Equal(change.Item.DN):
			moved = true
		}
		different++
	}
	if different == 0 {
		return 0, nil
	}
	// With what is told to be as it was: it may have the name that it had because it was moved back to it, and must not
	// follow the container or the member that the name was taken from.
	c.session = contentsync.Resume(c.replica, false)
	if err := c.apply(batch); err != nil {
		return 0, err
	}
	if moved {
		err = c.relink(before, batch)
	}
	return different, err
}

// latest leaves the last change of each entry: an earlier one, compared with what was known, would be taken for the state
// that the last one goes back to.
func latest(batch []Change) []Change {
	last := make(map[directory.UUID]int, len(batch))
	for i, change := range batch {
		last[change.UUID] = i
	}
	if len(last) == len(batch) {
		return batch
	}
	var out []Change
	for i, change := range batch {
		if last[change.UUID] == i {
			out = append(out, change)
		}
	}
	return out
}

// same compares what entries are, also how their names are written. It must not tell apart what a snapshot does not: of two
// such states the content keeps the first, and the second would be news whenever it is told.
func same(a, b contentsync.Item) bool {
	return a.DN.String() == b.DN.String() && slices.Equal(a.Problems, b.Problems) && directory.Same(a.Object, b.Object)
}

// apply puts changes into the messages of a refresh, which has no order either: names of what is not among them follow the
// containers that are.
func (c *Content) apply(changes []Change) error {
	var gone []directory.UUID
	for _, change := range changes {
		if change.Gone {
			gone = append(gone, change.UUID)
			continue
		}
		if err := c.tell(contentsync.EntryState{State: contentsync.Add, UUID: change.UUID, Item: change.Item}); err != nil {
			return err
		}
	}
	if len(gone) > 0 {
		if err := c.tell(contentsync.IDSet{Deletes: true, UUIDs: gone}); err != nil {
			return err
		}
	}
	return c.tell(contentsync.PhaseEnd{Deletes: true, Done: true})
}

func (c *Content) tell(m contentsync.Message) error {
	if err := c.session.Apply(m); err != nil {
		return fmt.Errorf("%w: %w", ErrAnew, err)
	}
	return nil
}

// relink gives groups the names that their members have now: a domain controller keeps members by identity, so that the
// change of a name, or a deletion, is none of the group.
func (c *Content) relink(before contentsync.Replica, batch []Change) error {
	now := c.Items()
	names := map[string]directory.DN{} // by the key of the old name; zero for what is gone
	for u, old := range before.Items() {
		if item, ok := now[u]; !ok {
			names[old.DN.Key()] = directory.DN{}
		} else if item.DN.String() != old.DN.String() {
			names[old.DN.Key()] = item.DN
		}
	}
	told := map[directory.UUID]bool{}
	for _, change := range batch {
		told[change.UUID] = true
	}
	var again []Change
	for u, item := range now {
		g, ok := item.Object.(directory.Group)
		// A group that was told of came with the present names, also when they are those from before: a name may have passed
		// from a member that is gone to another one.
		if !ok || told[u] || !slices.ContainsFunc(g.Members, func(m directory.DN) bool { _, ok := names[m.Key()]; return ok }) {
			continue
		}
		members := make([]directory.DN, 0, len(g.Members))
		for _, m := range g.Members {
			if name, ok := names[m.Key()]; !ok {
				members = append(members, m)
			} else if !name.IsZero() {
				members = append(members, name)
			}
		}
		g.Members = members
		item.Object = directory.Normalise(g)
		again = append(again, Change{UUID: u, Item: item})
	}
	if len(again) == 0 {
		return nil
	}
	c.session = contentsync.Resume(c.replica, false)
	return c.apply(again)
}
