package revocation

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/journal"
	"github.com/bailiwick-net/bailiwick/pki/revocation"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// cabinet is a store that keeps lists of roots, and fails once where it is told to.
type cabinet struct {
	told
	lists []store.RootList
	fails error
}

func (c *cabinet) RootLists(context.Context) ([]store.RootList, error) { return c.lists, nil }

func (c *cabinet) PutRootList(_ context.Context, l store.RootList, e journal.Event) error {
	if err := c.fails; err != nil {
		c.fails = nil
		return err
	}
	l.Revision++
	c.lists = []store.RootList{l}
	return c.RecordEvent(context.Background(), e)
}

// family is a fleet with a root that is kept off line.
type family struct {
	*Keeper
	t       *testing.T
	ca      *catest.CA
	store   *cabinet
	now     time.Time
	trusted bool // the root is
}

func newFamily(t *testing.T) *family {
	t.Helper()
	f := &family{t: t, ca: catest.New(t), store: &cabinet{}, now: time.Now().UTC().Truncate(time.Second), trusted: true}
	f.open()
	return f
}

func (f *family) open() {
	f.t.Helper()
	var err error
	f.Keeper, err = Open(f.t.Context(), Config{
		Store: f.store, Now: func() time.Time { return f.now }, Issuers: func() []Issuer { return []Issuer{f.ca} },
		OfflineRoots: func() []*x509.Certificate {
			if !f.trusted {
				return nil
			}
			return []*x509.Certificate{f.ca.Root()}
		},
		Trusted: func() []*x509.Certificate { return []*x509.Certificate{f.ca.Issuing()} },
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

// sign signs a list with the root's key.
func (f *family) sign(number uint64, key crypto.Signer, revoked ...*big.Int) []byte {
	f.t.Helper()
	list := revocation.List{Number: number, ThisUpdate: f.now, NextUpdate: f.now.Add(time.Hour)}
	for _, serial := range revoked {
		list.Entries = append(list.Entries, revocation.Entry{Serial: serial, At: f.now.Add(-time.Minute), Reason: revocation.KeyCompromise})
	}
	der, err := ca.SignCRL(list, f.ca.Root(), key)
	if err != nil {
		f.t.Fatal(err)
	}
	return der
}

// The list that a root signed elsewhere is given out as it is, until it ends and while the root is trusted; what is on it is in
// force before, also if no list can be kept.
func TestListOfAnOfflineRoot(t *testing.T) {
	f := newFamily(t)
	scope := revocation.Whole(f.ca.Pin())
	key, rogue := f.ca.Authority.RootKey, big.NewInt(0xbad)
	want := func(name string, want error, number uint64) {
		t.Helper()
		if l, err := f.List(t.Context(), scope); !errors.Is(err, want) || l.Number != number {
			t.Errorf("%s the list is number %d, %v; want number %d, %v", name, l.Number, err, number, want)
		}
	}
	want("at first", ErrNoList, 0)
	first := f.sign(5, key)
	for range 2 {
		if l, err := f.HandIn(t.Context(), first, "anna"); err != nil || l.Number != 5 || !l.Offline {
			t.Fatalf("handing in gave %+v, error %v", l, err)
		}
	}
	want("handed in", nil, 5)
	if n := len(f.store.events); n != 1 || f.store.events[0].By != "anna" {
		t.Errorf("of one list that was handed in twice the journal was told %+v", f.store.events)
	}
	if end := f.Health().Ends[scope.Issuer]; !end.Equal(f.now.Add(time.Hour)) {
		t.Errorf("it is told that the list ends at %v", end)
	}
	for name, test := range map[string]struct {
		der  []byte
		want error
	}{
		"with an older number":           {f.sign(4, key, rogue), ErrOlderList},
		"with the same number":           {f.sign(5, key, rogue), ErrOlderList},
		"that revokes the CA that works": {f.sign(6, key, rogue, f.ca.Issuing().SerialNumber), ErrAuthority},
		"cut short":                      {first[:100], revocation.ErrList},
	} {
		if _, err := f.HandIn(t.Context(), test.der, "anna"); !errors.Is(err, test.want) {
			t.Errorf("a list %s gave %v, want %v", name, err, test.want)
		}
	}
	want("after those that were refused", nil, 5)
	serial, err := trust.NewSerial(f.ca.Pin(), rogue)
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(f.Set().Serials(), serial) {
		t.Error("what stands on a list that was refused is in force")
	}

	f.store.fails = errors.New("disk full")
	second := f.sign(6, key, rogue)
	if _, err := f.HandIn(t.Context(), second, "anna"); err == nil || !slices.Contains(f.Set().Serials(), serial) {
		t.Errorf("without a store for the list: error %v, nodes are told %v", err, f.Set().Serials())
	}
	want("after a failure", nil, 5)
	if lists := f.RootLists(); len(lists) != 1 || !slices.Equal(lists[0].Lacking, []string{"bad"}) {
		t.Errorf("of what is not on the list it is told %+v", lists)
	}
	if l, err := f.HandIn(t.Context(), second, "anna"); err != nil || !slices.Equal(l.Revoked, []string{"bad"}) || len(l.Lacking) != 0 {
		t.Errorf("once more: %+v, error %v", l, err)
	}
	if r, ok := f.Record("bad"); !ok || r.Reason != revocation.KeyCompromise.String() || r.By != "anna" || !r.At.Equal(f.now.Add(-time.Minute)) || !r.NotAfter.Equal(f.ca.Root().NotAfter) {
		t.Errorf("the record is %+v", r)
	}
	f.open()
	want("after a restart", nil, 6)
	f.trusted = false
	want("when the root is not trusted", ErrNoList, 0)
	if _, err := f.HandIn(t.Context(), f.sign(7, key), "anna"); !errors.Is(err, revocation.ErrSigner) {
		t.Errorf("the list of a root that is not trusted gave %v, want ErrSigner", err)
	}
	f.trusted = true
	f.now = f.now.Add(time.Hour)
	want("at its end", ErrEnded, 0)
	if end := f.Health().Ends[scope.Issuer]; !end.Equal(f.now) {
		t.Errorf("after the end it is told that the list ends at %v", end)
	}
	f.store.lists[0].DER = first[:10]
	if _, err := Open(t.Context(), Config{Store: f.store}); !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "list of the root") {
		t.Errorf("a store with a damaged list gave %v, want ErrCorrupt", err)
	}
}
