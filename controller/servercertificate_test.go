package controller

import (
	"context"
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

// A clock that is set forward brings the end of the controller's certificate nearer, and no timer knows of it.
func TestControllerCertificateFollowsTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var set atomic.Int64
		now := func() time.Time { return time.Now().Add(time.Duration(set.Load())) }
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
		s := &serverCertificate{authority: keeper, profile: profile, subject: subject, now: now, log: hclog.NewNullLogger()}
		if err := s.issue(t.Context()); err != nil {
			t.Fatal(err)
		}
		first := s.current.Load().Leaf
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.run(ctx) }()
		synctest.Wait()
		set.Store(int64(first.NotAfter.Sub(first.NotBefore) * 3 / 4))
		<-time.After(certificateGlance)
		synctest.Wait()
		if second := s.current.Load().Leaf; second.SerialNumber.Cmp(first.SerialNumber) == 0 {
			t.Errorf("at %v the certificate that ends %v is still shown", now(), first.NotAfter)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
