package authority_test

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"testing"

	"github.com/bailiwick-net/bailiwick/controller/authority"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/slots"
)

// offline is a root that is kept off line.
type offline struct {
	t    *testing.T
	s    *space
	root *x509.Certificate
	key  crypto.Signer
}

func newOffline(t *testing.T, s *space) offline {
	t.Helper()
	made, err := ca.Generate(s.now, ca.Config{TrustDomain: "bank.example"})
	if err != nil {
		t.Fatal(err)
	}
	return offline{t, s, made.Root, made.RootKey}
}

// answer signs the request of an issuing CA.
func (o offline) answer(request []byte) []byte {
	o.t.Helper()
	issuing, err := ca.CertifyRequest(o.t.Context(), &ca.MemoryJournal{}, o.s.now, ca.Config{TrustDomain: "bank.example"}, o.root, o.key, request)
	if err != nil {
		o.t.Fatal(err)
	}
	var out []byte
	for _, der := range [][]byte{issuing.Raw, o.root.Raw} {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}

// A root that is kept off line certifies the first issuing CA, and the next.
func TestOfflineRoot(t *testing.T) {
	s := newSpace(t)
	off := newOffline(t, s)
	config := s.config()
	config.OfflineRoot = true
	_, err := authority.Open(t.Context(), config)
	var awaiting *authority.AwaitingError
	if !errors.As(err, &awaiting) {
		t.Fatalf("the first start gave %v, want *AwaitingError", err)
	}
	again := err
	if _, err = authority.Open(t.Context(), config); !errors.Is(err, authority.ErrAwaiting) || err.Error() != again.Error() {
		t.Errorf("the second start gave %v, want %v", err, again)
	}
	config.Certificates = off.answer(awaiting.Request)
	k, err := authority.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	if !k.Active().Root().Equal(off.root) || k.State().Active().RootKey != "" {
		t.Error("the CA is not below the root that is kept off line, or its key is here")
	}
	next, err := k.PrepareNext(t.Context(), authority.Preparation{By: "root"})
	if err != nil || next.Status != slots.Requested || len(next.Request) == 0 {
		t.Fatalf("preparing gave %v in the status %v, want a request", err, next.Status)
	}
	if _, err := k.Activate(t.Context(), nil, true, "root"); !errors.Is(err, slots.ErrStep) {
		t.Errorf("activating what was only requested gave %v, want ErrStep", err)
	}
	if _, err := k.Certify(t.Context(), config.Certificates, "root"); !errors.Is(err, ca.ErrAuthority) {
		t.Errorf("the answer to another request gave %v, want ErrAuthority", err)
	}
	if _, err := k.Certify(t.Context(), off.answer(next.Request), "root"); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Activate(t.Context(), nil, false, "root"); err != nil {
		t.Fatal(err)
	}
	if !believes(t, s.now, k.Trust(), mustIssue(t, s, k).Chain()) {
		t.Error("what the second issuing CA issues is not believed")
	}
}

// A root that is kept off line is replaced by another. Where both sign the request, who knows the former alone believes what is
// issued below the other; where the former does not, he does not, and nobody else can stand in for it.
func TestOfflineRootIsReplaced(t *testing.T) {
	s := newSpace(t)
	former, latter, stranger := newOffline(t, s), newOffline(t, s), newOffline(t, s)
	config := s.config()
	config.OfflineRoot = true
	_, err := authority.Open(t.Context(), config)
	var awaiting *authority.AwaitingError
	if !errors.As(err, &awaiting) {
		t.Fatal(err)
	}
	config.Certificates = former.answer(awaiting.Request)
	k, err := authority.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	old := k.Trust()
	for _, c := range []struct {
		name   string
		answer func(request []byte) []byte
		bridge bool
	}{
		{"no bridge", latter.answer, false},
		{"bridge first", func(r []byte) []byte { return slices.Concat(former.answer(r), latter.answer(r)) }, true},
		{"bridge last", func(r []byte) []byte { return slices.Concat(latter.answer(r), former.answer(r)) }, true},
	} {
		next, err := k.PrepareNext(t.Context(), authority.Preparation{})
		if err != nil {
			t.Fatal(err)
		}
		one, two := latter.answer(next.Request), stranger.answer(next.Request)
		for wrong, answer := range map[string][]byte{
			"two roots that nobody trusts": slices.Concat(one, two),
			"one root that signed twice":   slices.Concat(one, latter.answer(next.Request)),
			"another's certificate":        slices.Concat(one, config.Certificates),
			"three":                        slices.Concat(one, two, former.answer(next.Request)),
		} {
			if _, err := k.Certify(t.Context(), answer, ""); !errors.Is(err, ca.ErrAuthority) {
				t.Errorf("%s: %v, want ErrAuthority", wrong, err)
			}
		}
		if _, err := k.Certify(t.Context(), c.answer(next.Request), ""); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := k.Trust(); len(got.Roots()) != 2 {
			t.Errorf("%s: %d roots are trusted, want both", c.name, len(got.Roots()))
		}
		slot, ok := k.State().Coming()
		if !ok || (len(slot.Bridge) > 0) != c.bridge || string(slot.Root) != string(latter.root.Raw) {
			t.Errorf("%s: the CA has a bridge: %v, want %v; below the root that comes: %v", c.name, len(slot.Bridge) > 0, c.bridge, string(slot.Root) == string(latter.root.Raw))
		}
		if c.name == "bridge last" {
			break
		}
		if _, err := k.Retire(t.Context(), slot.ID, false, ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := k.Activate(t.Context(), nil, false, ""); err != nil {
		t.Fatal(err)
	}
	if chain := k.ServerChain(mustIssue(t, s, k)); !believes(t, s.now, old, chain) {
		t.Error("who trusts the former root alone does not believe what is issued below the other")
	}
}
