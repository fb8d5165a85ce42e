package authority_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/authority"
	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/controller/store/embedded"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	"github.com/bailiwick-net/bailiwick/pki/slots"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

var epoch = time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)

// server is the one etcd of this package's tests; each test has a prefix of its own.
var server struct {
	*embedded.Etcd
	prefixes atomic.Int64
}

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		fmt.Fprintln(os.Stderr, victim(dir))
		os.Exit(1)
	}
	dir, err := os.MkdirTemp("", "authority")
	if err != nil {
		panic(err)
	}
	if server.Etcd, err = embedded.Start(context.Background(), embedded.Config{Dir: dir}); err != nil {
		panic(err)
	}
	code := m.Run()
	if err := errors.Join(server.Close(), os.RemoveAll(dir)); err != nil {
		panic(err)
	}
	os.Exit(code)
}

// space is a key space of the store that several controllers may open, and a clock.
type space struct {
	t      *testing.T
	prefix string
	now    time.Time
}

func newSpace(t *testing.T) *space {
	return &space{t: t, prefix: fmt.Sprintf("/test/%d/", server.prefixes.Add(1)), now: epoch}
}

func (s *space) store() *store.Store {
	return store.New(server.Client(), store.Options{Prefix: s.prefix, MaxOps: embedded.MaxTxnOps, Now: func() time.Time { return s.now }})
}

func unlock(t *testing.T, fill string) ca.Unlock {
	t.Helper()
	u, err := ca.KeyOctets([]byte(strings.Repeat(fill, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func (s *space) config() authority.Config {
	return authority.Config{
		Store: s.store(), Unlock: unlock(s.t, "k"), Init: true, CA: ca.Config{TrustDomain: "bank.example"}, Now: func() time.Time { return s.now },
	}
}

func (s *space) open() *authority.Keeper {
	s.t.Helper()
	k, err := authority.Open(s.t.Context(), s.config())
	if err != nil {
		s.t.Fatal(err)
	}
	return k
}

// issue issues a machine's certificate.
func issue(ctx context.Context, now time.Time, k *authority.Keeper) (ca.Issued, error) {
	id, err := pki.NewIdentity("bank.example", pki.UUID{6: 0x40, 8: 0x80, 15: 1}, "sql1.bank.example")
	if err != nil {
		return ca.Issued{}, err
	}
	return issueTo(ctx, now, k, ca.Machine, id)
}

// issuer is what issues: the CA that is active, or another one.
type issuer interface {
	Prepare(now time.Time, profile ca.Profile, request enroll.Request, subject pki.Subject) (*ca.Prepared, error)
	Issue(ctx context.Context, p *ca.Prepared) (ca.Issued, error)
}

func issueTo(ctx context.Context, now time.Time, k issuer, kind ca.Kind, subject pki.Subject) (ca.Issued, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return ca.Issued{}, err
	}
	der, err := enroll.NewRequest(key, subject)
	if err != nil {
		return ca.Issued{}, err
	}
	request, err := enroll.ParseRequest(der)
	if err != nil {
		return ca.Issued{}, err
	}
	profile, err := ca.NewProfile(kind, ca.ProfileConfig{})
	if err != nil {
		return ca.Issued{}, err
	}
	prepared, err := k.Prepare(now, profile, request, subject)
	if err != nil {
		return ca.Issued{}, err
	}
	return k.Issue(ctx, prepared)
}

func mustIssue(t *testing.T, s *space, k *authority.Keeper) ca.Issued {
	t.Helper()
	issued, err := issue(t.Context(), s.now, k)
	if err != nil {
		t.Fatal(err)
	}
	return issued
}

// believes reports whether who holds the bundle believes the chain.
func believes(t *testing.T, now time.Time, b trust.Bundle, chain [][]byte) bool {
	t.Helper()
	parsed, err := trust.ParseChain(chain)
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Verify(now, parsed, trust.Options{Usages: []trust.Usage{trust.IPsecIKE}})
	return err == nil
}

// Controllers of one cluster share the CA: whoever comes second, with an empty disk, has the first one's.
func TestControllersShareTheCA(t *testing.T) {
	s := newSpace(t)
	first := s.open()
	second := s.open()
	if first.Trust().Digest() != second.Trust().Digest() || first.Active().IssuerKeyID() != second.Active().IssuerKeyID() {
		t.Error("the second controller has another CA")
	}
	if !believes(t, s.now, first.Trust(), mustIssue(t, s, second).Chain()) {
		t.Error("what the second issues is not believed")
	}
	config := s.config()
	config.Unlock = unlock(t, "x")
	if _, err := authority.Open(t.Context(), config); !errors.Is(err, authority.ErrKey) || !strings.Contains(err.Error(), "the same passphrase or key file") {
		t.Errorf("another key file gave %v, want ErrKey that says what is missing", err)
	}
	resp, err := server.Client().Get(t.Context(), s.prefix+"authorities")
	if err != nil {
		t.Fatal(err)
	}
	for _, clear := range []string{"BEGIN PRIVATE KEY", "BEGIN EC PRIVATE KEY", "BEGIN RSA PRIVATE KEY"} {
		if strings.Contains(string(resp.Kvs[0].Value), clear) {
			t.Errorf("the store holds %q", clear)
		}
	}
}

// Of many controllers that start at once over an empty store one makes the CA, and all have it.
func TestOneOfManyMakesTheCA(t *testing.T) {
	s := newSpace(t)
	const many = 6
	digests := make(chan trust.Digest, many)
	for range many {
		go func() {
			k, err := authority.Open(t.Context(), s.config())
			if err != nil {
				t.Error(err)
				digests <- trust.Digest{}
				return
			}
			digests <- k.Trust().Digest()
		}()
	}
	first := <-digests
	for range many - 1 {
		if other := <-digests; other != first {
			t.Errorf("controllers have the bundles %v and %v", first, other)
		}
	}
}

func TestFolderIsTakenOver(t *testing.T) {
	s := newSpace(t)
	dir := filepath.Join(t.TempDir(), "ca")
	if err := ca.Init(dir, unlock(t, "k"), s.now, ca.Config{TrustDomain: "bank.example"}); err != nil {
		t.Fatal(err)
	}
	config := s.config()
	config.Folder, config.Init = dir, false
	k, err := authority.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	files, err := ca.ReadFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !files.Issuing.Equal(k.Active().Issuing()) {
		t.Error("another CA than the folder's is active")
	}
	if _, err := authority.Open(t.Context(), config); err != nil {
		t.Errorf("starting again over the same folder: %v", err)
	}
	// The same folder beside the store of another fleet is a mistake that must not pass.
	other := newSpace(t)
	other.open()
	config.Store = other.store()
	if _, err := authority.Open(t.Context(), config); !errors.Is(err, authority.ErrOther) || !strings.Contains(err.Error(), "wrong store or the wrong folder") {
		t.Errorf("another fleet's store gave %v, want ErrOther", err)
	}
	// A folder that lacks a file is no reason to make a new CA.
	if err := os.Remove(filepath.Join(dir, "issuing.crt")); err != nil {
		t.Fatal(err)
	}
	config.Store, config.Init = newSpace(t).store(), true
	if _, err := authority.Open(t.Context(), config); !errors.Is(err, ca.ErrAuthority) {
		t.Errorf("a folder without a certificate gave %v, want ErrAuthority", err)
	}
}

func TestNoCAWithoutBeingAsked(t *testing.T) {
	config := newSpace(t).config()
	config.Init = false
	if _, err := authority.Open(t.Context(), config); !errors.Is(err, authority.ErrNone) {
		t.Errorf("an empty store gave %v, want ErrNone", err)
	}
}

// The whole rotation of root and issuing CA: trusted before it issues, old certificates count until they end, and nothing is
// retired before.
func TestRotation(t *testing.T) {
	s := newSpace(t)
	k := s.open()
	told := 0
	k.OnChange(func(context.Context) error { told++; return nil })
	old, oldTrust, oldChain := k.Active(), k.Trust(), mustIssue(t, s, k).Chain()
	prepared := uint64(s.now.Unix())

	next, err := k.PrepareNext(t.Context(), authority.Preparation{Root: true, By: "root"})
	if err != nil {
		t.Fatal(err)
	}
	if next.Status != slots.Prepared || k.Active() == nil || k.Active().IssuerKeyID() != old.IssuerKeyID() || k.Trust().Revision() != prepared || len(k.Trust().Roots()) != 2 {
		t.Fatalf("prepared: %v, bundle at revision %d with %d roots", next.Status, k.Trust().Revision(), len(k.Trust().Roots()))
	}
	if _, err := k.PrepareNext(t.Context(), authority.Preparation{}); !errors.Is(err, slots.ErrStep) {
		t.Errorf("a second preparation gave %v, want ErrStep", err)
	}
	if _, err := k.Activate(t.Context(), []string{"ws1"}, false, "root"); !errors.Is(err, authority.ErrNotReady) || !strings.Contains(err.Error(), `"ws1"`) {
		t.Errorf("activating before ws1 trusts it gave %v, want ErrNotReady that names it", err)
	}
	if _, err := k.Activate(t.Context(), nil, false, "root"); err != nil {
		t.Fatal(err)
	}
	issued := mustIssue(t, s, k)
	if !believes(t, s.now, k.Trust(), issued.Chain()) || !believes(t, s.now, k.Trust(), oldChain) {
		t.Error("during the overlap a certificate of either CA is not believed")
	}
	// Who knows the former root alone believes the controller by the bridge.
	if believes(t, s.now, oldTrust, issued.Chain()) || !believes(t, s.now, oldTrust, k.ServerChain(issued)) {
		t.Error("the bridge does not lead from the new CA to the former root")
	}
	// A controller that starts now has the same.
	if again := s.open(); again.Active().IssuerKeyID() != k.Active().IssuerKeyID() || again.Trust().Digest() != k.Trust().Digest() || len(again.Others()) != 1 {
		t.Error("a controller that starts between activating and retiring has another CA")
	}
	id := slots.IDOf(old.IssuerKeyID())
	if _, err := k.Retire(t.Context(), id, false, "root"); !errors.Is(err, authority.ErrNotReady) || !strings.Contains(err.Error(), "1 certificates") {
		t.Errorf("retiring while a certificate counts gave %v, want ErrNotReady", err)
	}
	if _, err := k.Retire(t.Context(), next.ID, true, "root"); !errors.Is(err, slots.ErrStep) {
		t.Errorf("retiring the active CA gave %v, want ErrStep", err)
	}
	// Neither what is revoked holds anything back, nor what signs OCSP responses, which strangers keep alive by asking.
	controller, err := pki.NewController("bank.example", []string{"c1.bank.example"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := issueTo(t.Context(), s.now, k.Others()[0], ca.Responder, controller); err != nil {
		t.Fatal(err)
	}
	leaf, err := trust.ParseCertificate(oldChain[0])
	if err != nil {
		t.Fatal(err)
	}
	serial, err := trust.NewSerial(old.IssuerKeyID(), leaf.SerialNumber)
	if err != nil {
		t.Fatal(err)
	}
	revoked, err := trust.NewRevocations(1, []trust.Serial{serial}, nil)
	if err != nil {
		t.Fatal(err)
	}
	k.ConsiderRevoked(func() trust.Revocations { return revoked })
	if uses, err := k.Uses(t.Context()); err != nil || uses[id].Certificates != 0 {
		t.Errorf("with the one certificate revoked %d count, %v", uses[id].Certificates, err)
	}
	k.ConsiderRevoked(func() trust.Revocations { return trust.Revocations{} })
	s.now = s.now.Add(31 * 24 * time.Hour)
	if _, err := k.Retire(t.Context(), id, false, "root"); err != nil {
		t.Fatal(err)
	}
	if believes(t, epoch, k.Trust(), oldChain) || k.Trust().Revision() != uint64(s.now.Unix()) || len(k.Trust().Roots()) != 1 {
		t.Error("after it was retired the former CA is still believed")
	}
	if told != 3 {
		t.Errorf("changes were told %d times, want 3", told)
	}
	report, err := k.Audit(t.Context(), nil)
	if err != nil || len(report.Problems) > 0 {
		t.Errorf("audit: %v, %v", report.Problems, err)
	}
}

// In an emergency nothing waits, and the former root vouches for nobody.
func TestEmergency(t *testing.T) {
	s := newSpace(t)
	k := s.open()
	oldTrust, oldChain, id := k.Trust(), mustIssue(t, s, k).Chain(), slots.IDOf(k.Active().IssuerKeyID())
	if _, err := k.PrepareNext(t.Context(), authority.Preparation{Root: true, Emergency: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Activate(t.Context(), []string{"ws1"}, true, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Retire(t.Context(), id, true, ""); err != nil {
		t.Fatal(err)
	}
	if believes(t, s.now, k.Trust(), oldChain) || believes(t, s.now, oldTrust, k.ServerChain(mustIssue(t, s, k))) {
		t.Error("old and new CA vouch for each other after an emergency")
	}
}
