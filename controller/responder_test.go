package controller

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/controller/revocation"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/catest"
)

// failingIssuer is a CA whose key cannot be reached, as one in a token that was taken away.
type failingIssuer struct {
	*catest.CA
	fails    error
	attempts int
}

func (f *failingIssuer) Issue(ctx context.Context, p *ca.Prepared) (ca.Issued, error) {
	f.attempts++
	if f.fails != nil {
		return ca.Issued{}, f.fails
	}
	return f.CA.Issue(ctx, p)
}

// However often strangers ask, an issuer that fails is not tried, and its failures are not recorded, more than now and then.
func TestStrangersDoNotDriveAFailingIssuer(t *testing.T) {
	now := time.Now()
	subject, err := pki.NewController(catest.TrustDomain, []string{"c1." + catest.TrustDomain}, nil)
	if err != nil {
		t.Fatal(err)
	}
	profile, err := ca.NewProfile(ca.Responder, ca.ProfileConfig{})
	if err != nil {
		t.Fatal(err)
	}
	r := &responders{
		profile: profile, subject: subject, now: func() time.Time { return now }, log: hclog.NewNullLogger(),
		present: map[pki.KeyID]revocation.Responder{}, failed: map[pki.KeyID]failure{},
	}
	gone := errors.New("the token is gone")
	issuer := &failingIssuer{CA: catest.NewAt(t, func() time.Time { return now }), fails: gone}
	ask := func(want error, attempts int) {
		t.Helper()
		if _, err := r.get(t.Context(), issuer); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
		if issuer.attempts != attempts {
			t.Errorf("tried %d times, want %d", issuer.attempts, attempts)
		}
	}
	ask(gone, 1)
	ask(gone, 1)
	now = now.Add(retryResponder)
	ask(gone, 2)
	issuer.fails = nil
	now = now.Add(retryResponder)
	ask(nil, 3)
	ask(nil, 3)
	// At half its life it is replaced; where that fails, it is used on.
	issuer.fails = gone
	now = now.Add(profile.Lifetime() * 2 / 3)
	ask(nil, 4)
	ask(nil, 4)
}
