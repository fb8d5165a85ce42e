package enrollment

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// fakeTokens holds tokens in memory. Each field makes one thing go wrong, once.
type fakeTokens struct {
	tokens map[enroll.TokenID]store.Token
	// readFails and redeemFails are returned by the next call.
	readFails, redeemFails error
	// stolenBy redeems the token for another key just before the next redemption.
	stolenBy *pki.KeyID
	redeemed int
}

func (f *fakeTokens) CreateToken(_ context.Context, t store.Token) error {
	f.tokens[t.ID] = t
	return nil
}

func (f *fakeTokens) Token(_ context.Context, id enroll.TokenID) (store.Token, error) {
	if err := f.readFails; err != nil {
		f.readFails = nil
		return store.Token{}, err
	}
	t, ok := f.tokens[id]
	if !ok {
		return store.Token{}, store.ErrNotFound
	}
	return t, nil
}

func (f *fakeTokens) RedeemToken(_ context.Context, t store.Token, now time.Time, key pki.KeyID) error {
	if err := f.redeemFails; err != nil {
		f.redeemFails = nil
		return err
	}
	if thief := f.stolenBy; thief != nil {
		f.stolenBy = nil
		t.Stored = t.MarkUsed(now, *thief)
		f.tokens[t.ID] = t
		return store.ErrConflict
	}
	f.redeemed++
	t.Stored = t.MarkUsed(now, key)
	f.tokens[t.ID] = t
	return nil
}

// fakeAuthority is a real CA whose signing may fail.
type fakeAuthority struct {
	*catest.CA
	issueFails error
	// before happens just before the next signing.
	before func()
	issued int
}

func (f *fakeAuthority) Issue(ctx context.Context, p *ca.Prepared) (ca.Issued, error) {
	if err := f.issueFails; err != nil {
		f.issueFails = nil
		return ca.Issued{}, err
	}
	if before := f.before; before != nil {
		f.before = nil
		before()
	}
	f.issued++
	return f.CA.Issue(ctx, p)
}

type office struct {
	*Desk
	tokens    *fakeTokens
	holdings  fakeHoldings
	requests  *fakeRequests
	authority *fakeAuthority
	snapshot  *directory.Snapshot
	clock     time.Time
	t         *testing.T
}

var sql1 = directory.Machine{UUID: directory.UUID{1}, DN: directory.MustParseDN("cn=sql1,dc=bank,dc=example"), Name: "sql1"}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{tokens: &fakeTokens{tokens: map[enroll.TokenID]store.Token{}}, holdings: fakeHoldings{}, requests: &fakeRequests{held: map[pki.KeyID]store.JoinRequest{}}, clock: time.Now(), t: t}
	o.authority = &fakeAuthority{CA: catest.NewAt(t, func() time.Time { return o.clock })}
	o.put(sql1)
	profile, err := ca.NewProfile(ca.Machine, ca.ProfileConfig{})
	if err != nil {
		t.Fatal(err)
	}
	o.Desk = New(Config{
		Tokens: o.tokens, Holdings: o.holdings, Requests: o.requests, Rules: Rules{Accept: true}, Authority: o.authority, Snapshot: func() *directory.Snapshot { return o.snapshot },
		Trust: func() trust.Bundle { return o.authority.Bundle() }, TrustDomain: catest.TrustDomain, Machine: profile,
		Now: func() time.Time { return o.clock },
	})
	return o
}

// put makes a directory of the given objects.
func (o *office) put(objects ...directory.Object) {
	o.t.Helper()
	b := directory.NewBuilder(directory.DN{})
	base := directory.MustParseDN("dc=bank,dc=example")
	b.Add(directory.Container{UUID: directory.UUID{0xff}, DN: base, Kind: directory.KindOf(base)})
	for _, m := range objects {
		b.Add(m)
	}
	snapshot, err := b.Build()
	if err != nil {
		o.t.Fatal(err)
	}
	o.snapshot = snapshot
}

func (o *office) token(m directory.Machine) string {
	o.t.Helper()
	token, _, err := o.CreateToken(o.t.Context(), m, time.Hour, "root")
	if err != nil {
		o.t.Fatal(err)
	}
	return token.Text()
}

// certificate issues a certificate of a machine that the desk knows nothing of.
func (o *office) certificate(id pki.Identity) *x509.Certificate {
	o.t.Helper()
	return o.authority.Machine(o.t, id).Leaf
}

// request makes a request for a DNS name with a fresh key.
func (o *office) request(dnsName string) []byte {
	o.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		o.t.Fatal(err)
	}
	der, err := enroll.NewJoinRequest(key, dnsName)
	if err != nil {
		o.t.Fatal(err)
	}
	return der
}

func TestWhatFailsBeforeRedemptionLeavesTheTokenGood(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(o *office) (undo func())
		csr   func(o *office) []byte
		want  error
		code  codes.Code
	}{
		"store down": {
			spoil: func(o *office) func() { o.tokens.readFails = context.DeadlineExceeded; return func() {} },
			want:  context.DeadlineExceeded, code: codes.DeadlineExceeded,
		},
		"directory never read": {
			spoil: func(o *office) func() { s := o.snapshot; o.snapshot = nil; return func() { o.snapshot = s } },
			want:  ErrNotReady, code: codes.Unavailable,
		},
		"machine gone": {
			spoil: func(o *office) func() { o.put(); return func() { o.put(sql1) } },
			want:  ErrMachineUnknown, code: codes.FailedPrecondition,
		},
		"machine disabled": {
			spoil: func(o *office) func() { m := sql1; m.Disabled = true; o.put(m); return func() { o.put(sql1) } },
			want:  ErrMachineDisabled, code: codes.PermissionDenied,
		},
		"another machine's name": {
			csr:  func(o *office) []byte { return o.request("files1.bank.example") },
			want: enroll.ErrNameMismatch, code: codes.PermissionDenied,
		},
		"no request": {
			csr:  func(*office) []byte { return []byte("x") },
			want: enroll.ErrRequest, code: codes.InvalidArgument,
		},
		"CA expired": {
			spoil: func(o *office) func() {
				o.clock = o.clock.Add(20 * 365 * 24 * time.Hour)
				for id, token := range o.tokens.tokens {
					token.NotAfter = o.clock.Add(time.Hour)
					o.tokens.tokens[id] = token
				}
				return func() { o.clock = o.clock.Add(-20 * 365 * 24 * time.Hour) }
			},
			want: ca.ErrIssuerValidity, code: codes.FailedPrecondition,
		},
		"redemption fails": {
			spoil: func(o *office) func() { o.tokens.redeemFails = context.DeadlineExceeded; return func() {} },
			want:  context.DeadlineExceeded, code: codes.DeadlineExceeded,
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOffice(t)
			token := o.token(sql1)
			undo := func() {}
			if test.spoil != nil {
				undo = test.spoil(o)
			}
			csr := o.request("sql1.bank.example")
			if test.csr != nil {
				csr = test.csr(o)
			}
			_, err := o.Enroll(t.Context(), token, csr)
			if !errors.Is(err, test.want) {
				t.Fatalf("got %v, wanted %v", err, test.want)
			}
			if code, _ := Code(err); code != test.code {
				t.Errorf("code is %v, wanted %v", code, test.code)
			}
			if o.authority.issued != 0 || o.tokens.redeemed != 0 {
				t.Errorf("%d certificates were issued, %d tokens redeemed", o.authority.issued, o.tokens.redeemed)
			}
			undo()
			if _, err := o.Enroll(t.Context(), token, o.request("sql1.bank.example")); err != nil {
				t.Errorf("afterwards the token is not good any more: %v", err)
			}
		})
	}
}

func TestWhatFailsAfterRedemptionIsForTheSameKeyAlone(t *testing.T) {
	o := newOffice(t)
	token := o.token(sql1)
	csr := o.request("sql1.bank.example")
	o.authority.issueFails = ca.ErrJournal
	if _, err := o.Enroll(t.Context(), token, csr); !errors.Is(err, ca.ErrJournal) {
		t.Fatalf("got %v, wanted the journal's failure", err)
	}
	if _, err := o.Enroll(t.Context(), token, o.request("sql1.bank.example")); !errors.Is(err, enroll.ErrTokenUsed) {
		t.Errorf("another key got %v, wanted ErrTokenUsed", err)
	}
	issued, err := o.Enroll(t.Context(), token, csr)
	if err != nil {
		t.Fatalf("the same key got %v", err)
	}
	if id, err := pki.IdentityFromCertificate(issued.Leaf); err != nil || id.DNSName() != "sql1.bank.example" {
		t.Errorf("certificate is of %v, error %v", id, err)
	}
	o.clock = o.clock.Add(2 * time.Hour)
	if _, err := o.Enroll(t.Context(), token, csr); !errors.Is(err, enroll.ErrTokenUsed) && !errors.Is(err, enroll.ErrTokenExpired) {
		t.Errorf("after its end the token gave %v", err)
	}
}

func TestLosingTheRace(t *testing.T) {
	o := newOffice(t)
	token := o.token(sql1)
	o.tokens.stolenBy = &pki.KeyID{9}
	if _, err := o.Enroll(t.Context(), token, o.request("sql1.bank.example")); !errors.Is(err, enroll.ErrTokenUsed) {
		t.Errorf("the loser got %v, wanted ErrTokenUsed", err)
	}
	if o.authority.issued != 0 {
		t.Errorf("%d certificates were issued to the loser", o.authority.issued)
	}
	// The same machine, asking twice at once, is no loser.
	o = newOffice(t)
	token = o.token(sql1)
	csr := o.request("sql1.bank.example")
	parsed, err := enroll.ParseRequest(csr)
	if err != nil {
		t.Fatal(err)
	}
	o.tokens.stolenBy = &parsed.KeyID
	if _, err := o.Enroll(t.Context(), token, csr); err != nil {
		t.Errorf("the same key twice at once got %v", err)
	}
}

func TestNamesComeFromTheDirectory(t *testing.T) {
	o := newOffice(t)
	renamed := sql1
	renamed.DNSName = "db.elsewhere.example"
	token := o.token(sql1)
	o.put(renamed)
	id, err := o.Names(t.Context(), token)
	if err != nil || id.DNSName() != "db.elsewhere.example" || id.UUID() != pki.UUID(sql1.UUID) || id.TrustDomain() != catest.TrustDomain {
		t.Errorf("names are %v, error %v", id, err)
	}
	if _, err := o.Enroll(t.Context(), token, o.request("sql1.bank.example")); !errors.Is(err, enroll.ErrNameMismatch) {
		t.Errorf("the old name got %v, wanted ErrNameMismatch", err)
	}
}

// A machine that was renamed knows its former name only; without a new certificate it would fall out of the fleet.
func TestRenewalFollowsARename(t *testing.T) {
	o := newOffice(t)
	before, err := Identity(catest.TrustDomain, sql1)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request := func(id pki.Identity) []byte {
		der, err := enroll.NewRequest(key, id)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	present := o.certificate(before)
	renamed, other := sql1, directory.Machine{UUID: directory.UUID{2}, DN: directory.MustParseDN("cn=ws1,dc=bank,dc=example"), Name: "ws1"}
	renamed.DNSName = "db.elsewhere.example"
	o.put(renamed, other)
	issued, err := o.Renew(t.Context(), present, request(before))
	if err != nil {
		t.Fatalf("renewal under the former name: %v", err)
	}
	id, err := pki.IdentityFromCertificate(issued.Leaf)
	if err != nil || id.DNSName() != "db.elsewhere.example" || id.UUID() != before.UUID() {
		t.Errorf("the renewed certificate is of %v, error %v; want the present name of the same object", id, err)
	}
	foreign, err := Identity(catest.TrustDomain, other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Renew(t.Context(), present, request(foreign)); !errors.Is(err, enroll.ErrNameMismatch) {
		t.Errorf("renewal in another machine's name got %v, wanted ErrNameMismatch", err)
	}
}

func TestTokenLifetimes(t *testing.T) {
	o := newOffice(t)
	for _, lifetime := range []time.Duration{-time.Second, time.Millisecond, MaxTokenLifetime + 1} {
		if _, _, err := o.CreateToken(t.Context(), sql1, lifetime, ""); !errors.Is(err, ErrTokenLifetime) {
			t.Errorf("lifetime %v gave %v, wanted ErrTokenLifetime", lifetime, err)
		}
	}
	_, record, err := o.CreateToken(t.Context(), sql1, 0, "")
	if err != nil || record.NotAfter.Sub(record.Created) != DefaultTokenLifetime {
		t.Errorf("by default the token lives %v, error %v", record.NotAfter.Sub(record.Created), err)
	}
}
