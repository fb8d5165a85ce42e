package identity

import (
	"context"
	"crypto"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/statefile"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
)

// office is a controller that issues whatever it is told to.
type office struct {
	t       *testing.T
	ca      *catest.CA
	subject pki.Identity
	fail    error
	keys    []pki.KeyID
}

func (o *office) answer(request []byte) (Issued, error) {
	if o.fail != nil {
		return Issued{}, o.fail
	}
	parsed, err := enroll.ParseRequest(request)
	if err != nil {
		return Issued{}, err
	}
	o.keys = append(o.keys, parsed.KeyID)
	// This office certifies whomever it likes, whatever the request states.
	parsed.Subject, parsed.DNSName = nil, o.subject.DNSName()
	profile, err := ca.NewProfile(ca.Machine, ca.ProfileConfig{})
	if err != nil {
		return Issued{}, err
	}
	prepared, err := o.ca.Prepare(time.Now(), profile, parsed, o.subject)
	if err != nil {
		return Issued{}, err
	}
	issued, err := o.ca.Issue(context.Background(), prepared)
	if err != nil {
		return Issued{}, err
	}
	return Issued{Chain: issued.Chain(), Trust: o.ca.Bundle()}, nil
}

func (o *office) Enroll(_ context.Context, _ enroll.Token, request []byte, _ string) (Issued, error) {
	parsed, err := enroll.ParseRequest(request)
	if err == nil {
		o.keys = append(o.keys, parsed.KeyID)
	}
	return o.answer(request)
}

func (o *office) Renew(_ context.Context, request []byte) (Issued, error) { return o.answer(request) }

func newOffice(t *testing.T) *office {
	return &office{t: t, ca: catest.New(t), subject: catest.Identity(t, "sql1.bank.example")}
}

func open(t *testing.T) Store {
	t.Helper()
	store, err := Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func TestJoinStoresWhatLoads(t *testing.T) {
	o, store := newOffice(t), open(t)
	if _, err := store.Load(); !errors.Is(err, ErrNotJoined) {
		t.Fatalf("empty store: %v, want ErrNotJoined", err)
	}
	joined, err := Join(t.Context(), time.Now(), store, o, enroll.Token{}, "sql1.bank.example", []string{"controller:7443"})
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := store.Load()
	if err != nil {
		t.Fatal(err)
	}
	if loaded.Identity != joined.Identity || loaded.Identity != o.subject || loaded.Trust.Digest() != o.ca.Bundle().Digest() || loaded.Controllers[0] != "controller:7443" {
		t.Errorf("loaded %+v, want what was joined as %v", loaded, o.subject)
	}
	if _, err := Join(t.Context(), time.Now(), store, o, enroll.Token{}, "sql1.bank.example", nil); !errors.Is(err, ErrJoined) {
		t.Errorf("second join: %v, want ErrJoined", err)
	}
}

func TestJoinRepeatsWithTheSameKey(t *testing.T) {
	o, store := newOffice(t), open(t)
	o.fail = errors.New("connection reset")
	if _, err := Join(t.Context(), time.Now(), store, o, enroll.Token{}, "sql1.bank.example", nil); err == nil {
		t.Fatal("join succeeded although the controller failed")
	}
	if _, err := store.Load(); !errors.Is(err, ErrNotJoined) {
		t.Fatalf("after a failed join: %v, want ErrNotJoined", err)
	}
	o.fail = nil
	if _, err := Join(t.Context(), time.Now(), store, o, enroll.Token{}, "sql1.bank.example", nil); err != nil {
		t.Fatal(err)
	}
	if o.keys[0] != o.keys[1] {
		t.Error("the repeated join asked for another key: a token whose answer was lost would be burnt")
	}
}

func TestRenewMakesAFreshKeyAndKeepsTheOldOnFailure(t *testing.T) {
	o, store := newOffice(t), open(t)
	joined, err := Join(t.Context(), time.Now(), store, o, enroll.Token{}, "sql1.bank.example", nil)
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := Renew(t.Context(), time.Now(), store, o, joined)
	if err != nil {
		t.Fatal(err)
	}
	if renewed.Leaf().SerialNumber.Cmp(joined.Leaf().SerialNumber) == 0 || renewed.Key.(interface{ Equal(crypto.PrivateKey) bool }).Equal(joined.Key) {
		t.Error("renewal gave the same certificate or key")
	}
	o.fail = errors.New("refused")
	if _, err := Renew(t.Context(), time.Now(), store, o, renewed); err == nil {
		t.Fatal("failed renewal gave no error")
	}
	o.fail, o.subject = nil, catest.Identity(t, "ws1.bank.example")
	if _, err := Renew(t.Context(), time.Now(), store, o, renewed); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("certificate of another machine: %v, want a refusal", err)
	}
	loaded, err := store.Load()
	if err != nil || loaded.Leaf().SerialNumber.Cmp(renewed.Leaf().SerialNumber) != 0 {
		t.Errorf("after failed renewals the store holds %v, %v; want the renewed certificate", loaded.Leaf().SerialNumber, err)
	}
}

func TestRenewalTakesTheNewNameOfTheSameObject(t *testing.T) {
	o, store := newOffice(t), open(t)
	joined, err := Join(t.Context(), time.Now(), store, o, enroll.Token{}, "sql1.bank.example", nil)
	if err != nil {
		t.Fatal(err)
	}
	if o.subject, err = pki.NewIdentity(catest.TrustDomain, joined.Identity.UUID(), "db.elsewhere.example"); err != nil {
		t.Fatal(err)
	}
	renewed, err := Renew(t.Context(), time.Now(), store, o, joined)
	if err != nil || renewed.Identity != o.subject {
		t.Errorf("renewal after a rename: %v, %v; want %v", renewed.Identity, err, o.subject)
	}
}

func TestClockAYearOffIsSaid(t *testing.T) {
	o, store := newOffice(t), open(t)
	_, err := Join(t.Context(), time.Now().AddDate(-1, 0, 0), store, o, enroll.Token{}, "sql1.bank.example", nil)
	if err == nil || !strings.Contains(err.Error(), "clock") {
		t.Errorf("join with a clock one year behind: %v, want an error that names the clock", err)
	}
	if _, err := store.Load(); !errors.Is(err, ErrNotJoined) {
		t.Errorf("after that: %v, want ErrNotJoined", err)
	}
}

func TestLoadRefusesWhatDoesNotBelongTogether(t *testing.T) {
	o, store := newOffice(t), open(t)
	joined, err := Join(t.Context(), time.Now(), store, o, enroll.Token{}, "sql1.bank.example", nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	mixed := joined
	mixed.Key = other
	if err := store.Save(mixed); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Load(); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("key of another certificate: %v, want a refusal", err)
	}
	for name, content := range map[string]string{"empty": "", "garbage": "x", "half": "-----BEGIN CERTIFICATE-----\n"} {
		if err := statefile.Write(store.path(), []byte(content)); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Load(); err == nil || errors.Is(err, ErrNotJoined) {
			t.Errorf("%s file: %v, want an error that is not ErrNotJoined", name, err)
		}
	}
	if err := os.Chmod(store.path(), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Load(); !errors.Is(err, statefile.ErrPermissions) {
		t.Errorf("world-readable key: %v, want ErrPermissions", err)
	}
}

func TestRenewAtTwoThirds(t *testing.T) {
	leaf := catest.New(t).Machine(t, catest.Identity(t, "sql1.bank.example")).Leaf
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	for jitter, want := range map[float64]time.Duration{0: life * 2 / 3, 0.5: life*2/3 - life/20} {
		if got := RenewAt(leaf, jitter).Sub(leaf.NotBefore); (got - want).Abs() > time.Second {
			t.Errorf("jitter %v: renewal after %v of %v, want %v", jitter, got, life, want)
		}
	}
}
