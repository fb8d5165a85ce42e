package ldap

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/ldap/contentsync"
)

const (
	// settleTime is how long messages may be on their way that the server's contextCSN says to exist.
	settleTime = 2 * time.Second
	// lostIntervals is after how many probes at the earliest content that seems to lag is held against a read.
	lostIntervals = 4
	// maxReviews is how often an independent read may differ from the content before the content is wrong.
	maxReviews = 4
	// reviewPause is before another such read: the content may just have been on its way.
	reviewPause = 100 * time.Millisecond
)

// follower keeps content up to date by one stream and publishes it when it may be believed.
//
// Content of a first refresh is believed when the server's contextCSN says that nothing is missing of it. Content that
// was resumed is believed when an independent read of the whole tree finds the same: a server that was restored from a
// backup takes a cookie and says "present" of what it has otherwise. The same read is repeated every FullInterval.
type follower struct {
	target
	stream  *stream
	session *contentsync.Session
	resumed bool
	began   time.Time
	first   bool // nothing was handed out yet
	// messages counts those that were applied.
	messages int

	believed bool
	wanted   []string  // contextCSN that the content has not reached yet
	wantedBy time.Time // when it has to be there
	settled  []string  // contextCSN that an independent read found to be reached, whatever the cookie says

	built    *directory.Snapshot // of version
	version  uint64
	told     uint64 // the version that was handed out, or whose error was
	buildErr error
	heard    time.Time // the last sign of life

	probing  bool
	probed   time.Time
	probes   chan probed
	review   *review
	reviewed time.Time // the last independent read that agreed
	reviews  int
	results  chan reviewed
	started  time.Time // when the latest review was
	next     time.Time // when another review may start, after one that differed

	over   bool            // the stream ended
	life   context.Context // of the operation, over many calls of wait
	status *guardedStatus
}

type probed struct {
	csns []string
	err  error
}

// openFollower starts the operation, with the replica's cookie where it has one.
func (t target) openFollower(ctx, life context.Context, r contentsync.Replica, status *guardedStatus) (*follower, error) {
	now := time.Now()
	stream, err := t.openStream(ctx, life, r.Cookie())
	if err != nil {
		return nil, err
	}
	f := &follower{
		target: t, stream: stream, resumed: r.Cookie() != "", began: now, heard: now, probed: now, reviewed: now,
		told: math.MaxUint64, first: true, life: life, status: status,
		probes: make(chan probed, 1), results: make(chan reviewed, 1),
	}
	if f.resumed {
		f.session = contentsync.Resume(r, stream.inner)
	} else {
		f.session = contentsync.Start(stream.inner)
	}
	return f, nil
}

// wait returns the next content that differs from the last returned one and may be believed. An error that wraps ErrContent
// leaves the follower usable; after any other, and but for the error of ctx, it is over.
func (f *follower) wait(ctx context.Context) (*directory.Snapshot, error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		snap, err := f.advance()
		if snap != nil || err != nil {
			return snap, err
		}
		timer.Reset(time.Until(f.deadline()))
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case e, ok := <-f.stream.events:
			if err := f.take(e, ok); err != nil {
				f.over = true
				return nil, err
			}
		case p := <-f.probes:
			if err := f.takeProbe(p); err != nil {
				return nil, err
			}
		case r := <-f.results:
			if err := f.takeReview(r); err != nil {
				return nil, err
			}
		case <-timer.C:
		}
	}
}

func (f *follower) persisting() bool { return f.session.Stage() == contentsync.Persisting }

// take applies a message and all that have arrived behind it.
func (f *follower) take(e event, ok bool) error {
	f.heard = time.Now()
	young := !f.persisting()
	for left := streamBuffer; ; left-- {
		if (!ok || e.err != nil) && f.probing {
			// A probe without answer ends the stream, and knows why; the end of the stream ends a probe.
			f.probing = false
			if p := <-f.probes; errors.Is(p.err, ErrTimeout) {
				return p.err
			}
		}
		if !ok {
			return f.wrapAs(ErrInterrupted, duringSync, errors.New("the stream ended"))
		}
		if e.err != nil {
			return f.stream.ended(e.err, f.resumed, !f.persisting())
		}
		if err := f.session.Apply(e.message); err != nil {
			return err
		}
		if f.messages++; !f.persisting() && f.messages > maxEntries {
			return f.wrapAs(ErrProtocol, duringSync, fmt.Errorf("%w: a refresh has more than %d messages", errEndless, maxEntries))
		}
		if left == 1 {
			break // before another is received, which would be lost
		}
		select {
		case e, ok = <-f.stream.events:
			continue
		default:
		}
		break
	}
	if young && f.persisting() {
		f.startProbe()
	}
	return nil
}

// advance does what is due now and returns content that may be handed out.
func (f *follower) advance() (*directory.Snapshot, error) {
	now := time.Now()
	if !f.persisting() {
		if now.Sub(f.heard) >= f.Timeout {
			return nil, f.wrapAs(ErrTimeout, duringSync, fmt.Errorf("nothing came for %v in the middle of a refresh", f.Timeout))
		}
		return nil, nil
	}
	if f.wanted != nil && f.session.Cookie().Reaches(f.wanted) {
		f.wanted = nil
		if !f.resumed {
			f.believed = true
		}
	}
	if !f.probing && now.Sub(f.probed) >= f.Interval {
		f.startProbe()
	}
	if f.build() {
		if f.believed && f.buildErr == nil && f.told != f.version {
			f.told = f.version
			return f.built, nil
		}
	}
	if f.review == nil && !now.Before(f.next) && f.reviewDue(now) {
		f.startReview(now)
	}
	return nil, nil
}

func (f *follower) reviewDue(now time.Time) bool {
	return f.resumed && !f.believed || f.wanted != nil && !now.Before(f.wantedBy) ||
		f.buildErr != nil && f.told != f.version || f.reviews > 0 || now.Sub(f.reviewed) >= f.FullInterval
}

// deadline is when advance has something to do although nothing arrives.
func (f *follower) deadline() time.Time {
	if !f.persisting() {
		return f.heard.Add(f.Timeout)
	}
	due := f.probed.Add(max(f.Interval, time.Millisecond))
	if f.probing {
		due = time.Now().Add(f.Timeout)
	}
	if f.review != nil {
		return due
	}
	again := f.reviewed.Add(f.FullInterval)
	if f.wanted != nil && f.wantedBy.Before(again) {
		again = f.wantedBy
	}
	if again.Before(f.next) || f.reviews > 0 {
		again = f.next
	}
	if again.Before(due) {
		due = again
	}
	return due
}

// build brings built up to the session's version, and says whether there is one.
func (f *follower) build() bool {
	if v := f.session.Version(); f.built == nil && f.buildErr == nil || f.version != v {
		f.version = v
		f.built, f.buildErr = f.session.Snapshot(f.Base)
		if f.review != nil && f.buildErr == nil {
			f.review.digests = append(f.review.digests, f.built.Digest())
		}
	}
	return f.buildErr == nil
}

func (f *follower) startProbe() {
	f.probing = true
	go func() {
		csns, err := f.stream.probe()
		f.probes <- probed{csns, err}
	}()
}

func (f *follower) takeProbe(p probed) error {
	f.probing, f.probed = false, time.Now()
	if p.err != nil {
		return p.err
	}
	f.heard = f.probed
	if len(p.csns) > 0 && (slices.Equal(p.csns, f.settled) || f.believed && f.session.Cookie().Reaches(p.csns)) {
		f.wanted = nil
		f.status.note(func(s *directory.Status) { s.LastRead = f.probed })
		return nil
	}
	if f.wanted == nil {
		f.wantedBy = f.probed.Add(settleTime)
		// The client (go-ldap 3.4.15) loses the cookie of a newCookie message, by which the server tells of changes that are
		// none of ours: that the content does not reach contextCSN is then no reason to read everything at every probe.
		if again := f.reviewed.Add(lostIntervals * f.Interval); f.believed && f.wantedBy.Before(again) {
			f.wantedBy = again
		}
	}
	f.wanted = p.csns
	if len(p.csns) == 0 || !f.believed && !f.resumes() {
		// The server does not say how far it is, or not to be relied on: what a refresh came to has to be read again.
		f.wanted = nil
		if !f.believed {
			f.resumed = true
		}
	}
	return nil
}
