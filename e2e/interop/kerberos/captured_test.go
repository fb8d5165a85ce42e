package kerberos

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/bailiwick-net/bailiwick/e2e/lab/krb5"
	nodekerberos "github.com/bailiwick-net/bailiwick/node/kerberos"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	"github.com/bailiwick-net/bailiwick/pki/kerberos"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// line is one TLS connection to the controller.
type line struct {
	client   nodev1.EnrollmentServiceClient
	service  kerberos.Principal
	exporter [kerberos.ExporterSize]byte
}

func (s *site) line() line {
	s.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+s.fleet.Address(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, // whoever captures proofs does not care
	})))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	l := line{client: nodev1.NewEnrollmentServiceClient(conn)}
	var p peer.Peer
	answer, err := l.client.ServicePrincipal(s.t.Context(), &nodev1.ServicePrincipalRequest{}, grpc.Peer(&p))
	if err != nil {
		s.t.Fatal(err)
	}
	if l.service, err = kerberos.ParsePrincipal(answer.GetPrincipal()); err != nil {
		s.t.Fatal(err)
	}
	info := p.AuthInfo.(credentials.TLSInfo)
	if l.exporter, err = kerberos.Exporter(&info.State); err != nil {
		s.t.Fatal(err)
	}
	return l
}

func (s *site) request() []byte {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	request, err := enroll.NewJoinRequest(key, "sql1.bank.example")
	if err != nil {
		s.t.Fatal(err)
	}
	return request
}

// A proof that somebody captured, or that a machine was made to give, is worth nothing but what it was made for.
func TestCapturedProofIsWorthless(t *testing.T) {
	s := newSite(t, krb5.Options{})
	account, err := nodekerberos.Open(nodekerberos.Settings{Keytab: s.machine("sql1"), Config: s.kdc.Config})
	if err != nil {
		t.Fatal(err)
	}
	victim, thief, own, other := s.line(), s.line(), s.request(), s.request()
	ticket, err := account.Ticket(victim.service)
	if err != nil {
		t.Fatal(err)
	}
	proof, err := kerberos.Prove(time.Now(), ticket, victim.exporter, own)
	if err != nil {
		t.Fatal(err)
	}
	const foreign = "not for this request on this connection"
	for _, c := range []struct {
		name    string
		on      line
		request *nodev1.EnrollRequest
		want    string
	}{
		{"another connection", thief, &nodev1.EnrollRequest{Kerberos: proof, Csr: own}, foreign},
		{"another key on another connection", thief, &nodev1.EnrollRequest{Kerberos: proof, Csr: other}, foreign},
		{"another key on the same connection", victim, &nodev1.EnrollRequest{Kerberos: proof, Csr: other}, foreign},
		{"half of it", victim, &nodev1.EnrollRequest{Kerberos: proof[:len(proof)/2], Csr: own}, "no AP-REQ"},
		{"with a token", victim, &nodev1.EnrollRequest{Kerberos: proof, Csr: own, Token: s.fleet.Token("sql1")}, "show one of them"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.on.client.Enroll(t.Context(), c.request)
			s.wantRefusal(err, c.want)
		})
	}
	if _, err := victim.client.Enroll(t.Context(), &nodev1.EnrollRequest{Kerberos: proof, Csr: own}); err != nil {
		t.Errorf("the machine itself: %v", err)
	}
	s.fleet.Restart()
	_, err = s.line().client.Enroll(t.Context(), &nodev1.EnrollRequest{Kerberos: proof, Csr: own})
	s.wantRefusal(err, foreign)
}
