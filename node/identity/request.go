package identity

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/bailiwick-net/bailiwick/node/statefile"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
)

// A Submission is what became of a request without a token so far.
type Submission struct {
	// Issued is the certificate; nil while the request waits.
	Issued *Issued
	// AskAgainAfter is how long the controller wants to be left alone; 0 leaves it to us.
	AskAgainAfter time.Duration
	// Busy is why the controller did not even take the request; empty when it did.
	Busy string
}

// Requester asks for a certificate without a token, of a controller whose root has the pinned key.
type Requester interface {
	Submit(ctx context.Context, pin pki.KeyID, request []byte) (Submission, error)
}

// The bounds of the pause between two questions.
const (
	shortestPause = time.Second
	usualPause    = 15 * time.Second
	longestPause  = 5 * time.Minute
)

// Request asks for a certificate in the machine's name until it was issued, refused, or ctx ends, and stores it. The key
// is stored first, so that a request that was given up goes on where it stopped. waiting is told the key's id, by which
// administrators know the request, before the first question, and afterwards each time the controller does not answer or
// has no room. temporary says which errors of the Requester are worth another try.
func Request(ctx context.Context, now func() time.Time, s Store, r Requester, pin pki.KeyID, name string, controllers []string,
	temporary func(error) bool, waiting func(key pki.KeyID, problem string)) (Credentials, error) {
	if _, err := s.Load(); err == nil {
		return Credentials{}, ErrJoined
	} else if !errors.Is(err, ErrNotJoined) {
		return Credentials{}, err
	}
	key, err := s.pendingKey()
	if err != nil {
		return Credentials{}, err
	}
	id, err := pki.KeyIDOf(key.Public())
	if err != nil {
		return Credentials{}, err
	}
	request, err := enroll.NewJoinRequest(key, name)
	if err != nil {
		return Credentials{}, fmt.Errorf("make certificate request for %q: %w", name, err)
	}
	waiting(id, "")
	for {
		submission, err := r.Submit(ctx, pin, request)
		switch {
		case err != nil && ctx.Err() != nil:
			return Credentials{}, fmt.Errorf("the request %s was not decided: %w", id.String()[:16], err)
		case err != nil && !temporary(err):
			return Credentials{}, err
		case err != nil:
			waiting(id, err.Error())
		case submission.Busy != "":
			waiting(id, submission.Busy)
		case submission.Issued != nil:
			joined, err := s.accept(now(), key, *submission.Issued, Credentials{Controllers: controllers})
			if err != nil {
				return Credentials{}, err
			}
			return joined, statefile.Remove(filepath.Join(s.dir, pendingFile))
		}
		timer := time.NewTimer(pause(submission.AskAgainAfter, rand.Float64()))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return Credentials{}, fmt.Errorf("the request %s is not decided yet, ask again later: %w", id.String()[:16], ctx.Err())
		}
	}
}

// pause is the time between two questions: what the controller asked for, within bounds, and up to a quarter more, so that
// machines that were started together do not ask together. jitter is in [0,1).
func pause(asked time.Duration, jitter float64) time.Duration {
	if asked <= 0 {
		asked = usualPause
	}
	asked = min(max(asked, shortestPause), longestPause)
	return asked + time.Duration(jitter*float64(asked)/4)
}
