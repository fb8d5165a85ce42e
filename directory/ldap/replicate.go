package ldap

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/ldap/replication"
)

const (
	protocolDirSync = "DirSync (1.2.840.113556.1.4.841)"
	protocolUSN     = "queries by uSNChanged"
	wokenSuffix     = ", woken by change notification (1.2.840.113556.1.4.528)"
)

// maxRounds is how often changes are asked for until a round finds none, before a directory changes too fast.
const maxRounds = 10

// errNoChanges says that a domain controller does not tell what takes part; the directory is polled then.
var errNoChanges = errors.New("changes cannot be asked for")

// replicates says whether changes are to be asked for as Active Directory tells them.
func (s *Source) replicates() bool {
	t := s.target
	return t.Schema.Identity == directory.ObjectGUID && !t.PollOnly && (s.replicator != nil || !time.Now().Before(s.trySync))
}

// replicate returns the next content of the replicator, which it starts where there is none and ends after an error.
func (s *Source) replicate(ctx context.Context) (*directory.Snapshot, error) {
	if s.replicator == nil {
		s.password = s.target.passwordAge()
		r, err := s.target.openReplicator(ctx, s.closed, s.known)
		if err != nil {
			return nil, err
		}
		s.replicator = r
	}
	r := s.replicator
	snap, err := r.next(ctx, s.state.note)
	if !r.over {
		return snap, err
	}
	// What is known stays known: the next connection goes on from there when it leads to the same database.
	s.known = r.known
	r.close()
	s.replicator = nil
	return nil, err
}

// known is what a replicator leaves to the next one.
type known struct {
	content *replication.Content
	server  replication.Server // whose changes up to its USN are in the content
	cookie  []byte             // of DirSync; empty without
	full    time.Time          // when the whole tree was last read
	built   *directory.Snapshot
	stale   bool // the content is further than built
}

// replicator keeps content up to date by asking one domain controller for what changed. It is used by one goroutine.
//
// Content is handed out when a round of asking found nothing new, or nothing was changed while it asked: then everything that
// was read before is still so, and the content is a state that the server had as a whole.
type replicator struct {
	known
	*replica
	wake  *wake
	round time.Time // when the next round is due although nobody woke us
	fresh bool      // nothing was handed out yet
	over  bool      // the connection is of no use any more
}

// openReplicator connects and finds out how changes can be asked for. The connection lives until life ends or it is closed.
func (t target) openReplicator(ctx, life context.Context, k known) (*replicator, error) {
	own, cancel := context.WithCancel(life)
	stop := context.AfterFunc(ctx, cancel)
	defer stop()
	replica, err := t.openReplica(own, cancel)
	if err != nil {
		cancel()
		return nil, err
	}
	r := &replicator{known: k, replica: replica, fresh: true}
	r.wake = t.openWake(own, replica.context)
	return r, nil
}

func (r *replicator) close() {
	r.end()
	r.wake.close()
}

// next waits until content is due and differs from the last, or is the first of this replicator.
func (r *replicator) next(ctx context.Context, note func(func(*directory.Status))) (*directory.Snapshot, error) {
	for {
		if err := r.sleep(ctx); err != nil {
			return nil, err
		}
		began := time.Now()
		// The connection knows nothing of this call's context, only of the source's end.
		stop := context.AfterFunc(ctx, r.end)
		before := r.built
		err := r.update()
		r.over = !stop() || err != nil
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		at := time.Now()
		r.round = at.Add(r.Interval)
		news := r.fresh || before == nil || r.built.Digest() != before.Digest()
		r.fresh = false
		note(func(s *directory.Status) {
			s.LastRead, s.LastFull = at, r.full
			s.Protocol, s.ProtocolNote = r.protocol()
			if news {
				s.Succeeded(at, at.Sub(began), r.built)
			}
		})
		if news {
			return r.built, nil
		}
	}
}

func (r *replicator) protocol() (name, note string) {
	name = protocolUSN
	if r.dirSync {
		name = protocolDirSync
	}
	if why := r.wake.lost(); why != "" {
		return name, fmt.Sprintf("asked every %v, there is no change notification: %s", r.Interval, why)
	}
	return name + wokenSuffix, r.note
}

// sleep waits until the next round.
func (r *replicator) sleep(ctx context.Context) error {
	due := time.NewTimer(time.Until(r.round))
	defer due.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-due.C:
	case <-r.wake.signal:
	}
	return nil
}

// update brings what is known to a state that the server had.
func (r *replicator) update() error {
	server, err := r.state()
	if err != nil {
		return err
	}
	if r.content == nil || r.dirSync && len(r.cookie) == 0 || time.Since(r.full) >= r.FullInterval || server.Continues(r.server) != nil {
		return r.readAll(server)
	}
	if server.USN == r.server.USN && !r.stale {
		return nil
	}
	// Whatever happens in between, the content has all changes up to its own USN and cookie.
	if err = r.catchUp(&r.known, server, false); err == nil {
		err = r.build(&r.known)
	}
	if errors.Is(err, replication.ErrAnew) || errors.Is(err, directory.ErrInconsistent) {
		return r.readAll(server)
	}
	return err
}

// readAll reads the whole tree, and what changed meanwhile.
func (r *replicator) readAll(server replication.Server) error {
	k := known{server: server, full: time.Now()}
	if r.dirSync {
		// The cookie comes first, so that no change falls between the two.
		var err error
		if k.cookie, _, err = r.cookie0(); err != nil {
			return err
		}
	}
	all, err := r.entries()
	if err != nil {
		return err
	}
	if k.content, err = replication.New(r.inner, all); err != nil {
		return r.wrapAs(ErrContent, duringBuild, err)
	}
	err = r.catchUp(&k, server, true)
	switch {
	case errors.Is(err, replication.ErrAnew):
		return r.wrapAs(ErrUnstable, duringSearch, err)
	case err != nil:
		return err
	}
	if err := r.build(&k); err != nil {
		return r.wrapAs(ErrContent, duringBuild, err)
	}
	r.known = k
	return nil
}

func (r *replicator) build(k *known) error {
	built, err := k.content.Snapshot(r.Base)
	if err == nil {
		k.built, k.stale = built, false
	}
	return err
}

// catchUp asks for changes until what was read is a state that the server had as a whole. The state of the server is always
// asked for before the changes up to it. With whole, what is known was read in many searches, while it may have changed.
//
// One round asks in several searches. A domain controller names the members of a group as they are called at that moment, and
// does not tell of the group when one is renamed: with a rename between two searches the group may have been read with the old
// name, and the member with the new. So a round counts when nothing was changed while it asked, or when it finds all as it was
// found before; else it is repeated from its beginning, and after a whole read with all groups.
func (r *replicator) catchUp(k *known, server replication.Server, whole bool) error {
	for range maxRounds {
		batch, cookie, err := r.changes(k)
		if err != nil {
			return err
		}
		if whole && len(batch) > 0 {
			groups, err := r.groups()
			if err != nil {
				return err
			}
			batch = append(batch, groups...)
		}
		different, err := k.content.Apply(batch)
		if err != nil {
			k.content = nil
			return err
		}
		k.stale = k.stale || different > 0
		after, err := r.state()
		if err != nil {
			return err
		}
		if err := after.Continues(server); err != nil {
			return err
		}
		if different == 0 || after.USN == server.USN {
			k.server, k.cookie = server, cookie
			return nil
		}
		server = after
	}
	return r.wrapAs(ErrUnstable, duringSearch, fmt.Errorf("each of %d rounds found changes", maxRounds))
}
