package controllertest

import (
	"crypto/ecdsa"
	"crypto/tls"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// certificates is the certificate service over the admin socket.
func (f *Fleet) certificates() adminv1.CertificateServiceClient {
	f.t.Helper()
	return adminv1.NewCertificateServiceClient(f.Conn())
}

func ofMachine(name string) *adminv1.CertificateSelector {
	return &adminv1.CertificateSelector{By: &adminv1.CertificateSelector_Machine{Machine: name}}
}

// revoke revokes the certificates of a machine.
func (f *Fleet) revoke(machine, reason string) *adminv1.RevokeCertificatesResponse {
	f.t.Helper()
	r, err := f.certificates().RevokeCertificates(f.Context(), &adminv1.RevokeCertificatesRequest{Selector: ofMachine(machine), Reason: reason})
	if err != nil {
		f.t.Fatalf("revoking %s: %v", machine, err)
	}
	return r
}

// wantRefusal waits until the session was told of denials with which a node is judged as wanted.
func (s *Session) wantRefusal(judge, peer *Node, want trust.Reason) {
	s.t.Helper()
	for {
		m, err := s.next()
		if err != nil {
			s.t.Fatalf("waiting to be told that %v is refused with %q: %v", peer.Identity, want, err)
		}
		s.note(m)
		d := m.GetDenials()
		if d == nil {
			continue
		}
		if got := judgePeer(s.t, judge, peer, d.GetContent()); got == want {
			return
		}
	}
}

// judgePeer judges a node by denials, as the node daemon does.
func judgePeer(t testing.TB, judge, peer *Node, denials []byte) trust.Reason {
	t.Helper()
	set, err := trust.ParseDenials(denials)
	if err != nil {
		t.Fatal(err)
	}
	return judgeBy(t, nil, judge, peer, set)
}

func judgeBy(t testing.TB, paths *trust.Paths, judge, peer *Node, set trust.Denials) trust.Reason {
	t.Helper()
	_, err := paths.Verify(judge.Trust, time.Now(), peer.Certificate.Certificate, trust.Options{Usages: []trust.Usage{trust.IPsecIKE}, IKEID: peer.Identity.IKEID(), Denied: set})
	reason, _ := trust.ReasonOf(err)
	return reason
}

// A revoked machine loses its session, every other node is told, and nothing gets it back in but a token and a new key.
func TestRevokedMachineIsShutOut(t *testing.T) {
	f := Start(t, Bank)
	f.Apply(BankLinks)
	ws1, ws2 := f.Node("ws1"), f.Node("ws2")
	s1, s2 := ws1.Connect(&nodev1.Hello{}), ws2.Connect(&nodev1.Hello{})
	s1.AcceptAssignment()
	s2.AcceptAssignment()
	renewed, err := ws1.Renew(ws1.Identity)
	if err != nil {
		t.Fatal(err)
	}
	conn := ws1.Dial(ws1.Certificate)
	// The connection is open before the revocation, and stays: each call is judged anew.
	client := nodev1.NewEnrollmentServiceClient(conn)
	request, err := enroll.NewRequest(f.Join("").Key, ws1.Identity)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Renew(f.Context(), &nodev1.RenewRequest{Csr: request}); err != nil {
		t.Fatal(err)
	}

	early := f.Token("ws1") // whoever has the machine may have that, too
	r := f.revoke("ws1", "keyCompromise")
	if len(r.GetRevoked()) != 6 || r.GetConnectedNodes() != 2 { // three certificates and their keys
		t.Errorf("revoked are %v with %d nodes, wanted three certificates and three keys, and both nodes told", r.GetRevoked(), r.GetConnectedNodes())
	}
	s2.wantRefusal(ws2, ws1, trust.ReasonRevoked)
	if err := s1.WantEnd(); status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("the session ended with %v, wanted a refusal as revoked", err)
	}
	for name, n := range map[string]*Node{"the certificate": ws1, "its renewal": renewed} {
		if err := n.Connect(&nodev1.Hello{}).WantEnd(); status.Code(err) != codes.Unauthenticated {
			t.Errorf("a new session with %s: %v, wanted Unauthenticated", name, err)
		}
		if _, err := n.Renew(n.Identity); status.Code(err) != codes.Unauthenticated {
			t.Errorf("renewing with %s: %v, wanted Unauthenticated", name, err)
		}
	}
	if _, err := client.Renew(f.Context(), &nodev1.RenewRequest{Csr: request}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("renewing over the connection of before: %v, wanted Unauthenticated", err)
	}
	if _, err := f.Join(early).Try(f.Context()); status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "let this machine in again") {
		t.Errorf("joining with a token from before the revocation: %v, wanted PermissionDenied", err)
	}
	// A token does not help a revoked key, and is not used up by the attempt.
	token := f.Token("ws1")
	again := f.Join(token)
	key, ok := ws1.Certificate.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		t.Fatal("the node has no ECDSA key")
	}
	again.Key = key
	if _, err := again.Try(f.Context()); status.Code(err) != codes.PermissionDenied {
		t.Errorf("joining with the revoked key: %v, wanted PermissionDenied", err)
	}
	fresh, err := f.Join(token).Try(f.Context())
	if err != nil {
		t.Fatalf("joining with a new key: %v", err)
	}
	fresh.Connect(&nodev1.Hello{}).AcceptAssignment()

	// It holds over a restart.
	f.Restart()
	if err := ws1.Connect(&nodev1.Hello{}).WantEnd(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a session after the restart: %v, wanted Unauthenticated", err)
	}
	s2 = ws2.Connect(&nodev1.Hello{})
	s2.wantRefusal(ws2, ws1, trust.ReasonRevoked)
}

// A machine on hold gets in again, with the same key, when the hold is released.
func TestHoldIsLifted(t *testing.T) {
	f := Start(t, Bank)
	ws1, ws2 := f.Node("ws1"), f.Node("ws2")
	s2 := ws2.Connect(&nodev1.Hello{})
	f.revoke("ws1", "certificateHold")
	s2.wantRefusal(ws2, ws1, trust.ReasonRevoked)
	if err := ws1.Connect(&nodev1.Hello{}).WantEnd(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a session on hold: %v, wanted Unauthenticated", err)
	}
	if _, err := f.certificates().ReleaseCertificates(f.Context(), &adminv1.ReleaseCertificatesRequest{Selector: ofMachine("ws1")}); err != nil {
		t.Fatal(err)
	}
	s2.wantRefusal(ws2, ws1, 0)
	ws1.Connect(&nodev1.Hello{}).AcceptAssignment()
}

// The directory puts the certificates of a disabled machine on hold, and takes that back, but never what a person did.
func TestDirectoryHoldsAndReleases(t *testing.T) {
	f := Start(t, Bank)
	f.Node("ws1")
	f.Node("ws2")
	f.revoke("ws2", "certificateHold")
	state := func(machine string) string {
		r, err := f.certificates().ListCertificates(f.Context(), &adminv1.ListCertificatesRequest{Selector: ofMachine(machine)})
		if err != nil || len(r.GetCertificates()) != 1 {
			t.Fatalf("certificates of %s: %v, error %v", machine, r, err)
		}
		c := r.GetCertificates()[0]
		return strings.TrimSpace(c.GetStatus() + " " + c.GetRevocation().GetBy())
	}
	disabled := strings.NewReplacer("cn: ws1\n", "cn: ws1\nnsAccountLock: TRUE\n", "cn: ws2\n", "cn: ws2\nnsAccountLock: TRUE\n").Replace(Bank)
	f.WriteDirectory(disabled)
	f.Eventually("the certificate of ws1 is on hold", func() bool { return state("ws1") == "on-hold directory" })
	_, err := f.certificates().ReleaseCertificates(f.Context(), &adminv1.ReleaseCertificatesRequest{Selector: ofMachine("ws1")})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "disabled in the directory") {
		t.Errorf("releasing it: %v, wanted the advice to enable the machine", err)
	}
	f.WriteDirectory(Bank)
	f.Eventually("the certificate of ws1 is good again", func() bool { return state("ws1") == "good" })
	if got := state("ws2"); got != "on-hold root" {
		t.Errorf("the hold that root ordered became %q", got)
	}
}

// A machine that enrols anew with a new key revokes what it had before: whoever has a copy of that is shut out.
func TestEnrollingAnewRevokesTheFormerCertificate(t *testing.T) {
	f := Start(t, Bank)
	former, ws2 := f.Node("ws1"), f.Node("ws2")
	old, s2 := former.Connect(&nodev1.Hello{}), ws2.Connect(&nodev1.Hello{})
	present := f.Node("ws1")
	if err := old.WantEnd(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("the session with the former certificate ended with %v, wanted Unauthenticated", err)
	}
	s2.wantRefusal(ws2, former, trust.ReasonRevoked)
	s := present.Connect(&nodev1.Hello{})
	s.wantRefusal(present, ws2, 0)
	r, err := f.certificates().ListCertificates(f.Context(), &adminv1.ListCertificatesRequest{Selector: ofMachine("ws1"), Status: "revoked"})
	if err != nil || len(r.GetCertificates()) != 1 || r.GetCertificates()[0].GetRevocation().GetReason() != "superseded" {
		t.Errorf("revoked are %v, error %v; wanted the former certificate as superseded", r.GetCertificates(), err)
	}
}

// Renewals that are on their way when their machine is revoked lead nowhere: whatever certificate comes out is revoked.
func TestRenewalsInFlightAreRevoked(t *testing.T) {
	f := Start(t, Bank)
	for _, name := range []string{"ws1", "ws2", "sql1"} {
		machine := f.Node(name)
		var renewing sync.WaitGroup
		var mu sync.Mutex
		var got []*Node
		begin := make(chan struct{})
		for range 4 {
			renewing.Go(func() {
				<-begin
				if n, err := machine.Renew(machine.Identity); err == nil {
					mu.Lock()
					got = append(got, n)
					mu.Unlock()
				}
			})
		}
		close(begin)
		f.revoke(name, "keyCompromise")
		renewing.Wait()
		r, err := f.certificates().ListCertificates(f.Context(), &adminv1.ListCertificatesRequest{Selector: ofMachine(name), Status: "good"})
		if err != nil || len(r.GetCertificates()) != 0 {
			t.Errorf("good after the revocation are %v, error %v", r.GetCertificates(), err)
		}
		for _, n := range got {
			if err := n.Connect(&nodev1.Hello{}).WantEnd(); status.Code(err) != codes.Unauthenticated {
				t.Errorf("a session with a certificate from the same moment: %v, wanted Unauthenticated", err)
			}
		}
	}
}

// A controller whose own certificate is revoked has another one before its nodes hear of that.
func TestRevokedControllerHasAnotherCertificate(t *testing.T) {
	f := Start(t, Bank)
	ws1 := f.Node("ws1")
	s := ws1.Connect(&nodev1.Hello{})
	r, err := f.certificates().ListCertificates(f.Context(), &adminv1.ListCertificatesRequest{Profile: "server"})
	if err != nil || len(r.GetCertificates()) != 1 {
		t.Fatalf("certificates of the controller are %v, error %v", r.GetCertificates(), err)
	}
	serial := r.GetCertificates()[0].GetSerial()
	_, err = f.certificates().RevokeCertificates(f.Context(), &adminv1.RevokeCertificatesRequest{
		Selector: &adminv1.CertificateSelector{By: &adminv1.CertificateSelector_Serial{Serial: serial}}, Reason: "keyCompromise",
	})
	if err != nil {
		t.Fatal(err)
	}
	var set trust.Denials
	for set.Revoked().Len() == 0 {
		set = s.denials()
	}
	conn, err := tls.Dial("tcp", f.Address(), &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, NextProtos: []string{"h2"},
		VerifyConnection: trust.TLSVerifyConnection(func() (trust.Bundle, trust.Options, error) {
			return ws1.Trust, trust.Options{Usages: []trust.Usage{trust.ServerAuth}, HostName: "127.0.0.1", Denied: set}, nil
		}, time.Now),
	})
	if err != nil {
		t.Fatalf("connecting to the controller after the revocation: %v", err)
	}
	defer conn.Close()
	if got := conn.ConnectionState().PeerCertificates[0].SerialNumber.Text(16); got == serial {
		t.Error("the controller still shows the revoked certificate")
	}
	if conn.ConnectionState().DidResume {
		t.Error("the connection was resumed")
	}
}

// A TLS session of before the revocation cannot be taken up again.
func TestNoResumptionSkipsTheCheck(t *testing.T) {
	f := Start(t, Bank)
	ws1 := f.Node("ws1")
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, NextProtos: []string{"h2"}, ClientSessionCache: tls.NewLRUClientSessionCache(4),
		ServerName: "controller.bank.example", Certificates: []tls.Certificate{ws1.Certificate},
	}
	for i := range 2 {
		conn, err := tls.Dial("tcp", f.Address(), config)
		if err != nil {
			t.Fatal(err)
		}
		if conn.ConnectionState().DidResume {
			t.Errorf("connection %d was resumed", i+1)
		}
		// A ticket would come with the first octets of the server.
		conn.SetReadDeadline(time.Now().Add(Patience))
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
		conn.Close()
	}
	// A session that another server of the same kind would have given is not taken either: the call is judged.
	f.revoke("ws1", "unspecified")
	if _, err := ws1.Renew(ws1.Identity); status.Code(err) != codes.Unauthenticated {
		t.Errorf("renewing: %v, wanted Unauthenticated", err)
	}
}

// What would shut the whole fleet out is refused.
func TestAuthoritiesAreNotRevoked(t *testing.T) {
	f := Start(t, Bank)
	ws1 := f.Node("ws1")
	chain, err := trust.ParseChain(ws1.Certificate.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	authorities := append(chain[1:], ws1.Trust.Roots()...)
	for _, c := range authorities {
		key, err := pki.KeyIDOf(c.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		for _, selector := range []*adminv1.CertificateSelector{
			{By: &adminv1.CertificateSelector_Serial{Serial: c.SerialNumber.Text(16)}}, {By: &adminv1.CertificateSelector_Key{Key: key.String()}},
		} {
			_, err := f.certificates().RevokeCertificates(f.Context(), &adminv1.RevokeCertificatesRequest{Selector: selector, Reason: "cACompromise"})
			if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "rotation") {
				t.Errorf("revoking %v: %v, wanted the advice to rotate", c.Subject, err)
			}
		}
	}
	ws1.Connect(&nodev1.Hello{}).AcceptAssignment()
}
