package node

import (
	"context"
	"crypto"
	"errors"
	"io"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/node/statefile"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// slowIssuer renews when it is told to.
type slowIssuer struct {
	ca    *catest.CA
	asked chan struct{}
	now   chan struct{}
}

func (i slowIssuer) Renew(ctx context.Context, request []byte) (identity.Issued, error) {
	close(i.asked)
	select {
	case <-i.now:
	case <-ctx.Done():
		return identity.Issued{}, ctx.Err()
	}
	parsed, err := enroll.ParseRequest(request)
	if err != nil {
		return identity.Issued{}, err
	}
	profile, err := ca.NewProfile(ca.Machine, ca.ProfileConfig{})
	if err != nil {
		return identity.Issued{}, err
	}
	prepared, err := i.ca.Prepare(time.Now(), profile, parsed, parsed.Subject)
	if err != nil {
		return identity.Issued{}, err
	}
	issued, err := i.ca.Issue(ctx, prepared)
	if err != nil {
		return identity.Issued{}, err
	}
	return identity.Issued{Chain: issued.Chain(), Trust: i.ca.Bundle()}, nil
}

func member(t *testing.T, authority *catest.CA) *membership {
	t.Helper()
	machine := authority.Machine(t, catest.Identity(t, "sql1.bank.example"))
	key := machine.PrivateKey.(crypto.Signer)
	credentials, err := identity.NewCredentials(time.Now(), key, machine.Certificate, authority.Bundle(), []string{"controller:7443"})
	if err != nil {
		t.Fatal(err)
	}
	store, err := identity.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Save(credentials); err != nil {
		t.Fatal(err)
	}
	m, err := newMembership(store, false)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A trust bundle that comes while a renewal is under way, which knows the former one, must not be lost to it.
func TestRenewalAndTrustBundleDoNotLoseEachOther(t *testing.T) {
	authority := catest.New(t)
	m := member(t, authority)
	before := m.Credentials().Leaf().SerialNumber
	next, err := authority.CA.Bundle(authority.Bundle().Revision() + 1)
	if err != nil {
		t.Fatal(err)
	}
	issuer := slowIssuer{authority, make(chan struct{}), make(chan struct{})}
	renewed, replaced := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := m.renewNow(t.Context(), issuer)
		renewed <- err
	}()
	<-issuer.asked
	go func(b trust.Bundle) { replaced <- m.SetTrust(b) }(next)
	select {
	case err := <-replaced:
		t.Errorf("the bundle was replaced in the middle of a renewal that will put the former one back, error %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(issuer.now)
	if err := errors.Join(<-renewed, <-replaced); err != nil {
		t.Fatal(err)
	}
	stored, err := m.store.Load()
	if err != nil {
		t.Fatal(err)
	}
	for where, c := range map[string]identity.Credentials{"in memory": m.Credentials(), "on disk": stored} {
		if c.Leaf().SerialNumber.Cmp(before) == 0 || c.Trust.Digest() != next.Digest() {
			t.Errorf("%s: certificate %v and trust revision %d, want a new certificate and revision %d", where, c.Leaf().SerialNumber, c.Trust.Revision(), next.Revision())
		}
	}
}

// A trust bundle from before a rotation, which a controller that was put back to an earlier state would send, does not bring the
// trust in a retired CA back.
func TestOlderTrustBundleIsRefused(t *testing.T) {
	authority := catest.New(t)
	m := member(t, authority)
	bundle := func(revision uint64) trust.Bundle {
		b, err := authority.CA.Bundle(revision)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	next := bundle(authority.Bundle().Revision() + 2)
	if err := m.SetTrust(next); err != nil {
		t.Fatal(err)
	}
	if err := m.SetTrust(bundle(next.Revision() - 1)); err == nil {
		t.Error("an older bundle was taken")
	}
	stored, err := m.store.Load()
	if err != nil {
		t.Fatal(err)
	}
	for where, c := range map[string]identity.Credentials{"in memory": m.Credentials(), "on disk": stored} {
		if c.Trust.Revision() != next.Revision() {
			t.Errorf("%s: revision %d, want %d", where, c.Trust.Revision(), next.Revision())
		}
	}
}

// A controller that takes the request and never answers must not end renewal for good.
func TestRenewalDoesNotWaitForever(t *testing.T) {
	authority := catest.New(t)
	m := member(t, authority)
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, err := m.renewNow(t.Context(), slowIssuer{authority, make(chan struct{}), make(chan struct{})})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != answerTime {
			t.Errorf("after %v: %v, want the deadline after %v", time.Since(start), err, answerTime)
		}
	})
}

func TestOneDaemonForAStateDirectory(t *testing.T) {
	m := member(t, catest.New(t))
	dir := filepath.Join(t.TempDir(), "state")
	store, err := identity.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Save(m.Credentials()); err != nil {
		t.Fatal(err)
	}
	lock, err := statefile.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	err = Run(t.Context(), Config{StateDir: dir, Socket: filepath.Join(dir, "socket")}, "test", io.Discard, nil)
	if !errors.Is(err, statefile.ErrLocked) {
		t.Errorf("second daemon: %v, want ErrLocked", err)
	}
}
