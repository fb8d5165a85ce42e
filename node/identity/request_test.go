package identity

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

var errAway = errors.New("nobody there")

// clerk answers requests by a script: one step for each question, and then none of them.
type clerk struct {
	t     *testing.T
	ca    *catest.CA
	steps []func(request []byte) (Submission, error)
	asked []pki.KeyID
}

func (c *clerk) Submit(_ context.Context, _ pki.KeyID, request []byte) (Submission, error) {
	r, err := enroll.ParseRequest(request)
	if err != nil {
		c.t.Fatal(err)
	}
	c.asked = append(c.asked, r.KeyID)
	if len(c.steps) == 0 {
		return c.wait(request)
	}
	step := c.steps[0]
	c.steps = c.steps[1:]
	return step(request)
}

func (c *clerk) wait([]byte) (Submission, error) {
	return Submission{AskAgainAfter: 10 * time.Second}, nil
}

func (c *clerk) issue(request []byte) (Submission, error) {
	r, err := enroll.ParseRequest(request)
	if err != nil {
		return Submission{}, err
	}
	profile, err := ca.NewProfile(ca.Machine, ca.ProfileConfig{})
	if err != nil {
		return Submission{}, err
	}
	prepared, err := c.ca.Prepare(time.Now(), profile, r, catest.Identity(c.t, r.DNSName))
	if err != nil {
		return Submission{}, err
	}
	issued, err := c.ca.Issue(c.t.Context(), prepared)
	return Submission{Issued: &Issued{Chain: issued.Chain(), Trust: c.ca.Bundle()}}, err
}

// A request is asked again until it was decided, through failures that pass, and with the same key also by the next process.
func TestRequestIsAskedUntilItWasDecided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(filepath.Join(t.TempDir(), "state"))
		if err != nil {
			t.Fatal(err)
		}
		c := &clerk{t: t, ca: catest.New(t)}
		var told []string
		ask := func(ctx context.Context) (Credentials, error) {
			return Request(ctx, time.Now, s, c, c.ca.Pin(), "sql1.bank.example", []string{"controller:7443"},
				func(err error) bool { return errors.Is(err, errAway) },
				func(_ pki.KeyID, problem string) { told = append(told, problem) })
		}
		c.steps = []func([]byte) (Submission, error){
			c.wait,
			func([]byte) (Submission, error) { return Submission{}, errAway },
			func([]byte) (Submission, error) { return Submission{Busy: "full"}, nil },
			c.wait,
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := ask(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("given up: %v", err)
		}
		if len(c.steps) != 0 || len(told) != 3 || told[0] != "" || told[1] != errAway.Error() || told[2] != "full" {
			t.Errorf("%d steps left, told %q", len(c.steps), told)
		}
		refused := errors.New("denied")
		c.steps = []func([]byte) (Submission, error){func([]byte) (Submission, error) { return Submission{}, refused }}
		if _, err := ask(t.Context()); !errors.Is(err, refused) {
			t.Errorf("a refusal gave %v", err)
		}
		c.steps = []func([]byte) (Submission, error){c.issue}
		joined, err := ask(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range c.asked[1:] {
			if k != c.asked[0] {
				t.Fatal("the key changed between two questions")
			}
		}
		stored, err := s.Load()
		if err != nil || stored.Identity != joined.Identity || stored.Identity.DNSName() != "sql1.bank.example" {
			t.Errorf("stored is %v, error %v", stored.Identity, err)
		}
		if _, err := ask(t.Context()); !errors.Is(err, ErrJoined) {
			t.Errorf("a member that asks again got %v", err)
		}
	})
}

// A certificate for another machine, or of another fleet, is not taken.
func TestRequestTakesNoForeignCertificate(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	c := &clerk{t: t, ca: catest.New(t)}
	other := catest.New(t)
	c.steps = []func([]byte) (Submission, error){func(request []byte) (Submission, error) {
		submission, err := c.issue(request)
		submission.Issued.Trust = other.Bundle()
		return submission, err
	}}
	_, err = Request(t.Context(), time.Now, s, c, c.ca.Pin(), "sql1.bank.example", nil, func(error) bool { return false }, func(pki.KeyID, string) {})
	if reason, ok := trust.ReasonOf(err); !ok || reason != trust.ReasonUnknownIssuer {
		t.Errorf("got %v, want it refused for its issuer", err)
	}
	if _, err := s.Load(); !errors.Is(err, ErrNotJoined) {
		t.Errorf("stored: %v", err)
	}
}

func TestPauses(t *testing.T) {
	for _, c := range []struct {
		asked  time.Duration
		jitter float64
		want   time.Duration
	}{{0, 0, usualPause}, {-1, 0, usualPause}, {time.Millisecond, 0, shortestPause}, {time.Hour, 0, longestPause}, {8 * time.Second, 0.5, 9 * time.Second}} {
		if got := pause(c.asked, c.jitter); got != c.want {
			t.Errorf("asked for %v with jitter %v: %v, want %v", c.asked, c.jitter, got, c.want)
		}
	}
}
