package ldap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/ldap/contentsync"
)

// review is an independent read in progress, and the digests that the content has had meanwhile.
type review struct{ digests []directory.Digest }

// reviewed is what came of it.
type reviewed struct {
	snapshot *directory.Snapshot
	csns     []string // contextCSN after it
	err      error
}

// startReview reads the whole tree in pages over another connection.
func (f *follower) startReview(now time.Time) {
	f.review, f.started = &review{}, now
	if f.buildErr == nil {
		f.review.digests = append(f.review.digests, f.built.Digest())
	}
	go func() {
		var r reviewed
		r.snapshot, r.csns, r.err = f.readAll(f.life)
		f.results <- r
	}()
}

func (t target) readAll(ctx context.Context) (*directory.Snapshot, []string, error) {
	session, closeSession, err := t.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer closeSession()
	// A server that synchronizes content keeps its contextCSN: the marker can be trusted from the first read on.
	snap, m, err := session.readStable(true, directory.Digest{})
	return snap, strings.Fields(m.text), err
}

// takeReview compares. Content is right when the read found what it is, or what it was at any time since the read began.
func (f *follower) takeReview(r reviewed) error {
	now := time.Now()
	f.build()
	was := f.review
	f.review = nil
	switch {
	case r.err == nil && slices.Contains(was.digests, r.snapshot.Digest()):
		f.reviewed, f.reviews, f.next = f.started, 0, time.Time{}
		f.believed, f.wanted, f.settled = true, nil, r.csns
		f.status.note(func(s *directory.Status) { s.LastFull = now })
		return nil
	case f.buildErr != nil && errors.Is(r.err, ErrContent):
		// The directory itself is like that. What is told once is told again when it changes.
		f.told, f.reviewed, f.reviews, f.next = f.version, f.started, 0, time.Time{}
		return r.err
	case r.err != nil && !errors.Is(r.err, ErrUnstable) && !errors.Is(r.err, ErrContent):
		return r.err
	}
	if f.reviews++; f.reviews >= maxReviews {
		return fmt.Errorf("%w: %d independent reads in a row do not find what was synchronized", contentsync.ErrAnew, f.reviews)
	}
	f.next = now.Add(reviewPause << f.reviews)
	return nil
}
