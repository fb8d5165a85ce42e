package revocation

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/revocation"
)

func (r *register) Issuance(_ context.Context, serial string) (ca.Entry, error) {
	for _, e := range r.entries {
		if e.Intention.Serial == serial {
			return e, nil
		}
	}
	return ca.Entry{}, store.ErrNotFound
}

// The list of a root is there before anybody asks and fresh all the time. Its key is not opened for what other CAs revoke.
func TestRootsListIsKeptFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuing, root := catest.New(t), &token{CA: catest.New(t)}
		root.hangs()()
		entry := func(serial string, issuer pki.KeyID) ca.Entry {
			return ca.Entry{Intention: ca.Intention{Serial: serial, Issuer: issuer, Key: pki.KeyID{serial[0]}, NotAfter: time.Now().Add(1000 * time.Hour)}}
		}
		s := &told{register: register{entries: []ca.Entry{entry("a1", issuing.IssuerKeyID()), entry("b1", root.IssuerKeyID()), entry("c1", issuing.IssuerKeyID()), entry("d1", issuing.IssuerKeyID())}}}
		k, err := Open(t.Context(), Config{
			Store: s, Issuers: func() []Issuer { return []Issuer{issuing} }, Roots: func() []Issuer { return []Issuer{root} },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- k.TendLists(ctx) }()
		synctest.Wait()
		name := revocation.IssuerName(root.IssuerKeyID())
		first := k.Health().Ends[name]
		if first.IsZero() || root.asked() != 1 {
			t.Errorf("the first list of the root ends %v, %d were signed", first, root.asked())
		}
		for _, step := range []struct {
			serial string
			signed int
		}{{"a1", 1}, {"b1", 2}, {"c1", 2}} {
			<-time.After(time.Minute)
			if _, err := k.Revoke(t.Context(), Order{Serial: step.serial}, revocation.Superseded, "anna"); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if n := root.asked(); n != step.signed {
				t.Errorf("once %s was revoked the root's key had signed %d times, want %d", step.serial, n, step.signed)
			}
		}
		// A revocation just before half of the list's life begins a round that this list is kept for, and not beyond that half.
		<-time.After(DefaultListLifetime/2 - 3*time.Minute)
		if _, err := k.Revoke(t.Context(), Order{Serial: "d1"}, revocation.Superseded, "anna"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := root.asked(); n != 2 {
			t.Errorf("just before half of its life the root's key had signed %d times, want 2", n)
		}
		<-time.After(3*time.Minute + 2*tendInterval)
		synctest.Wait()
		if n, left := root.asked(), time.Until(k.Health().Ends[name]); n != 3 || left < DefaultListLifetime-3*time.Minute-3*tendInterval {
			t.Errorf("after half of its life the root's key had signed %d times, want 3, and the list ends in %v", n, left)
		}
		<-time.After(DefaultListLifetime/2 - 2*tendInterval)
		synctest.Wait()
		if end, left := k.Health().Ends[name], time.Until(k.Health().Ends[name]); left < DefaultListLifetime/2-2*tendInterval || !end.After(first) {
			t.Errorf("a day later the list ends in %v", left)
		}
		if n := root.asked(); n != 4 {
			t.Errorf("in two halves of a lifetime the root's key signed %d times, want 4", n)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A clock that was ahead and is set back leaves no list behind that is yet to come, although the root would say the same.
func TestRootsListAfterAClockStep(t *testing.T) {
	root := catest.New(t)
	now := time.Now()
	k, err := Open(t.Context(), Config{
		Store: &told{}, Issuers: func() []Issuer { return nil }, Roots: func() []Issuer { return []Issuer{root} }, Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []time.Duration{0, -100 * time.Hour, time.Hour} {
		now = now.Add(step)
		if l, err := k.List(t.Context(), revocation.Whole(root.IssuerKeyID())); err != nil || l.ThisUpdate.After(now) {
			t.Errorf("after a step of %v the list is of %v, in %v: %v", step, l.ThisUpdate, l.ThisUpdate.Sub(now), err)
		}
	}
}
