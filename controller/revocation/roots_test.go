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
		s := &told{register: register{entries: []ca.Entry{entry("a1", issuing.IssuerKeyID()), entry("b1", root.IssuerKeyID()), entry("c1", issuing.IssuerKeyID())}}}
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
		<-time.After(DefaultListLifetime)
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
