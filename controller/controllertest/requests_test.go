package controllertest

import (
	"crypto/ecdsa"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/bailiwick-net/bailiwick/controller"
	"github.com/bailiwick-net/bailiwick/controller/enrollment"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// A request waits for an administrator, also through a restart of the controller, and its certificate opens a session.
func TestRequestIsApproved(t *testing.T) {
	f := New(t, Bank)
	f.Config.Enrollment.Requests = true
	f.Start()
	j := f.Join("")
	if n, _, err := j.Submit(f.Context(), "sql1.bank.example"); n != nil || err != nil {
		t.Fatalf("the first question gave %v, error %v; want it to wait", n, err)
	}
	f.Restart()
	n, key, err := j.Submit(f.Context(), "sql1.bank.example")
	if n != nil || err != nil {
		t.Fatalf("after a restart: %v, error %v; want it to wait", n, err)
	}
	approved, err := f.Enrollments().ApproveEnrollmentRequest(f.Context(), &adminv1.ApproveEnrollmentRequestRequest{Request: key[:16]})
	if err != nil || approved.GetRequest().GetDecidedBy() == "" || approved.GetRequest().GetDecided() == nil {
		t.Fatalf("approving: %v, error %v; want it to say who", approved, err)
	}
	f.Restart()
	if n, _, err = j.Submit(f.Context(), "sql1.bank.example"); n == nil || err != nil {
		t.Fatalf("after the approval: %v, error %v", n, err)
	}
	n.Connect(&nodev1.Hello{}).WantAssignment("none")
}

func TestRequestsAreClosedUnlessConfigured(t *testing.T) {
	f := Start(t, Bank)
	_, _, err := f.Join("").Submit(f.Context(), "sql1.bank.example")
	wantRefusal(t, err, codes.FailedPrecondition, "takes no requests")
}

func TestRuleApprovesWhatItNames(t *testing.T) {
	f := New(t, Bank)
	f.Config.Enrollment.Requests = true
	f.Config.Enrollment.AutoApprove = []controller.MachinesConfig{{Container: "ou=Workstations,dc=bank,dc=example"}}
	f.Start()
	if n, _, err := f.Join("").Submit(f.Context(), "ws1.bank.example"); n == nil || err != nil {
		t.Errorf("below the container: %v, error %v; want a certificate", n, err)
	}
	if n, _, err := f.Join("").Submit(f.Context(), "sql1.bank.example"); n != nil || err != nil {
		t.Errorf("elsewhere: %v, error %v; want it to wait", n, err)
	}
}

// A certificate that ended is renewed for the same key within the grace, opens no session before, and is worth nothing
// after it.
func TestCertificateThatEndedIsRenewed(t *testing.T) {
	var offset atomic.Int64
	f := New(t, Bank)
	f.Config.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	f.Start()
	n := f.Node("sql1")
	key := n.Certificate.PrivateKey.(*ecdsa.PrivateKey)
	request, err := enroll.NewRequest(key, n.Identity)
	if err != nil {
		t.Fatal(err)
	}
	renew := func() (*nodev1.RenewResponse, error) {
		return nodev1.NewEnrollmentServiceClient(n.Dial(n.Certificate)).Renew(f.Context(), &nodev1.RenewRequest{Csr: request})
	}
	ended := time.Until(n.Certificate.Leaf.NotAfter)
	// The controller's certificate is of the same age, and renewed by the same clock only when it is due.
	offset.Store(int64(ended + enrollment.DefaultRenewalGrace + time.Minute))
	_, err = renew()
	wantRefusal(t, err, codes.Unauthenticated, "expired")
	offset.Store(int64(ended + time.Hour))
	wantRefusal(t, n.Open(n.Certificate).WantEnd(), codes.Unauthenticated, "expired")
	_, err = n.Renew(n.Identity) // with a fresh key
	wantRefusal(t, err, codes.PermissionDenied, "for the same key only")
	if _, err := renew(); err != nil {
		t.Errorf("the same key within the grace: %v", err)
	}
}
