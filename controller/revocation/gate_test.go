package revocation

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/mirror"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
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
// hold before this one was there.
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
		})
	}
}
