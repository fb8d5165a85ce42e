package authority_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/authority"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/slots"
)

// grace is how long after its end a certificate may be renewed here.
const grace = 14 * 24 * time.Hour

// newGraceful opens a CA that waits for whoever may still renew.
func newGraceful(t *testing.T) (*space, *authority.Keeper) {
	t.Helper()
	s := newSpace(t)
	config := s.config()
	config.RenewalGrace = grace
	k, err := authority.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	return s, k
}

// A machine that was away when its certificate ended comes back within the grace of renewals. The CA that vouches for that
// certificate is not retired before, unless the machine has another one to renew with.
func TestCAIsKeptForCertificatesThatMayStillBeRenewed(t *testing.T) {
	s, k := newGraceful(t)
	machine := func(last byte, name string) pki.Identity {
		id, err := pki.NewIdentity("bank.example", pki.UUID{6: 0x40, 8: 0x80, 15: last}, name)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	away, present := machine(1, "away.bank.example"), machine(2, "present.bank.example")
	grant := func(subject pki.Identity) {
		t.Helper()
		if _, err := issueTo(t.Context(), s.now, k, ca.Machine, subject); err != nil {
			t.Fatal(err)
		}
	}
	grant(away)
	grant(present)
	former := slots.IDOf(k.Active().IssuerKeyID())
	if _, err := k.PrepareNext(t.Context(), authority.Preparation{}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Activate(t.Context(), nil, false, ""); err != nil {
		t.Fatal(err)
	}
	grant(present)

	const life = 30 * 24 * time.Hour
	s.now = epoch.Add(life + time.Hour) // both have ended
	_, err := k.Retire(t.Context(), former, false, "")
	if !errors.Is(err, authority.ErrNotReady) || !strings.Contains(err.Error(), "1 certificates") || !strings.Contains(err.Error(), away.URI()) {
		t.Errorf("retiring the CA of a machine that may still renew gave %v, want ErrNotReady that names it alone", err)
	}
	if uses, err := k.Uses(t.Context()); err != nil || !uses[former].Until.Equal(epoch.Add(life+grace)) {
		t.Errorf("the CA is in use until %v, error %v; want the end of the grace, %v", uses[former].Until, err, epoch.Add(life+grace))
	}
	// The machine came back: it has a certificate of the CA that issues.
	grant(away)
	if _, err := k.Retire(t.Context(), former, false, ""); err != nil {
		t.Errorf("retiring once every machine has another certificate: %v", err)
	}
}

// The grace has an end.
func TestCAIsRetiredAfterTheGrace(t *testing.T) {
	s, k := newGraceful(t)
	end := mustIssue(t, s, k).Leaf.NotAfter
	former := slots.IDOf(k.Active().IssuerKeyID())
	if _, err := k.PrepareNext(t.Context(), authority.Preparation{}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Activate(t.Context(), nil, false, ""); err != nil {
		t.Fatal(err)
	}
	s.now = end.Add(grace - time.Second)
	if _, err := k.Retire(t.Context(), former, false, ""); !errors.Is(err, authority.ErrNotReady) {
		t.Errorf("retiring a second before the end of the grace gave %v, want ErrNotReady", err)
	}
	s.now = s.now.Add(time.Second)
	if _, err := k.Retire(t.Context(), former, false, ""); err != nil {
		t.Errorf("retiring at the end of the grace: %v", err)
	}
}
