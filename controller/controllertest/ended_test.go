package controllertest

import (
	"crypto/ecdsa"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/pki/enroll"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// An issuing CA that ended because nobody replaced it is replaced all the same: the controller starts without a certificate,
// administrators reach it over its socket, and machines that have been cut off come back by themselves, with the key that they
// have.
func TestAuthorityThatEndedIsReplaced(t *testing.T) {
	var offset atomic.Int64
	f := New(t, Bank)
	f.Config.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	f.NodeClock = f.Config.Now
	f.Start()
	_, r := waiting(t, f)
	ends := r.GetAuthorities()[0].GetIssuingNotAfter().AsTime()
	offset.Store(int64(time.Until(ends) - 5*24*time.Hour))
	f.Restart()
	n := f.Node("sql1")
	if end := n.Certificate.Leaf.NotAfter; !end.Equal(ends) {
		t.Fatalf("the machine's certificate ends %v, want the end of its CA, %v", end, ends)
	}
	s := n.Connect(&nodev1.Hello{Version: "test"})
	s.AcceptAssignment()
	s.Close()

	offset.Add(int64(5*24*time.Hour + time.Hour))
	f.Restart()
	key := n.Certificate.PrivateKey.(*ecdsa.PrivateKey)
	request, err := enroll.NewRequest(key, n.Identity)
	if err != nil {
		t.Fatal(err)
	}
	renew := func() (*nodev1.RenewResponse, error) {
		return nodev1.NewEnrollmentServiceClient(n.Dial(n.Certificate)).Renew(f.Context(), &nodev1.RenewRequest{Csr: request})
	}
	if _, err := renew(); status.Code(err) != codes.Unavailable {
		t.Errorf("renewing while the CA has ended gave %v, want no connection", err)
	}
	if _, err := f.Authorities().PrepareAuthority(f.Context(), &adminv1.PrepareAuthorityRequest{}); err != nil {
		t.Fatal(err)
	}
	activated, err := f.Authorities().ActivateAuthority(f.Context(), &adminv1.ActivateAuthorityRequest{})
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := renew()
	if err != nil {
		t.Fatalf("renewing by the next CA: %v", err)
	}
	back, err := newNode(f, key, renewed.GetChain(), renewed.GetTrustBundle())
	if err != nil {
		t.Fatal(err)
	}
	back.Connect(&nodev1.Hello{Version: "test"}).AcceptAssignment()
	f.Eventually("the machine is connected by the next CA", func() bool {
		_, r := waiting(t, f)
		return len(r.GetNodes()) == 1 && r.GetNodes()[0].GetConnected() && r.GetNodes()[0].GetAuthority() == activated.GetAuthority().GetId()
	})
	audit, err := f.Authorities().AuditJournal(f.Context(), &adminv1.AuditJournalRequest{})
	if err != nil || len(audit.GetProblems()) > 0 || audit.GetOpen() != 0 {
		t.Errorf("audit: %v, %v", audit, err)
	}
}
