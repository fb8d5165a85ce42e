package revocation

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/revocation"
)

// broken is a CA whose key does not sign.
type broken struct{ *catest.CA }

func (broken) SignCRL(revocation.List) ([]byte, error) {
	return nil, errors.New("the token is gone")
}

// A CA whose lists could not be signed is retired: nothing is signed again, so the journal is not told so, and the next failure
// is one that it has not heard of.
func TestJournalHearsOfTheFailureAfterARetirement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := broken{catest.New(t)}, broken{catest.New(t)}
		s, issuers := &told{}, []Issuer{first}
		k, err := Open(t.Context(), Config{Store: s, Issuers: func() []Issuer { return issuers }})
		if err != nil {
			t.Fatal(err)
		}
		for _, issuer := range []Issuer{first, second} {
			issuers = []Issuer{issuer}
			if h := k.Health(); h.Failing != 0 {
				t.Errorf("before its list was asked for %d fail", h.Failing)
			}
			if _, err := k.List(t.Context(), revocation.Whole(issuer.IssuerKeyID())); err == nil {
				t.Error("a key that does not sign signed")
			}
			<-time.After(recordAgain)
		}
		synctest.Wait()
		if len(s.events) != 2 || !strings.Contains(s.events[1].What, revocation.Whole(second.IssuerKeyID()).Path()) {
			t.Errorf("the journal was told %+v, want both failures", s.events)
		}
	})
}

// The last list of a CA that is retired is no alarm when it ends.
func TestListsOfRetiredCAsHaveNoEnd(t *testing.T) {
	kept, retired := catest.New(t), catest.New(t)
	issuers := []Issuer{kept, retired}
	k, err := Open(t.Context(), Config{Store: &told{}, Issuers: func() []Issuer { return issuers }})
	if err != nil {
		t.Fatal(err)
	}
	for _, issuer := range issuers {
		if _, err := k.List(t.Context(), revocation.Whole(issuer.IssuerKeyID())); err != nil {
			t.Fatal(err)
		}
	}
	for want := 2; want > 0; want-- {
		ends := k.Health().Ends
		if _, ok := ends[revocation.IssuerName(kept.IssuerKeyID())]; !ok || len(ends) != want {
			t.Errorf("of %d CAs the ends of lists are %v", want, ends)
		}
		issuers = issuers[:1]
	}
}

// However many wait for a signature that does not come, it is one that did not.
func TestSilenceIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		authority, k, release := hanging(t)
		const strangers = 20
		answers := make(chan error, strangers)
		for range strangers {
			go func() {
				_, err := k.List(context.WithoutCancel(t.Context()), revocation.Whole(authority.IssuerKeyID()))
				answers <- err
			}()
		}
		for range strangers {
			if err := <-answers; !errors.Is(err, ErrSilent) {
				t.Errorf("a stranger was told %v, want ErrSilent", err)
			}
		}
		if h := k.Health(); h.Failing != 1 || h.Failures != 1 {
			t.Errorf("of one signature that hangs it is told %+v", h)
		}
		release()
		synctest.Wait()
	})
}
