package ldap

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/ldap/contentsync"
)

// The protocols, as Status names them.
const (
	protocolSync = "content synchronization (RFC 4533)"
	protocolPoll = "polling"
)

// maxAnew is how often in a row synchronization may start again without cookie before the directory is polled.
const maxAnew = 3

// noSync says why a target is not to be synchronized; "" when it may be.
func (t target) noSync() string {
	switch {
	case t.PollOnly:
		return "configured"
	case t.Schema.Identity == directory.ObjectGUID:
		return "Active Directory has no content synchronization"
	}
	return ""
}

// resumes says whether the server is asked to go on from a cookie. 389 Directory Server takes its cookie and then leaves
// changes out that came after it (seen with 2.3): there every operation begins with a whole refresh.
func (t target) resumes() bool { return t.Schema.Identity != directory.NSUniqueID }

// usePolling notes why content synchronization is not in use, and for how long it is not tried again.
func (s *Source) usePolling(reason string) {
	s.pollsOnly, s.anew, s.replica = reason, 0, contentsync.Replica{}
	s.trySync = time.Now().Add(s.target.FullInterval)
	s.state.note(func(st *directory.Status) { st.Protocol, st.ProtocolNote = protocolPoll, reason })
}

// read waits for the next state of the directory by the protocol in use; a poll that finds nothing new returns nothing.
func (s *Source) read(ctx context.Context) (*directory.Snapshot, error) {
	for s.follower != nil || s.target.noSync() == "" && !time.Now().Before(s.trySync) {
		snap, err := s.follow(ctx)
		switch {
		case errors.Is(err, errNoSync):
			s.usePolling(err.Error())
			continue
		case errors.Is(err, contentsync.ErrAnew):
			s.replica = contentsync.Replica{}
			if s.anew++; s.anew > maxAnew {
				s.usePolling(fmt.Sprintf("synchronization had to start again %d times in a row: %v", maxAnew, err))
			}
			continue
		case err == nil:
			s.anew = 0
		case ctx.Err() == nil:
			s.state.note(func(st *directory.Status) { st.Failed(time.Now(), err) })
		}
		return snap, err
	}
	if s.replicates() {
		snap, err := s.replicate(ctx)
		if !errors.Is(err, errNoChanges) {
			if err != nil && ctx.Err() == nil {
				s.state.note(func(st *directory.Status) { st.Failed(time.Now(), err) })
			}
			return snap, err
		}
		s.known = known{}
		s.usePolling(err.Error())
	}
	return s.poll(ctx)
}

// follow returns the next content of the follower, which it starts where there is none and ends after an error.
func (s *Source) follow(ctx context.Context) (*directory.Snapshot, error) {
	if s.follower == nil {
		s.password = s.target.passwordAge()
		f, err := s.target.openFollower(ctx, s.closed, s.replica, &s.state)
		if err != nil {
			return nil, err
		}
		s.follower = f
	}
	f := s.follower
	snap, err := f.wait(ctx)
	switch {
	case err == nil:
		at := time.Now()
		s.state.note(func(st *directory.Status) {
			took := st.LastDuration
			if f.first {
				took = at.Sub(f.began)
				st.LastFull = at
			}
			st.Succeeded(at, took, snap)
			st.Protocol, st.ProtocolNote = protocolSync, ""
		})
		f.first, s.pollsOnly, s.reached = false, "", f.session.Cookie()
	case ctx.Err() != nil && errors.Is(err, ctx.Err()), errors.Is(err, ErrContent) && !f.over:
	default:
		if r, ok := f.session.Replica(); ok && s.target.resumes() {
			s.replica = r
		}
		f.stream.close()
		s.follower = nil
	}
	return snap, err
}
