package ldap

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/ldap/contentsync"
)

// The back-off after failures: the first wait, doubled up to the longest; after refused credentials at once the
// longest, because servers lock accounts that guess.
const (
	firstWait       = time.Second
	longestWait     = time.Minute
	credentialsWait = 5 * time.Minute
	credentialsPoll = 2 * time.Second
)

// A Source reads a directory server, told of changes by what the server offers and our rights allow, else by
// polling; it implements directory.Source.
type Source struct {
	target target

	// Owned by the goroutine that calls Next.
	delivered directory.Digest
	marker    marker             // at the end of the last complete read
	live      bool               // the marker has been seen to change: it is kept up to date
	settled   bool               // two complete reads have ended at the marker
	fullRead  time.Time          // when the last complete read ended
	reached   contentsync.Cookie // how far the content of the last read is; empty when the server does not say
	trusted   trusted
	failures  int
	wait      time.Duration // before the next poll
	failed    error         // of the last poll
	password  time.Time     // the password file's age as of the last poll

	follower   *follower   // nil while there is none
	replicator *replicator // nil while there is none
	known      known       // what the last one left

	replica   contentsync.Replica // what the last one left
	anew      int                 // how often in a row one had to start again without cookie
	trySync   time.Time           // when content synchronization is to be tried
	pollsOnly string              // why it is not in use

	closing context.CancelFunc
	closed  context.Context
	state   guardedStatus
}

type guardedStatus struct {
	sync.Mutex
	directory.Status
}

// note changes the status.
func (g *guardedStatus) note(change func(*directory.Status)) {
	g.Lock()
	defer g.Unlock()
	change(&g.Status)
}

// Open validates the configuration; nothing is sent before the first Next. The error wraps ErrConfig.
func Open(c Config) (*Source, error) {
	t, err := c.target()
	if err != nil {
		return nil, err
	}
	s := &Source{target: t}
	s.closed, s.closing = context.WithCancel(context.Background())
	s.state.Status = directory.Status{Kind: "ldap", Location: t.URL, Base: t.Base.String()}
	if reason := t.noSync(); reason != "" && !s.replicates() {
		s.usePolling(reason)
	}
	return s, nil
}

// Status describes the source.
func (s *Source) Status() directory.Status {
	s.state.Lock()
	defer s.state.Unlock()
	return s.state.Status
}

// Close ends the connection; a waiting Next returns ErrClosed.
func (s *Source) Close() error {
	s.closing()
	return nil
}

// Next implements directory.Source. Its errors are *Error, the context's, or ErrClosed.
func (s *Source) Next(ctx context.Context) (*directory.Snapshot, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.closed, cancel)()
	for {
		if !s.told() {
			if err := s.pause(ctx); err != nil {
				return nil, s.ended(err)
			}
		}
		before := s.Status()
		snap, err := s.read(ctx)
		if snap != nil && err == nil {
			if err = s.doubt(snap); err != nil {
				snap = nil
				s.forget(before, err)
			}
		}
		// Close ends the connection, and the read with it, perhaps before this context.
		if ended := cmp.Or(ctx.Err(), s.closed.Err()); ended != nil && snap == nil {
			return nil, s.ended(ended)
		}
		recovered := s.failures > 0 && err == nil
		s.plan(err)
		if err != nil {
			return nil, err
		}
		if snap != nil && (recovered || snap.Digest() != s.delivered) {
			s.delivered = snap.Digest()
			return snap, nil
		}
	}
}

// told says whether a server tells of changes, or is asked for them, so that there is nothing to poll.
func (s *Source) told() bool { return s.follower != nil || s.replicator != nil }

func (s *Source) ended(err error) error {
	if s.closed.Err() != nil {
		return ErrClosed
	}
	return err
}

// plan decides how long to wait before the next poll.
func (s *Source) plan(err error) {
	s.failed = err
	switch {
	case err == nil:
		s.failures = 0
		s.wait = s.target.Interval
	case errors.Is(err, ErrCredentials):
		s.failures++
		s.wait = credentialsWait
	default:
		s.wait = min(firstWait<<min(s.failures, 10), max(longestWait, s.target.Interval))
		s.failures++
	}
	// A tenth either way, so that many controllers do not poll in step.
	s.wait += time.Duration((rand.Float64() - 0.5) * 0.2 * float64(s.wait))
	s.state.Lock()
	defer s.state.Unlock()
	s.state.NextRead = time.Now().Add(s.wait)
	if s.told() {
		s.state.NextRead = time.Time{}
	}
}

// pause waits until the next poll is due. After refused credentials a new password ends the wait.
func (s *Source) pause(ctx context.Context) error {
	due := time.NewTimer(s.wait)
	defer due.Stop()
	var look <-chan time.Time
	if errors.Is(s.failed, ErrCredentials) {
		ticker := time.NewTicker(credentialsPoll)
		defer ticker.Stop()
		look = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-due.C:
			return nil
		case <-look:
			if !s.target.passwordAge().Equal(s.password) {
				return nil
			}
		}
	}
}

// passwordAge returns when the password file was last changed; the zero time when there is none.
func (t target) passwordAge() time.Time {
	b, ok := t.Bind.(Simple)
	if !ok {
		return time.Time{}
	}
	st, err := os.Stat(b.PasswordFile)
	if err != nil {
		return time.Time{}
	}
	return st.ModTime()
}

// poll reads once; both results are nil when the server says that nothing has changed.
func (s *Source) poll(ctx context.Context) (*directory.Snapshot, error) {
	began := time.Now()
	s.password = s.target.passwordAge() // before it is read: a change in between counts as a change
	snap, m, err := s.readOnce(ctx)
	s.state.Lock()
	defer s.state.Unlock()
	at := time.Now()
	switch {
	case err != nil:
		if ctx.Err() == nil {
			s.state.Failed(at, err)
		}
		return nil, err
	case snap == nil:
		s.state.LastRead = at
		return nil, nil
	}
	s.state.Succeeded(at, at.Sub(began), snap)
	s.state.LastFull = at
	s.live = s.live || s.marker.known() && m.known() && s.marker != m
	s.settled = s.marker == m
	s.marker, s.fullRead = m, at
	s.reached = contentsync.CookieOf(strings.Fields(m.text))
	return snap, nil
}

func (s *Source) readOnce(ctx context.Context) (*directory.Snapshot, marker, error) {
	session, closeSession, err := s.target.open(ctx)
	if err != nil {
		return nil, marker{}, err
	}
	defer closeSession()
	// A marker that was seen to change is kept up to date by the server: while it stands, so does the tree. Access
	// rights may change without it, and failures leave doubts: then everything is read.
	if s.live && s.failures == 0 && time.Since(s.fullRead) < s.target.FullInterval {
		m, err := session.marker()
		if err != nil {
			return nil, marker{}, err
		}
		if m.known() && m == s.marker && (!m.late || s.settled) {
			return nil, marker{}, nil
		}
	}
	return session.readStable(s.live, s.delivered)
}
