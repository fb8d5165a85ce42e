package enrollment

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
)

// fakeHoldings keeps holdings in memory.
type fakeHoldings map[pki.UUID]store.Holding

func (f fakeHoldings) Holding(_ context.Context, u pki.UUID) (store.Holding, error) {
	h, ok := f[u]
	if !ok {
		return store.Holding{}, store.ErrNotFound
	}
	return h, nil
}

func (f fakeHoldings) PutHolding(_ context.Context, h store.Holding) error {
	f[h.Machine] = h
	return nil
}

// fakeRequests keeps requests in memory, and fails once where it is told to.
type fakeRequests struct {
	held       map[pki.KeyID]store.JoinRequest
	writeFails error
	listed     int
}

func (f *fakeRequests) fail() error {
	err := f.writeFails
	f.writeFails = nil
	return err
}

func (f *fakeRequests) CreateJoinRequest(ctx context.Context, r store.JoinRequest) error {
	if err := errors.Join(ctx.Err(), f.fail()); err != nil {
		return err
	}
	if _, ok := f.held[r.Key]; ok {
		return store.ErrConflict
	}
	f.held[r.Key] = r
	return nil
}

func (f *fakeRequests) JoinRequest(_ context.Context, k pki.KeyID) (store.JoinRequest, error) {
	r, ok := f.held[k]
	if !ok {
		return store.JoinRequest{}, store.ErrNotFound
	}
	return r, nil
}

func (f *fakeRequests) JoinRequests(context.Context) ([]store.JoinRequest, error) {
	f.listed++
	var out []store.JoinRequest
	for _, r := range f.held {
		out = append(out, r)
	}
	return out, nil
}

func (f *fakeRequests) UpdateJoinRequest(_ context.Context, r store.JoinRequest) error {
	if err := f.fail(); err != nil {
		return err
	}
	f.held[r.Key] = r
	return nil
}

func (f *fakeRequests) DeleteJoinRequest(_ context.Context, r store.JoinRequest) error {
	delete(f.held, r.Key)
	return nil
}

// keyed makes a request for a DNS name and tells its key.
func (o *office) keyed(dnsName string) ([]byte, pki.KeyID) {
	o.t.Helper()
	der := o.request(dnsName)
	r, err := enroll.ParseRequest(der)
	if err != nil {
		o.t.Fatal(err)
	}
	return der, r.KeyID
}

func (o *office) submit(csr []byte) (Submission, error) {
	return o.Submit(o.t.Context(), csr, Submitter{Address: "192.0.2.1:1", Via: "node"})
}

func TestRequestWaitsForSomebody(t *testing.T) {
	o := newOffice(t)
	csr, key := o.keyed("sql1.bank.example")
	for range 3 {
		s, err := o.submit(csr)
		if err != nil || s.Issued != nil || s.Request.State != store.RequestPending {
			t.Fatalf("before the decision: %+v, error %v; want it to wait", s, err)
		}
	}
	if o.requests.listed != 1 || len(o.requests.held) != 1 {
		t.Errorf("the store was listed %d times and holds %d requests, want 1 and 1", o.requests.listed, len(o.requests.held))
	}
	if _, err := o.FindRequest(t.Context(), key.String()[:7]); !errors.Is(err, ErrRequestName) {
		t.Errorf("seven characters found %v", err)
	}
	found, err := o.FindRequest(t.Context(), strings.ToUpper(key.String()[:8]))
	if err != nil || found.Key != key || found.MachineName != "sql1" || found.From != "192.0.2.1:1" {
		t.Fatalf("found %+v, error %v", found, err)
	}
	if _, err := o.Approve(t.Context(), key, "alice"); err != nil {
		t.Fatal(err)
	}
	s, err := o.submit(csr)
	if err != nil || s.Issued == nil {
		t.Fatalf("after the approval: %+v, error %v", s, err)
	}
	if held := o.holdings[pki.UUID(sql1.UUID)]; held.Key != key || held.How != "request "+key.String()[:16]+" approved by alice" {
		t.Errorf("the machine holds %+v", held)
	}
	if _, err := o.Deny(t.Context(), key, "bob", ""); !errors.Is(err, ErrDecided) {
		t.Errorf("denying what was collected gave %v, want ErrDecided", err)
	}
	// Nobody else's key gets anything of the approval.
	other, _ := o.keyed("sql1.bank.example")
	if s, err := o.submit(other); err != nil || s.Issued != nil {
		t.Errorf("another key got %+v, error %v; want it to wait", s, err)
	}
}

func TestRequestDenied(t *testing.T) {
	o := newOffice(t)
	csr, key := o.keyed("sql1.bank.example")
	if _, err := o.submit(csr); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Deny(t.Context(), key, "alice", "not ours"); err != nil {
		t.Fatal(err)
	}
	if _, err := o.submit(csr); !errors.Is(err, ErrRequestDenied) || !strings.Contains(err.Error(), "by alice") || !strings.Contains(err.Error(), "not ours") {
		t.Errorf("after the denial: %v", err)
	}
	if _, err := o.Approve(t.Context(), key, "bob"); !errors.Is(err, ErrDecided) {
		t.Errorf("approving what was denied gave %v, want ErrDecided", err)
	}
	if o.authority.issued != 0 {
		t.Errorf("%d certificates were issued", o.authority.issued)
	}
}

// An approval is of one decision at one time: the entry is looked at again when the certificate is issued.
func TestApprovalDoesNotOutliveTheEntry(t *testing.T) {
	o := newOffice(t)
	csr, key := o.keyed("sql1.bank.example")
	if _, err := o.submit(csr); err != nil {
		t.Fatal(err)
	}
	disabled := sql1
	disabled.Disabled = true
	o.put(disabled)
	if _, err := o.Approve(t.Context(), key, "alice"); !errors.Is(err, ErrMachineDisabled) {
		t.Errorf("approving a disabled machine gave %v", err)
	}
	o.put(sql1)
	if _, err := o.Approve(t.Context(), key, "alice"); err != nil {
		t.Fatal(err)
	}
	o.put(disabled)
	if _, err := o.submit(csr); !errors.Is(err, ErrMachineDisabled) {
		t.Errorf("collecting for a disabled machine gave %v", err)
	}
	o.put(sql1)
	// Taken back before anything came of it.
	if _, err := o.Deny(t.Context(), key, "alice", "changed my mind"); err != nil {
		t.Fatal(err)
	}
	if _, err := o.submit(csr); !errors.Is(err, ErrRequestDenied) {
		t.Errorf("collecting what was taken back gave %v", err)
	}
	if o.authority.issued != 0 {
		t.Errorf("%d certificates were issued", o.authority.issued)
	}
}

func TestRequestsAreBounded(t *testing.T) {
	o := newOffice(t)
	for range MaxPendingMachine {
		if _, err := o.submit(o.request("sql1.bank.example")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := o.submit(o.request("sql1.bank.example")); !errors.Is(err, ErrQueueFull) {
		t.Errorf("one request too many for a machine gave %v", err)
	}
	for _, name := range []string{"nobody.bank.example", "sql1.elsewhere.example"} {
		if _, err := o.submit(o.request(name)); !errors.Is(err, ErrRequestMachine) {
			t.Errorf("a request for %s gave %v", name, err)
		}
	}
	// The queue is the same for all of them, whoever asks.
	for n := range MaxPending {
		o.queue.known[pki.KeyID{1, byte(n >> 8), byte(n)}] = store.JoinRequest{NotAfter: o.clock.Add(time.Hour), State: store.RequestPending}
	}
	other := directory.Machine{UUID: directory.UUID{2}, DN: directory.MustParseDN("cn=ws1,dc=bank,dc=example"), Name: "ws1"}
	o.put(sql1, other)
	if _, err := o.submit(o.request("ws1.bank.example")); !errors.Is(err, ErrQueueFull) {
		t.Errorf("a request into a full queue gave %v", err)
	}
	o.clock = o.clock.Add(2 * time.Hour)
	if _, err := o.submit(o.request("ws1.bank.example")); err != nil {
		t.Errorf("after the others ended: %v", err)
	}
}

func TestRequestEnds(t *testing.T) {
	o := newOffice(t)
	csr, key := o.keyed("sql1.bank.example")
	if _, err := o.submit(csr); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Approve(t.Context(), key, "alice"); err != nil {
		t.Fatal(err)
	}
	o.clock = o.clock.Add(DefaultRequestLifetime)
	if s, err := o.submit(csr); err != nil || s.Issued != nil || s.Request.State != store.RequestPending {
		t.Errorf("an approval that ended gave %+v, error %v; want a new request that waits", s, err)
	}
	if n, err := o.PruneJoinRequests(t.Context(), o.clock.Add(DefaultRequestLifetime+1)); n != 1 || err != nil || len(o.requests.held) != 0 {
		t.Errorf("pruned %d, error %v, %d left; want all", n, err, len(o.requests.held))
	}
}

func TestStoreThatFailsIsReadAnew(t *testing.T) {
	o := newOffice(t)
	csr, _ := o.keyed("sql1.bank.example")
	o.requests.writeFails = context.DeadlineExceeded
	if _, err := o.submit(csr); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want the failure of the store", err)
	}
	if s, err := o.submit(csr); err != nil || s.Request.State != store.RequestPending || o.requests.listed != 2 {
		t.Errorf("then %+v, error %v, listed %d times", s, err, o.requests.listed)
	}
}

func TestAutomaticApproval(t *testing.T) {
	o := newOffice(t)
	o.config.Rules.Auto = []Rule{{Container: directory.MustParseDN("dc=bank,dc=example")}}
	s, err := o.submit(o.request("sql1.bank.example"))
	if err != nil || s.Issued == nil || s.Request.By != "rule: container dc=bank,dc=example" {
		t.Fatalf("got %+v, error %v; want a certificate by the rule", s, err)
	}
	// The machine has one now: the next key is for somebody to look at.
	if s, err := o.submit(o.request("sql1.bank.example")); err != nil || s.Issued != nil {
		t.Errorf("a second key got %+v, error %v; want it to wait", s, err)
	}
	o = newOffice(t)
	o.config.Rules.Auto = []Rule{{Container: directory.MustParseDN("ou=elsewhere,dc=bank,dc=example")}, {Group: directory.MustParseDN("cn=none,dc=bank,dc=example")}}
	if s, err := o.submit(o.request("sql1.bank.example")); err != nil || s.Issued != nil {
		t.Errorf("a machine that no rule is for got %+v, error %v", s, err)
	}
	o.config.Rules.Accept = false
	if _, err := o.submit(o.request("sql1.bank.example")); !errors.Is(err, ErrRequestsClosed) {
		t.Errorf("closed, it gave %v", err)
	}
}

// A new enrolment ends what came before it: the old certificate is renewed no more, and neither the token nor the approval
// that the old key came by takes the machine back.
func TestEnrolmentSupersedes(t *testing.T) {
	o := newOffice(t)
	var superseded []string
	o.config.Supersede = func(_ context.Context, h store.Holding, _ string) error {
		superseded = append(superseded, h.Serial)
		return nil
	}
	step := func() { o.clock = o.clock.Add(2 * time.Minute) }
	firstToken, lost := o.token(sql1), o.request("sql1.bank.example")
	first, err := o.Enroll(t.Context(), firstToken, lost)
	if err != nil {
		t.Fatal(err)
	}
	step()
	second, err := o.Enroll(t.Context(), o.token(sql1), o.request("sql1.bank.example"))
	if err != nil {
		t.Fatal(err)
	}
	step()
	if got, want := fmt.Sprint(superseded), "["+first.Leaf.SerialNumber.Text(16)+"]"; got != want {
		t.Errorf("superseded are %s, want %s", got, want)
	}
	id, err := pki.IdentityFromCertificate(first.Leaf)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := enroll.NewRequest(key, id)
	if err != nil {
		t.Fatal(err)
	}
	for what, ask := range map[string]func() (ca.Issued, error){
		"renewal of the old certificate": func() (ca.Issued, error) { return o.Renew(t.Context(), first.Leaf, fresh) },
		"the old token again":            func() (ca.Issued, error) { return o.Enroll(t.Context(), firstToken, lost) },
	} {
		if _, err := ask(); !errors.Is(err, ErrSuperseded) {
			t.Errorf("%s gave %v, want ErrSuperseded", what, err)
		}
	}
	renewed, err := o.Renew(t.Context(), second.Leaf, fresh)
	if err != nil {
		t.Fatalf("renewal of the present certificate: %v", err)
	}
	step()
	// Its answer may have been lost: the certificate before, of the same enrolment, still renews.
	if _, err := o.Renew(t.Context(), second.Leaf, fresh); err != nil {
		t.Errorf("renewal with the certificate before: %v", err)
	}
	if len(superseded) != 1 || renewed.Leaf == nil {
		t.Errorf("renewals superseded: %v", superseded)
	}
}

// A renewal that began before a new enrolment ends after it: the old key must not get the machine back.
func TestRenewalLosesToAnEnrolmentMeanwhile(t *testing.T) {
	o := newOffice(t)
	first, err := o.Enroll(t.Context(), o.token(sql1), o.request("sql1.bank.example"))
	if err != nil {
		t.Fatal(err)
	}
	o.clock = o.clock.Add(2 * time.Minute)
	id, err := pki.IdentityFromCertificate(first.Leaf)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := enroll.NewRequest(key, id)
	if err != nil {
		t.Fatal(err)
	}
	var second ca.Issued
	o.authority.before = func() {
		if second, err = o.Enroll(t.Context(), o.token(sql1), o.request("sql1.bank.example")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := o.Renew(t.Context(), first.Leaf, fresh); !errors.Is(err, ErrSuperseded) {
		t.Errorf("the renewal gave %v, want ErrSuperseded", err)
	}
	if held := o.holdings[id.UUID()]; held.Serial != second.Leaf.SerialNumber.Text(16) {
		t.Errorf("the machine holds %s by %s, want what it enrolled for", held.Serial, held.How)
	}
}

// What a machine held is revoked also where that fails at first and the machine has to ask again.
func TestSupersedingIsRepeated(t *testing.T) {
	o := newOffice(t)
	first, err := o.Enroll(t.Context(), o.token(sql1), o.request("sql1.bank.example"))
	if err != nil {
		t.Fatal(err)
	}
	o.clock = o.clock.Add(2 * time.Minute)
	var superseded []string
	fails := errors.New("the store does not answer")
	o.config.Supersede = func(_ context.Context, h store.Holding, _ string) error {
		if err := fails; err != nil {
			fails = nil
			return err
		}
		superseded = append(superseded, h.Serial)
		return nil
	}
	token, csr := o.token(sql1), o.request("sql1.bank.example")
	if _, err := o.Enroll(t.Context(), token, csr); err == nil {
		t.Fatal("a certificate was given away although the one before still counts")
	}
	if _, err := o.Enroll(t.Context(), token, csr); err != nil {
		t.Fatal(err)
	}
	if len(superseded) != 1 || superseded[0] != first.Leaf.SerialNumber.Text(16) {
		t.Errorf("superseded are %v, want %s", superseded, first.Leaf.SerialNumber.Text(16))
	}
}

func TestRenewalAfterTheEnd(t *testing.T) {
	o := newOffice(t)
	id, err := Identity(catest.TrustDomain, sql1)
	if err != nil {
		t.Fatal(err)
	}
	certificate := o.authority.Machine(t, id)
	same, err := enroll.NewRequest(certificate.PrivateKey.(*ecdsa.PrivateKey), id)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	another, err := enroll.NewRequest(other, id)
	if err != nil {
		t.Fatal(err)
	}
	o.clock = certificate.Leaf.NotAfter.Add(DefaultRenewalGrace)
	if _, err := o.Renew(t.Context(), certificate.Leaf, another); !errors.Is(err, ErrOtherKey) {
		t.Errorf("another key got %v, want ErrOtherKey", err)
	}
	disabled := sql1
	disabled.Disabled = true
	o.put(disabled)
	if _, err := o.Renew(t.Context(), certificate.Leaf, same); !errors.Is(err, ErrMachineDisabled) {
		t.Errorf("a disabled machine got %v", err)
	}
	o.put(sql1)
	if _, err := o.Renew(t.Context(), certificate.Leaf, same); err != nil {
		t.Errorf("the same key within the grace: %v", err)
	}
	o.clock = o.clock.Add(time.Second)
	if _, err := o.Renew(t.Context(), certificate.Leaf, same); !errors.Is(err, ErrGraceOver) {
		t.Errorf("after the grace: %v, want ErrGraceOver", err)
	}
}
