package revocation

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/mirror"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// prepare has a certificate prepared for a machine with a key of its own.
func prepare(t *testing.T, a Authority, id pki.Identity) *ca.Prepared {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := enroll.NewRequest(key, id)
	if err != nil {
		t.Fatal(err)
	}
	request, err := enroll.ParseRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	profile, err := ca.NewProfile(ca.Machine, ca.ProfileConfig{})
	if err != nil {
		t.Fatal(err)
	}
	prepared, err := a.Prepare(time.Now(), profile, request, id)
	if err != nil {
		t.Fatal(err)
	}
	return prepared
}

// A machine that is disabled, or vanishes for good, while its request is answered gets nothing: its certificates were put on
// hold before this one was there. The same goes for who is revoked meanwhile.
func TestNothingIsIssuedToWhomTheDirectoryDropped(t *testing.T) {
	id := catest.Identity(t, "sql1.bank.example")
	entry := directory.Machine{UUID: directory.UUID(id.UUID()), DN: directory.MustParseDN("cn=sql1,dc=bank,dc=example"), Name: "sql1"}
	disabled := entry
	disabled.Disabled = true
	view := func(machines ...directory.Machine) *mirror.View {
		b := directory.NewBuilder(directory.DN{})
		base := directory.MustParseDN("dc=bank,dc=example")
		b.Add(directory.Container{UUID: directory.UUID{0xff}, DN: base, Kind: directory.KindOf(base)})
		for _, m := range machines {
			b.Add(m)
		}
		snapshot, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		return &mirror.View{Snapshot: snapshot}
	}
	restored := view()
	restored.Restored = true
	vanished := view()
	vanished.Vanished = map[directory.UUID]mirror.Vanished{entry.UUID: {Machine: entry}}
	for name, test := range map[string]struct {
		now  *mirror.View
		want error
	}{
		"still there":                          {view(entry), nil},
		"disabled":                             {view(disabled), ErrNotAdmitted},
		"gone":                                 {view(), ErrNotAdmitted},
		"missing for a while":                  {vanished, nil},
		"not there when last read, before now": {restored, nil},
	} {
		t.Run(name, func(t *testing.T) {
			present := view(entry)
			k := &Keeper{config: Config{View: func() *mirror.View { return present }}}
			k.current.Store(&state{})
			guard := k.Guard(catest.New(t))
			prepared := prepare(t, guard, id)
			present = test.now
			if _, err := guard.Issue(t.Context(), prepared); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			// The same, while the certificate is signed.
			present = view(entry)
			guard = k.Guard(&slow{catest.New(t), func() { present = test.now }})
			if issued, err := guard.Issue(t.Context(), prepare(t, guard, id)); !errors.Is(err, test.want) || err != nil && issued.Leaf != nil {
				t.Errorf("while it was signed: got %v, want %v", err, test.want)
			}
		})
	}
	// Who renews shows a certificate that is revoked while the next one, of another key, is signed.
	authority := catest.New(t)
	caller := authority.Machine(t, id).Leaf
	verdict := trust.Verdict{Leaf: caller, Path: []*x509.Certificate{caller, authority.Issuing(), authority.Root()}}
	shown, err := pki.KeyIDOf(caller.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	set, err := trust.NewRevocations(1, nil, []pki.KeyID{shown})
	if err != nil {
		t.Fatal(err)
	}
	k := &Keeper{config: Config{View: func() *mirror.View { return nil }}}
	k.current.Store(&state{})
	guard := k.Guard(&slow{authority, func() { k.current.Store(&state{set: set}) }})
	if issued, err := guard.Issue(WithCaller(t.Context(), verdict), prepare(t, guard, id)); !errors.Is(err, ErrKeyRevoked) || issued.Leaf != nil {
		t.Errorf("whose certificate was revoked meanwhile got %v, %v; want ErrKeyRevoked", issued.Leaf, err)
	}
}

// slow is a CA beside which something happens while it signs.
type slow struct {
	*catest.CA
	meanwhile func()
}

func (s *slow) Issue(ctx context.Context, p *ca.Prepared) (ca.Issued, error) {
	s.meanwhile()
	return s.CA.Issue(ctx, p)
}
