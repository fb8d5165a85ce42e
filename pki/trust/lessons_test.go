package trust_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net"
	"sync/atomic"
	"testing"

	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// Vulnerabilities of other implementations in what they take for a chain of trust.

// CVE-2022-40617 (strongSwan): the addresses of revocation lists in a certificate that nobody vouches for yet were
// visited, so that a stranger made the daemon connect anywhere, and hang. Here nothing is fetched at all.
func TestCVE_2022_40617_NothingIsFetched(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var visits atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			visits.Add(1)
			conn.Close()
		}
	}()
	url := []string{fmt.Sprintf("http://%s/", listener.Addr())}
	inviting := func(c *x509.Certificate) {
		c.CRLDistributionPoints, c.OCSPServer, c.IssuingCertificateURL = url, url, url
	}
	root := issue(t, nil, "root", asCA)
	issuing := issue(t, root, "issuing", func(c *x509.Certificate) { asCA(c); inviting(c) })
	stranger := issue(t, nil, "stranger", func(c *x509.Certificate) { asCA(c); inviting(c) })
	for name, chain := range map[string][]*x509.Certificate{
		"trusted":            chainOf(issue(t, issuing, "sql1.bank.example", inviting), issuing),
		"issuer missing":     chainOf(issue(t, issuing, "sql1.bank.example", inviting)),
		"of a stranger":      chainOf(issue(t, stranger, "sql1.bank.example", inviting), stranger),
		"signed by nobody":   chainOf(issue(t, stranger, "sql1.bank.example", inviting)),
		"stranger himself":   chainOf(stranger),
		"chain that repeats": chainOf(issuing, issuing, issuing),
	} {
		_, err := bundleOf(t, root).Verify(noon, chain, usages(trust.IPsecIKE))
		if (err == nil) != (name == "trusted") {
			t.Errorf("%s: %v", name, err)
		}
	}
	listener.Close()
	<-done
	if n := visits.Load(); n != 0 {
		t.Errorf("%d connections were made to addresses in certificates", n)
	}
}

// directoryNameConstraint is a name constraints extension that is about directory names: permitted (tag 0) or excluded
// (tag 1) is O=Bank.
func directoryNameConstraint(t *testing.T, tag int, critical bool) func(*x509.Certificate) {
	t.Helper()
	name, err := asn1.Marshal(pkix.Name{Organization: []string{"Bank"}}.ToRDNSequence())
	if err != nil {
		t.Fatal(err)
	}
	wrap := func(class, tag int, content []byte) []byte {
		der, err := asn1.Marshal(asn1.RawValue{Class: class, Tag: tag, IsCompound: true, Bytes: content})
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	subtree := wrap(asn1.ClassUniversal, asn1.TagSequence, wrap(asn1.ClassContextSpecific, 4, name))
	value := wrap(asn1.ClassUniversal, asn1.TagSequence, wrap(asn1.ClassContextSpecific, tag, subtree))
	return func(c *x509.Certificate) {
		asCA(c)
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 30}, Critical: critical, Value: value}}
	}
}

// CVE-2026-35331 (strongSwan): name constraints that were not enforced. Constraints that cannot be enforced, those of
// directory names, refuse the path, be they critical or not.
func TestCVE_2026_35331_NameConstraintsAreEnforced(t *testing.T) {
	root := issue(t, nil, "root", asCA)
	for name, c := range map[string]struct {
		issuer func(*x509.Certificate)
		ok     bool
	}{
		"none":                      {asCA, true},
		"permitted domain":          {func(c *x509.Certificate) { asCA(c); c.PermittedDNSDomains = []string{"bank.example"} }, true},
		"other domain permitted":    {func(c *x509.Certificate) { asCA(c); c.PermittedDNSDomains = []string{"other.example"} }, false},
		"the domain excluded":       {func(c *x509.Certificate) { asCA(c); c.ExcludedDNSDomains = []string{"bank.example"} }, false},
		"the name excluded":         {func(c *x509.Certificate) { asCA(c); c.ExcludedDNSDomains = []string{"sql1.bank.example"} }, false},
		"directory name, critical":  {directoryNameConstraint(t, 1, true), false},
		"directory name":            {directoryNameConstraint(t, 1, false), false},
		"directory name, permitted": {directoryNameConstraint(t, 0, false), false},
		"directory name, both":      {directoryNameConstraint(t, 0, true), false},
	} {
		issuing := issue(t, root, "issuing", c.issuer)
		_, err := bundleOf(t, root).Verify(noon, chainOf(issue(t, issuing, "sql1.bank.example", nil), issuing), usages(trust.IPsecIKE))
		if (err == nil) != c.ok {
			t.Errorf("%s: %v, want accepted: %v", name, err, c.ok)
		}
	}
}
