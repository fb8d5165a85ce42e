package controllertest

import (
	"crypto/x509"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// A root that is kept off line says by its list which of its CAs are revoked. OpenSSL checks the whole path of a machine by the
// lists that its certificates name: it accepts it, and refuses it once the CA is revoked. While the fleet trusts that CA no list
// that revokes it is taken; after a rotation it is, and nodes are told so.
func TestOfflineRootRevokesAnIssuingCA(t *testing.T) {
	f := New(t, Bank)
	f.Config.Revocation.Listen, f.Config.Revocation.URL = "127.0.0.1:0", "http://127.0.0.1:7480"
	root := f.OfflineRoot()
	f.Start()
	p := &published{f, "http://" + f.running.controller.RevocationAddress().String()}
	n := p.Node("sql1")
	session := n.Connect(&nodev1.Hello{})
	leaf, issuing, top := p.files(n, "sql1")
	ca, err := x509.ParseCertificate(n.Certificate.Certificate[1])
	if err != nil {
		t.Fatal(err)
	}
	// Before the rotation: afterwards nobody renews it.
	own, _ := p.listOf(n, "issuing.crl")
	verify := func() string {
		t.Helper()
		above, _ := p.listNamed(ca, "root.crl")
		out, _ := openssl(t, "verify", "-x509_strict", "-crl_check_all", "-CRLfile", own, "-CRLfile", above, "-trusted", top, "-untrusted", issuing, leaf)
		return out
	}
	handIn := func(der []byte) (*adminv1.RootList, error) {
		r, err := p.Authorities().ImportRootList(p.Context(), &adminv1.ImportRootListRequest{List: der})
		return r.GetList(), err
	}
	findings := func() []string {
		t.Helper()
		return p.findings("root-list")
	}

	p.fetch(strings.TrimPrefix(ca.CRLDistributionPoints[0], p.Config.Revocation.URL), http.StatusNotFound)
	if found := findings(); len(found) != 1 || !strings.Contains(found[0], "there is no revocation list of it") {
		t.Errorf("without a list verify finds %q", found)
	}
	first := root.List()
	if l, err := handIn(first); err != nil || !l.GetOffline() || len(l.GetRevoked())+len(l.GetLacking()) != 0 {
		t.Fatalf("handing in the first list gave %v, error %v", l, err)
	}
	if out := verify(); !strings.Contains(out, "sql1.pem: OK") {
		t.Fatalf("by both lists openssl says:\n%s", out)
	}
	if found := findings(); len(found) != 0 {
		t.Errorf("with a list verify finds %q", found)
	}

	old := p.authority()
	revoking := root.List(old)
	if _, err := handIn(revoking); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "replace the CA by a rotation") {
		t.Errorf("a list that revokes the CA that issues gave %v, want a refusal that names the way", err)
	}
	if out := verify(); !strings.Contains(out, "sql1.pem: OK") {
		t.Errorf("after a list that was not taken openssl says:\n%s", out)
	}
	p.replaceAuthority(root.Certify)
	if err := session.WantEnd(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("the session with a certificate of the retired CA ended with %v, want Unauthenticated", err)
	}
	if found := findings(); len(found) != 1 || !strings.Contains(found[0], ca.SerialNumber.Text(16)) {
		t.Errorf("before the list says what is revoked verify finds %q", found)
	}
	if l, err := handIn(revoking); err != nil || len(l.GetRevoked()) != 1 || l.GetRevoked()[0] != ca.SerialNumber.Text(16) || len(l.GetLacking()) != 0 {
		t.Errorf("handing in the list after the rotation gave %v, error %v", l, err)
	}
	if _, err := handIn(first); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "not newer") {
		t.Errorf("the list before gave %v, want a refusal", err)
	}
	for _, when := range []string{"after the revocation", "after a restart"} {
		if out := verify(); !strings.Contains(out, "certificate revoked") || !strings.Contains(out, "at 1 depth") {
			t.Errorf("%s openssl says:\n%s", when, out)
		}
		if found := findings(); len(found) != 0 {
			t.Errorf("%s verify finds %q", when, found)
		}
		wantRefusal(t, n.Open(n.Certificate).WantEnd(), codes.Unauthenticated, "revoked")
		p.Node("ws1").Connect(&nodev1.Hello{}).AcceptAssignment()
		if when == "after the revocation" {
			p.Restart()
			p.base = "http://" + p.running.controller.RevocationAddress().String()
		}
	}
}
