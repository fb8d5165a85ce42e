package ldap

import (
	"fmt"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/ldap/contentsync"
)

// trusted is what the source has shown or would have shown, and what it is held against.
type trusted struct {
	snapshot *directory.Snapshot
	reached  contentsync.Cookie // the furthest that a read has been
	since    time.Time          // since when all reads have been in doubt; zero when the last one was not
}

// doubt holds a complete read against what was read before. A server can answer without any error and still not with the
// directory: a replica that lags, a backup, an access rule that hides an attribute, another server under the name. What
// may be meant so is believed when it stays; another directory never is.
func (s *Source) doubt(snap *directory.Snapshot) error {
	if s.target.DoubtTime < 0 {
		return nil
	}
	if s.trusted.snapshot != nil {
		was, is := baseIdentity(s.trusted.snapshot), baseIdentity(snap)
		if was != is {
			return s.target.wrapAs(ErrOther, duringBuild, fmt.Errorf("its base entry is %s and was %s", is, was))
		}
	}
	reason := s.doubtful(snap)
	now := time.Now()
	if reason == "" || !s.trusted.since.IsZero() && now.Sub(s.trusted.since) >= s.target.DoubtTime {
		s.trusted = trusted{snapshot: snap, reached: s.reached}
		return nil
	}
	if s.trusted.since.IsZero() {
		s.trusted.since = now
	}
	until := s.trusted.since.Add(s.target.DoubtTime)
	return s.target.wrapAs(ErrDoubtful, duringBuild, fmt.Errorf("%s (believed after %s)", reason, until.Format(time.RFC3339)))
}

// doubtful says why a read may not be what the directory is; "" when nothing speaks against it.
func (s *Source) doubtful(snap *directory.Snapshot) string {
	_, machines, _ := snap.Len()
	if s.trusted.snapshot == nil {
		if machines == 0 {
			return fmt.Sprintf("no entry below the base is a machine: check the base DN, the object classes and the filters: %s", s.target.Schema.Filter())
		}
		return ""
	}
	if s.reached.Behind(s.trusted.reached) {
		return "the server lacks changes that were read before: it is a replica that lags, or was restored from a backup"
	}
	if _, had, _ := s.trusted.snapshot.Len(); had > 0 && machines == 0 {
		return fmt.Sprintf("none of %d machines is left", had)
	}
	if had, has := groupsWithMembers(s.trusted.snapshot), groupsWithMembers(snap); had > 1 && has == 0 {
		return fmt.Sprintf("none of the %d groups that had members has one: the bind identity may not be allowed to read them", had)
	}
	return ""
}

// forget leaves what a read in doubt has brought, so that the next one begins anew, and the status as it was.
func (s *Source) forget(before directory.Status, err error) {
	if s.follower != nil {
		s.follower.stream.close()
		s.follower = nil
	}
	if s.replicator != nil {
		s.replicator.close()
		s.replicator = nil
	}
	s.replica, s.known = contentsync.Replica{}, known{}
	s.state.note(func(st *directory.Status) {
		before.Protocol, before.ProtocolNote = st.Protocol, st.ProtocolNote
		*st = before
		st.Failed(time.Now(), err)
	})
}

func baseIdentity(s *directory.Snapshot) directory.UUID {
	c, _ := s.ContainerByDN(s.Base()) // a snapshot has its base
	return c.UUID
}

func groupsWithMembers(s *directory.Snapshot) (n int) {
	for g := range s.Groups() {
		if len(g.Members) > 0 {
			n++
		}
	}
	return n
}
