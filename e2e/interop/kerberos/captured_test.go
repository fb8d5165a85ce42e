package kerberos

import (
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab/krb5"
	nodekerberos "github.com/bailiwick-net/bailiwick/node/kerberos"
	"github.com/bailiwick-net/bailiwick/pki/kerberos"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// A proof that somebody captured, or that a machine was made to give, is worth nothing but what it was made for.
func TestCapturedProofIsWorthless(t *testing.T) {
	s := newCentre(t, krb5.Options{})
	account, err := nodekerberos.Open(nodekerberos.Settings{Keytab: s.machine("sql1"), Config: s.config})
	if err != nil {
		t.Fatal(err)
	}
	victim, thief, own, other := s.line(), s.line(), s.request("sql1.bank.example"), s.request("sql1.bank.example")
	ticket, err := account.Ticket(t.Context(), victim.service)
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
