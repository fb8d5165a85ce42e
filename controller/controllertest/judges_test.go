package controllertest

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ocsp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/slots"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// published is a fleet with lists and OCSP, and files for openssl.
type published struct {
	*Fleet
	base string
}

// publish starts a fleet whose certificates name the listener for lists and OCSP.
func publish(t *testing.T, parts int) *published {
	t.Helper()
	f := New(t, Bank)
	f.Config.Revocation.Listen, f.Config.Revocation.Parts = "127.0.0.1:0", parts
	f.Config.Revocation.URL = "http://127.0.0.1:7480"
	f.Start()
	return &published{f, "http://" + f.running.controller.RevocationAddress().String()}
}

func (p *published) write(name string, blocks ...*pem.Block) string {
	p.t.Helper()
	var text bytes.Buffer
	for _, b := range blocks {
		if err := pem.Encode(&text, b); err != nil {
			p.t.Fatal(err)
		}
	}
	path := filepath.Join(p.Dir, name)
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return path
}

func certificateBlock(der []byte) *pem.Block { return &pem.Block{Type: "CERTIFICATE", Bytes: der} }

// files writes a node's certificate, and the CAs above it.
func (p *published) files(n *Node, name string) (leaf, issuer, root string) {
	p.t.Helper()
	return p.write(name+".pem", certificateBlock(n.Certificate.Certificate[0])),
		p.write("issuing.pem", certificateBlock(n.Certificate.Certificate[1])),
		p.write("root.pem", certificateBlock(n.Trust.Roots()[0].Raw))
}

// fetch gets what is at a path.
func (p *published) fetch(path string, want int) ([]byte, http.Header) {
	p.t.Helper()
	request, err := http.NewRequestWithContext(p.Context(), http.MethodGet, p.base+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		p.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != want {
		p.t.Fatalf("%s: status %d, error %v, %q; wanted %d", path, response.StatusCode, err, body, want)
	}
	return body, response.Header
}

// openssl runs it and returns all that it says.
func openssl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "openssl", args...).CombinedOutput()
	return string(out), err
}

// listOf fetches the list that a node's certificate names.
func (p *published) listOf(n *Node, name string) (string, *x509.RevocationList) {
	p.t.Helper()
	return p.listNamed(n.Certificate.Leaf, name)
}

// listNamed fetches the list that a certificate names.
func (p *published) listNamed(c *x509.Certificate, name string) (string, *x509.RevocationList) {
	p.t.Helper()
	points := c.CRLDistributionPoints
	if len(points) != 1 {
		p.t.Fatalf("the certificate names the lists %q, wanted one", points)
	}
	der, header := p.fetch(strings.TrimPrefix(points[0], p.Config.Revocation.URL), http.StatusOK)
	if got := header.Get("Content-Type"); got != "application/pkix-crl" {
		p.t.Errorf("the list is of the type %q", got)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.write(name, &pem.Block{Type: "X509 CRL", Bytes: der}), list
}

// OpenSSL, told to be strict, accepts certificates by our list and refuses those that are revoked, whole or in parts.
func TestOpenSSLJudgesTheLists(t *testing.T) {
	for name, parts := range map[string]int{"whole": 1, "in parts": 16} {
		t.Run(name, func(t *testing.T) {
			p := publish(t, parts)
			ws1, ws2 := p.Node("ws1"), p.Node("ws2")
			verify := func(n *Node, name string) (string, uint64) {
				t.Helper()
				leaf, issuing, root := p.files(n, name)
				crl, list := p.listOf(n, name+".crl")
				out, _ := openssl(t, "verify", "-x509_strict", "-crl_check", "-CRLfile", crl, "-trusted", root, "-untrusted", issuing, leaf)
				return out, list.Number.Uint64()
			}
			out, first := verify(ws1, "ws1")
			if !strings.Contains(out, "ws1.pem: OK") {
				t.Fatalf("before the revocation openssl says:\n%s", out)
			}
			p.revoke("ws1", "keyCompromise")
			out, second := verify(ws1, "ws1")
			if !strings.Contains(out, "certificate revoked") {
				t.Errorf("after the revocation openssl says:\n%s", out)
			}
			if second <= first {
				t.Errorf("the list after the revocation has the number %d, the one before %d", second, first)
			}
			if out, _ = verify(ws2, "ws2"); !strings.Contains(out, "ws2.pem: OK") {
				t.Errorf("of the machine that is not revoked openssl says:\n%s", out)
			}
			_, list := p.listOf(ws1, "ws1.crl")
			if len(list.RevokedCertificateEntries) != 1 || list.RevokedCertificateEntries[0].ReasonCode != 1 || len(list.AuthorityKeyId) == 0 || !list.NextUpdate.After(list.ThisUpdate) {
				t.Errorf("the list is %+v", list)
			}
			// A hold is on the list, and off it when it is released.
			p.revoke("ws2", "certificateHold")
			if out, _ = verify(ws2, "ws2"); !strings.Contains(out, "certificate revoked") {
				t.Errorf("of the machine on hold openssl says:\n%s", out)
			}
			if _, err := p.certificates().ReleaseCertificates(p.Context(), &adminv1.ReleaseCertificatesRequest{Selector: ofMachine("ws2")}); err != nil {
				t.Fatal(err)
			}
			if out, _ = verify(ws2, "ws2"); !strings.Contains(out, "ws2.pem: OK") {
				t.Errorf("of the machine that was released openssl says:\n%s", out)
			}
			// Numbers grow over a restart.
			p.Config.Revocation.Listen = strings.TrimPrefix(p.base, "http://")
			_, before := p.listOf(ws1, "ws1.crl")
			p.Restart()
			if _, after := p.listOf(ws1, "ws1.crl"); after.Number.Cmp(before.Number) <= 0 {
				t.Errorf("after a restart the list has the number %v, before %v", after.Number, before.Number)
			}
			p.fetch("/crl/0123456789abcdef.crl", http.StatusNotFound)
			p.fetch("/crl/../secrets", http.StatusNotFound)
			p.fetch("/", http.StatusNotFound)
		})
	}
}

// OpenSSL asks for the standing of certificates, verifies what it hears down to the delegation of the responder, and hears
// good, revoked and unknown, with the nonce that it sent.
func TestOpenSSLAsksTheResponder(t *testing.T) {
	p := publish(t, 1)
	ws1, ws2 := p.Node("ws1"), p.Node("ws2")
	leaf1, issuing, root := p.files(ws1, "ws1")
	leaf2, _, _ := p.files(ws2, "ws2")
	if got := ws1.Certificate.Leaf.OCSPServer; len(got) != 1 || got[0] != p.Config.Revocation.URL+"/ocsp" {
		t.Errorf("the certificate names the responders %q", got)
	}
	// The responder's certificate comes with the response; that it may speak for the CA is for openssl to find out.
	ask := func(args ...string) string {
		t.Helper()
		out, err := openssl(t, append([]string{"ocsp", "-url", p.base + "/ocsp", "-issuer", issuing, "-CAfile", root, "-verify_other", issuing, "-timeout", "20"}, args...)...)
		if err != nil || !strings.Contains(out, "Response verify OK") {
			t.Errorf("openssl ocsp %q: %v\n%s", args, err, out)
		}
		return out
	}
	if out := ask("-cert", leaf1); !strings.Contains(out, "ws1.pem: good") || strings.Contains(out, "no nonce") {
		t.Errorf("before the revocation:\n%s", out)
	}
	p.revoke("ws1", "superseded")
	if out := ask("-sha256", "-cert", leaf1, "-cert", leaf2); !strings.Contains(out, "ws1.pem: revoked") || !strings.Contains(out, "Reason: superseded") || !strings.Contains(out, "ws2.pem: good") {
		t.Errorf("after the revocation:\n%s", out)
	}
	if out := ask("-serial", "0x1234567890abcdef1234567890"); !strings.Contains(out, ": unknown") {
		t.Errorf("of a certificate that was never issued:\n%s", out)
	}
	if out := ask("-no_nonce", "-cert", leaf2); !strings.Contains(out, "ws2.pem: good") {
		t.Errorf("without a nonce:\n%s", out)
	}
	// Not its CA: it does not speak for the root.
	if out, err := openssl(t, "ocsp", "-url", p.base+"/ocsp", "-issuer", root, "-CAfile", root, "-cert", issuing); !strings.Contains(out, "unauthorized") {
		t.Errorf("for a certificate of the root: %v\n%s", err, out)
	}
	// The same over GET, and what is no request.
	issuer, err := x509.ParseCertificate(ws1.Certificate.Certificate[1])
	if err != nil {
		t.Fatal(err)
	}
	request, err := ocsp.CreateRequest(ws1.Certificate.Leaf, issuer, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, header := p.fetch("/ocsp/"+strings.ReplaceAll(base64.StdEncoding.EncodeToString(request), "/", "%2F"), http.StatusOK)
	parsed, err := ocsp.ParseResponseForCert(answer, ws1.Certificate.Leaf, issuer)
	if err != nil || parsed.Status != ocsp.Revoked || parsed.RevocationReason != ocsp.Superseded || !parsed.NextUpdate.After(parsed.ThisUpdate) {
		t.Errorf("over GET: %+v, error %v", parsed, err)
	}
	if got := header.Get("Cache-Control"); !strings.Contains(got, "max-age=") {
		t.Errorf("an answer without a nonce has the Cache-Control %q", got)
	}
	for _, text := range []string{"!", "AAAA", base64.StdEncoding.EncodeToString(request[:len(request)-1])} {
		answer, _ := p.fetch("/ocsp/"+strings.ReplaceAll(text, "/", "%2F"), http.StatusOK)
		if _, err := ocsp.ParseResponse(answer, nil); err == nil || !strings.Contains(err.Error(), "malformed") {
			t.Errorf("the request %q: %v, wanted malformed", text, err)
		}
	}
}

// An issuing CA is replaced while its root stays. Retired, it leads to the root nowhere any more: the controller refuses whoever
// shows its certificate beside his own, nodes are told so, and so does the root's list to OpenSSL, also after a restart.
func TestRetiredIssuingCAIsRevokedByItsRoot(t *testing.T) {
	p := publish(t, 1)
	n := p.Node("sql1")
	session := n.Connect(&nodev1.Hello{})
	leaf, issuing, root := p.files(n, "sql1")
	// The list of the CA itself ends with it; a day later nobody has one that is good.
	own, _ := p.listOf(n, "issuing.crl")
	ca, err := x509.ParseCertificate(n.Certificate.Certificate[1])
	if err != nil {
		t.Fatal(err)
	}
	verify := func() string {
		t.Helper()
		above, _ := p.listNamed(ca, "root.crl")
		out, _ := openssl(t, "verify", "-x509_strict", "-crl_check_all", "-CRLfile", own, "-CRLfile", above, "-trusted", root, "-untrusted", issuing, leaf)
		return out
	}
	if out := verify(); !strings.Contains(out, "sql1.pem: OK") {
		t.Fatalf("before the retirement openssl says:\n%s", out)
	}
	p.replaceAuthority(nil)
	if err := session.WantEnd(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("the session with a certificate of the retired CA ended with %v, want Unauthenticated", err)
	}
	for _, when := range []string{"after the retirement", "after a restart"} {
		wantRefusal(t, n.Open(n.Certificate).WantEnd(), codes.Unauthenticated, "revoked")
		if out := verify(); !strings.Contains(out, "certificate revoked") || !strings.Contains(out, "at 1 depth") {
			t.Errorf("%s openssl says:\n%s", when, out)
		}
		// Another machine, of the CA that issues now, is not concerned.
		p.Node("ws1").Connect(&nodev1.Hello{}).AcceptAssignment()
		if when == "after the retirement" {
			p.Restart()
			p.base = "http://" + p.running.controller.RevocationAddress().String()
		}
	}
}

// Below a new root, its issuing CA is known under the root before as well, by a bridge that who trusts that alone can go. When the
// CA is retired, or given up before it issued, the bridge leads nowhere any more.
func TestBridgeToTheRootBefore(t *testing.T) {
	p := publish(t, 1)
	n := p.Node("sql1")
	_, _, former := p.files(n, "sql1")
	first := n.Trust.Roots()[0]
	known := map[string]bool{}
	for _, c := range p.authorities() {
		known[string(c.Raw)] = true
	}
	// prepare makes a root and an issuing CA, and returns the bridge.
	prepare := func() *x509.Certificate {
		t.Helper()
		if _, err := p.Authorities().PrepareAuthority(p.Context(), &adminv1.PrepareAuthorityRequest{Root: true}); err != nil {
			t.Fatal(err)
		}
		for _, c := range p.authorities() {
			if !known[string(c.Raw)] && bytes.Equal(c.RawIssuer, first.RawSubject) {
				known[string(c.Raw)] = true
				return c
			}
		}
		t.Fatal("nothing new is below the former root")
		return nil
	}
	retire := func(c *x509.Certificate) {
		t.Helper()
		key, err := pki.KeyIDOf(c.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Authorities().RetireAuthority(p.Context(), &adminv1.RetireAuthorityRequest{Id: slots.IDOf(key), Emergency: true}); err != nil {
			t.Fatal(err)
		}
	}
	wantRevoked := func(bridge *x509.Certificate) {
		t.Helper()
		list, _ := p.listNamed(bridge, "former.crl")
		out, _ := openssl(t, "verify", "-x509_strict", "-crl_check", "-CRLfile", list, "-trusted", former, p.write("bridge.pem", certificateBlock(bridge.Raw)))
		if !strings.Contains(out, "certificate revoked") {
			t.Errorf("of the bridge of a retired CA openssl says:\n%s", out)
		}
	}
	givenUp := prepare()
	retire(givenUp)
	wantRevoked(givenUp)

	bridge := prepare()
	activate := func() {
		t.Helper()
		if _, err := p.Authorities().ActivateAuthority(p.Context(), &adminv1.ActivateAuthorityRequest{Emergency: true}); err != nil {
			t.Fatal(err)
		}
	}
	activate()
	leaf := p.write("ws1.pem", certificateBlock(p.Node("ws1").Certificate.Certificate[0]))
	list, _ := p.listNamed(bridge, "former.crl")
	out, _ := openssl(t, "verify", "-x509_strict", "-trusted", former, "-untrusted", p.write("bridge.pem", certificateBlock(bridge.Raw)), leaf)
	if !strings.Contains(out, "ws1.pem: OK") {
		t.Errorf("of a machine below the new root openssl, which trusts the former one alone, says:\n%s", out)
	}
	if out, _ := openssl(t, "verify", "-x509_strict", "-crl_check", "-CRLfile", list, "-trusted", former, filepath.Join(p.Dir, "bridge.pem")); !strings.Contains(out, "bridge.pem: OK") {
		t.Errorf("of the bridge of the CA that issues openssl says:\n%s", out)
	}
	if _, err := p.Authorities().PrepareAuthority(p.Context(), &adminv1.PrepareAuthorityRequest{}); err != nil {
		t.Fatal(err)
	}
	activate()
	retire(bridge)
	wantRevoked(bridge)
}

// authorities are the roots and issuing CAs that the fleet trusts.
func (p *published) authorities() []*x509.Certificate {
	p.t.Helper()
	r, err := p.Enrollments().GetEnrollmentAuthority(p.Context(), &adminv1.GetEnrollmentAuthorityRequest{})
	if err != nil {
		p.t.Fatal(err)
	}
	bundle, err := trust.ParseBundlePEM(0, r.GetCa())
	if err != nil {
		p.t.Fatal(err)
	}
	return append(bundle.Roots(), bundle.Intermediates()...)
}
