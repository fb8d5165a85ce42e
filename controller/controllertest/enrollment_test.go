package controllertest

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// wantRefusal checks code and text of a refusal.
func wantRefusal(t *testing.T, err error, code codes.Code, text string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, wanted %v with %q", err, code, text)
	}
}

func TestTokenIsGoodOnce(t *testing.T) {
	f := Start(t, Bank)
	token := f.Token("sql1")
	first := f.Join(token)
	if _, err := first.Try(f.Context()); err != nil {
		t.Fatalf("the first join: %v", err)
	}
	_, err := f.Join(token).Try(f.Context())
	wantRefusal(t, err, codes.FailedPrecondition, "was used at")
	if _, err := first.Try(f.Context()); err != nil {
		t.Errorf("the machine that lost the answer asks again with the same key: %v", err)
	}
	tokens, err := f.Credentials().ListTokens(f.Context(), &adminv1.ListTokensRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got := tokens.GetTokens(); len(got) != 1 || got[0].GetUsed() == nil {
		t.Errorf("tokens are %v, wanted one, used", got)
	}
}

func TestOfManyJoinsWithOneTokenOneSucceeds(t *testing.T) {
	f := Start(t, Bank)
	token := f.Token("sql1")
	var joins []Join
	for range 16 {
		joins = append(joins, f.Join(token))
	}
	ctx := f.Context()
	var won atomic.Int32
	var wg sync.WaitGroup
	for _, j := range joins {
		wg.Go(func() {
			switch _, err := j.Try(ctx); {
			case err == nil:
				won.Add(1)
			case status.Code(err) != codes.FailedPrecondition:
				t.Errorf("a loser was told %v", err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d of %d joins succeeded, wanted one", won.Load(), len(joins))
	}
}

func TestTokenExpires(t *testing.T) {
	var offset atomic.Int64
	f := New(t, Bank)
	f.Config.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	f.Start()
	response, err := f.Credentials().CreateToken(f.Context(), &adminv1.CreateTokenRequest{Machine: "sql1", TtlSeconds: 60})
	if err != nil {
		t.Fatal(err)
	}
	offset.Store(int64(2 * time.Minute))
	_, err = f.Join(response.GetText()).Try(f.Context())
	wantRefusal(t, err, codes.FailedPrecondition, "was good until")
}

func TestTokenRevoked(t *testing.T) {
	f := Start(t, Bank)
	token := f.Token("sql1")
	if _, err := f.Credentials().RevokeToken(f.Context(), &adminv1.RevokeTokenRequest{Id: token}); err != nil {
		t.Fatal(err)
	}
	_, err := f.Join(token).Try(f.Context())
	wantRefusal(t, err, codes.Unauthenticated, "not known")
	_, err = f.Credentials().RevokeToken(f.Context(), &adminv1.RevokeTokenRequest{Id: token})
	wantRefusal(t, err, codes.NotFound, "not found")
}

func TestTokenOfNobody(t *testing.T) {
	f := Start(t, Bank)
	known, err := enroll.ParseToken(f.Token("sql1"))
	if err != nil {
		t.Fatal(err)
	}
	forged := enroll.NewToken([enroll.EntropySize]byte{1, 2, 3}, known.Pin)
	_, err = f.Join(forged.Text()).Try(f.Context())
	wantRefusal(t, err, codes.Unauthenticated, "not known")
	// The id of a token that exists, with another secret.
	forged.ID = known.ID
	_, err = f.Join(forged.Text()).Try(f.Context())
	wantRefusal(t, err, codes.Unauthenticated, "not known")
}

func TestRequestForAnotherMachine(t *testing.T) {
	f := Start(t, Bank)
	token := f.Token("ws1")
	j := f.Join(token)
	request, err := enroll.NewJoinRequest(j.Key, "sql1.bank.example")
	if err != nil {
		t.Fatal(err)
	}
	j.Request = request
	_, err = j.Try(f.Context())
	wantRefusal(t, err, codes.PermissionDenied, "sql1.bank.example")
	// Nothing changed: the token is still good for the machine that it is for.
	if _, err := f.Join(token).Try(f.Context()); err != nil {
		t.Errorf("the token was burnt by a request for another machine: %v", err)
	}
}

func TestRequestThatIsNoRequest(t *testing.T) {
	f := Start(t, Bank)
	j := f.Join(f.Token("ws1"))
	j.Request = []byte{0x30, 0x03, 0x02, 0x01, 0x00}
	_, err := j.Try(f.Context())
	wantRefusal(t, err, codes.InvalidArgument, "invalid certificate request")
}

func TestTokenForMachineThatIsGoneOrDisabled(t *testing.T) {
	f := Start(t, Bank)
	token := f.Token("ws2")
	before := f.directoryDigest()
	f.WriteDirectory(disabled(Bank, "ws2"))
	f.Eventually("the controller sees the change", func() bool { return f.directoryDigest() != before })
	_, err := f.Join(token).Try(f.Context())
	wantRefusal(t, err, codes.PermissionDenied, "disabled")
	_, err = f.Credentials().CreateToken(f.Context(), &adminv1.CreateTokenRequest{Machine: "ws2"})
	wantRefusal(t, err, codes.PermissionDenied, "disabled")
	_, err = f.Credentials().CreateToken(f.Context(), &adminv1.CreateTokenRequest{Machine: "printer1"})
	wantRefusal(t, err, codes.NotFound, "printer1")
}

func TestForeignCertificateOnTheStream(t *testing.T) {
	f := Start(t, Bank)
	n := f.Node("sql1")
	foreign := catest.New(t).Machine(t, n.Identity)
	wantRefusal(t, n.Open(foreign).WantEnd(), codes.Unauthenticated, "unknown issuer")
	// A certificate of the fleet, but not a machine's.
	administrator := f.administrator("alice")
	wantRefusal(t, n.Open(administrator).WantEnd(), codes.Unauthenticated, "not to a machine")
}

func TestCertificateOfAnotherTime(t *testing.T) {
	var offset atomic.Int64
	f := New(t, Bank)
	f.Config.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	f.Start()
	n := f.Node("sql1")
	s := n.Connect(&nodev1.Hello{})
	s.WantAssignment("none")
	offset.Store(int64(366 * 24 * time.Hour))
	// The open session ends with the next word of the node, and there is no other.
	s.Send(&nodev1.ConnectRequest{Message: &nodev1.ConnectRequest_Report{Report: &nodev1.Report{}}})
	wantRefusal(t, s.WantEnd(), codes.Unauthenticated, "expired at")
	wantRefusal(t, n.Open(n.Certificate).WantEnd(), codes.Unauthenticated, "this clock says")
}

func TestStreamWithoutCertificate(t *testing.T) {
	f := Start(t, Bank)
	n := f.Node("sql1")
	n.Certificate.Certificate, n.Certificate.PrivateKey = nil, nil
	err := n.Connect(&nodev1.Hello{}).WantEnd()
	wantRefusal(t, err, codes.Unauthenticated, "no machine certificate")
}

func TestRenew(t *testing.T) {
	f := Start(t, Bank)
	n := f.Node("sql1")
	renewed, err := n.Renew(n.Identity)
	if err != nil {
		t.Fatalf("renewing: %v", err)
	}
	if renewed.Identity != n.Identity || renewed.Certificate.Leaf.SerialNumber.Cmp(n.Certificate.Leaf.SerialNumber) == 0 {
		t.Errorf("renewed is %v with serial %v", renewed.Identity, renewed.Certificate.Leaf.SerialNumber)
	}
	other, err := pki.NewIdentity("bank.example", f.Node("ws1").Identity.UUID(), "ws1.bank.example")
	if err != nil {
		t.Fatal(err)
	}
	_, err = n.Renew(other)
	wantRefusal(t, err, codes.PermissionDenied, "another name")
	f.WriteDirectory(disabled(Bank, "sql1"))
	f.Eventually("a disabled machine is refused", func() bool {
		_, err := n.Renew(n.Identity)
		return status.Code(err) == codes.PermissionDenied
	})
}

func TestControllerIsKnownByItsPin(t *testing.T) {
	f, other := Start(t, Bank), Start(t, Bank)
	j := f.Join(f.Token("sql1"))
	j.fleet = other
	if _, err := j.Try(f.Context()); err == nil || !strings.Contains(err.Error(), "not the controller that made the token") {
		t.Errorf("joining another controller gave %v", err)
	}
	if _, err := f.Join("bw1.nonsense").Try(f.Context()); !errors.Is(err, enroll.ErrTokenFormat) {
		t.Errorf("a mistyped token gave %v", err)
	}
}
