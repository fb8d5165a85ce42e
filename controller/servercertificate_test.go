package controller

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/controller/authority"
	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/journal"
	"github.com/bailiwick-net/bailiwick/pki/slots"
)

// memory is a store of CAs without a disk.
type memory struct {
	authority.Store
	state slots.State
}

func (m *memory) Authorities(context.Context) (slots.State, int64, error) {
	if len(m.state.Slots) == 0 {
		return slots.State{}, 0, store.ErrNotFound
	}
	return m.state, 1, nil
}

func (m *memory) PutAuthorities(_ context.Context, state slots.State, _ int64, _ journal.Event) error {
	m.state = state
	return nil
}

func (*memory) Record(context.Context, ca.Intention) error { return nil }

func (*memory) Complete(context.Context, string, []byte) error { return nil }

// newServerCertificate is that of a controller which has made its CA, and has no certificate yet.
func newServerCertificate(t *testing.T, now func() time.Time) *serverCertificate {
	t.Helper()
	unlock, err := ca.KeyOctets([]byte(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	keeper, err := authority.Open(t.Context(), authority.Config{
		Store: &memory{}, Unlock: unlock, Init: true, CA: ca.Config{TrustDomain: "bank.example"}, Now: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	subject, err := pki.NewController("bank.example", []string{"c1.bank.example"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	profile, err := ca.NewProfile(ca.Server, ca.ProfileConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return &serverCertificate{authority: keeper, profile: profile, subject: subject, now: now, log: hclog.NewNullLogger()}
}

// running runs it, and returns what ends it.
func (s *serverCertificate) running(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.run(ctx) }()
	synctest.Wait()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// A clock that is set forward brings the end of the controller's certificate nearer, and no timer knows of it.
func TestControllerCertificateFollowsTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var set atomic.Int64
		now := func() time.Time { return time.Now().Add(time.Duration(set.Load())) }
		s := newServerCertificate(t, now)
		if err := s.issue(t.Context()); err != nil {
			t.Fatal(err)
		}
		first := s.current.Load().Leaf
		stop := s.running(t)
		set.Store(int64(first.NotAfter.Sub(first.NotBefore) * 3 / 4))
		<-time.After(certificateGlance)
		synctest.Wait()
		if second := s.current.Load().Leaf; second.SerialNumber.Cmp(first.SerialNumber) == 0 {
			t.Errorf("at %v the certificate that ends %v is still shown", now(), first.NotAfter)
		}
		stop()
	})
}

// A controller whose CA has ended, by a wrong clock say, starts without a certificate, and gets one when the clock is set.
func TestControllerWaitsForACertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var set atomic.Int64
		s := newServerCertificate(t, func() time.Time { return time.Now().Add(time.Duration(set.Load())) })
		set.Store(int64(s.authority.Active().Remaining(time.Now()) + time.Hour))
		if err := s.replace(t.Context()); err != nil {
			t.Fatalf("starting with a CA that has ended: %v", err)
		}
		if _, err := s.get(nil); !errors.Is(err, errNoServerCertificate) {
			t.Errorf("what is shown: %v, want that there is no certificate", err)
		}
		stop := s.running(t)
		set.Store(0)
		<-time.After(certificateGlance)
		synctest.Wait()
		if _, err := s.get(nil); err != nil {
			t.Errorf("after the clock was set: %v", err)
		}
		stop()
	})
}

// A certificate that was revoked while no other could be made is replaced as soon as one can.
func TestRevokedCertificateIsReplacedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServerCertificate(t, time.Now)
		if err := s.issue(t.Context()); err != nil {
			t.Fatal(err)
		}
		revoked := s.current.Load().Leaf
		s.revoked.Store(true)
		stop := s.running(t)
		<-time.After(certificateGlance)
		synctest.Wait()
		second := s.current.Load().Leaf
		if second.SerialNumber.Cmp(revoked.SerialNumber) == 0 {
			t.Error("the revoked certificate is still shown")
		}
		<-time.After(certificateGlance)
		synctest.Wait()
		if third := s.current.Load().Leaf; third != second {
			t.Error("a certificate that counts was replaced")
		}
		stop()
	})
}
