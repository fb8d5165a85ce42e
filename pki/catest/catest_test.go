package catest_test

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// The certificates made for other packages' tests are believed, and are whose they should be.
func TestCertificatesVerify(t *testing.T) {
	ca := catest.New(t)
	id := catest.Identity(t, "sql1.bank.example")
	for _, c := range []struct {
		name  string
		der   [][]byte
		usage trust.Usage
		want  pki.Subject
	}{
		{"machine", ca.Machine(t, id).Certificate, trust.IPsecIKE, id},
		{"controller", ca.Controller(t, []string{"controller.bank.example"}).Certificate, trust.ServerAuth, nil},
		{"administrator", ca.Administrator(t, "alice").Certificate, trust.ClientAuth, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			chain, err := trust.ParseChain(c.der)
			if err != nil {
				t.Fatal(err)
			}
			verdict, err := ca.Bundle().Verify(time.Now(), chain, trust.Options{Usages: []trust.Usage{c.usage}})
			if err != nil {
				t.Fatalf("a certificate of the test CA is refused: %v", err)
			}
			subject, err := pki.SubjectFromCertificate(verdict.Leaf)
			if err != nil {
				t.Fatal(err)
			}
			if c.want != nil && subject != c.want {
				t.Errorf("certificate belongs to %v, want %v", subject, c.want)
			}
			if got := verdict.Leaf.PublicKeyAlgorithm; got != x509.ECDSA {
				t.Errorf("key algorithm %v, want ECDSA", got)
			}
		})
	}
	if n := len(ca.Journal.Entries()); n != 3 {
		t.Errorf("journal has %d entries after 3 certificates", n)
	}
}
