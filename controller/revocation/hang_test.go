package revocation

import (
	"context"
	"crypto/x509"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/mirror"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/journal"
	"github.com/bailiwick-net/bailiwick/pki/revocation"
)

// told is a store that remembers what the journal was told.
type told struct {
	register
	sync.Mutex
	events []journal.Event
}

func (s *told) RecordEvent(_ context.Context, e journal.Event) error {
	s.Lock()
	defer s.Unlock()
	s.events = append(s.events, e)
	return nil
}

func (s *told) IssuancesOf(context.Context, pki.KeyID) ([]ca.Entry, error) { return nil, nil }

// token is a CA whose key hangs, whatever is to be signed, until it is released.
type token struct {
	*catest.CA
	sync.Mutex
	hang chan struct{}
	asks int
}

func (s *token) wait() {
	s.Lock()
	s.asks++
	hang := s.hang
	s.Unlock()
	<-hang
}

func (s *token) hangs() (release func()) {
	s.Lock()
	defer s.Unlock()
	hang := make(chan struct{})
	s.hang = hang
	return sync.OnceFunc(func() { close(hang) })
}

func (s *token) asked() int {
	s.Lock()
	defer s.Unlock()
	return s.asks
}

func (s *token) SignCRL(list revocation.List) ([]byte, error) {
	s.wait()
	return s.CA.SignCRL(list)
}

func (s *token) Issue(ctx context.Context, p *ca.Prepared) (ca.Issued, error) {
	s.wait()
	return s.CA.Issue(ctx, p)
}

// While the key of the CA hangs in the middle of a certificate and of a list, a revocation is recorded and told all the same;
// whoever asks for the list gets the one before, and strangers who go on asking cost no more than one signature; the journal
// hears of it, and of its end; and the certificate that was under way is not given away.
func TestRevokingWaitsForNoSignature(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		authority := &token{CA: catest.New(t)}
		authority.hangs()()
		s := &told{}
		k, err := Open(t.Context(), Config{
			Store: s, Issuers: func() []Issuer { return []Issuer{authority} }, TrustDomain: "bank.example", View: func() *mirror.View { return nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		notified := 0
		k.Notify(func() { notified++ })
		scope := revocation.Whole(authority.IssuerKeyID())
		first, err := k.List(t.Context(), scope)
		if err != nil {
			t.Fatal(err)
		}
		guard := k.Guard(authority)
		prepared := prepare(t, guard, catest.Identity(t, "sql1.bank.example"))
		key := prepared.Intention().Key
		release := authority.hangs()
		defer release()
		issued := make(chan error, 1)
		go func() {
			_, err := guard.Issue(context.WithoutCancel(t.Context()), prepared)
			issued <- err
		}()
		synctest.Wait()

		began := time.Now()
		if _, err := k.Revoke(t.Context(), Order{Key: key}, revocation.KeyCompromise, "anna"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 0 || notified != 1 || !k.Set().HasKey(key) {
			t.Errorf("the revocation took %v, was told %d times, is in force: %v", took, notified, k.Set().HasKey(key))
		}
		before := authority.asked()
		for range 50 {
			began := time.Now()
			list, err := k.List(t.Context(), scope)
			if err != nil || list.Number != first.Number {
				t.Fatalf("the list is number %d, %v, want the one before, %d", list.Number, err, first.Number)
			}
			if took := time.Since(began); took > signingTime {
				t.Fatalf("whoever asked for the list waited %v", took)
			}
		}
		if n := authority.asked() - before; n != 1 {
			t.Errorf("%d signatures were asked for at once, want 1", n)
		}
		synctest.Wait()
		if h := k.Health(); h.Failing != 1 || h.Failures == 0 || !h.Ends[scope.Issuer].Equal(first.NextUpdate) {
			t.Errorf("the health of the lists is %+v", h)
		}
		if len(s.events) != 1 || !strings.Contains(s.events[0].What, "cannot be signed") {
			t.Errorf("the journal was told %+v", s.events)
		}

		release()
		if err := <-issued; !errors.Is(err, ErrKeyRevoked) {
			t.Errorf("the certificate for the key that was revoked meanwhile came to %v, want ErrKeyRevoked", err)
		}
		synctest.Wait()
		list, err := k.List(t.Context(), scope)
		if err != nil || list.Number <= first.Number {
			t.Errorf("after the token was back the list is number %d, %v", list.Number, err)
		}
		if _, err := x509.ParseRevocationList(list.DER); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if h := k.Health(); h.Failing != 0 || !h.Since.IsZero() || len(s.events) != 2 {
			t.Errorf("the health of the lists is %+v, the journal was told %+v", h, s.events)
		}
	})
}

// hanging opens a keeper of a CA whose key does not sign until it is released.
func hanging(t *testing.T) (*token, *Keeper, func()) {
	t.Helper()
	authority := &token{CA: catest.New(t)}
	release := authority.hangs()
	k, err := Open(t.Context(), Config{Store: &told{}, Issuers: func() []Issuer { return []Issuer{authority} }})
	if err != nil {
		t.Fatal(err)
	}
	return authority, k, release
}

// Without a list that is good whoever asks is refused in time, and what failed is tried again without anybody asking.
func TestListsAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		authority, k, release := hanging(t)
		scope := revocation.Whole(authority.IssuerKeyID())
		if _, err := k.List(t.Context(), scope); !errors.Is(err, ErrSilent) {
			t.Errorf("the first list gave %v, want ErrSilent", err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- k.TendLists(ctx) }()
		<-time.After(tendInterval)
		if k.Health().Failing != 1 {
			t.Error("nobody tells that the list cannot be signed")
		}
		release()
		<-time.After(2 * retrySigning)
		if h := k.Health(); h.Failing != 0 || h.Ends[scope.Issuer].IsZero() {
			t.Errorf("after the token was back the health of the lists is %+v", h)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
