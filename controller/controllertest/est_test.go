package controllertest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/smallstep/pkcs7"

	"github.com/bailiwick-net/bailiwick/pki"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// estFleet is a fleet with an EST listener, and a folder with its CA in PEM.
type estFleet struct {
	*Fleet
	dir string
}

func startEST(t *testing.T, requests bool) estFleet {
	t.Helper()
	f := estFleet{New(t, Bank), t.TempDir()}
	f.Config.EST.Listen = "127.0.0.1:0"
	f.Config.Enrollment.Requests = requests
	f.Start()
	authority, err := f.Enrollments().GetEnrollmentAuthority(f.Context(), &adminv1.GetEnrollmentAuthorityRequest{})
	if err != nil {
		t.Fatal(err)
	}
	f.write("ca.pem", authority.GetCa())
	// pki takes one certificate from a file.
	root, _ := pem.Decode(authority.GetCa())
	f.write("root.pem", pem.EncodeToMemory(root))
	return f
}

func (f estFleet) path(name string) string { return filepath.Join(f.dir, name) }

func (f estFleet) write(name string, content []byte) {
	f.t.Helper()
	if err := os.WriteFile(f.path(name), content, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f estFleet) url(operation string) string {
	return "https://" + f.running.controller.ESTAddress().String() + "/.well-known/est/" + operation
}

// run runs a program in the folder and returns what it said.
func (f estFleet) run(stdin []byte, program string, args ...string) ([]byte, error) {
	f.t.Helper()
	cmd := exec.CommandContext(f.Context(), program, args...)
	cmd.Dir, cmd.Stdin = f.dir, bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, stderr.Bytes())
	}
	return out, nil
}

func (f estFleet) must(stdin []byte, program string, args ...string) []byte {
	f.t.Helper()
	out, err := f.run(stdin, program, args...)
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

// curl posts a request, in base64, and returns body, status and headers.
func (f estFleet) curl(operation string, der []byte, args ...string) (body []byte, status, headers string) {
	f.t.Helper()
	f.write("body.b64", []byte(base64.StdEncoding.EncodeToString(der)))
	kind := "application/pkcs10"
	if i := slices.Index(args, "--type"); i >= 0 {
		kind, args = args[i+1], slices.Delete(slices.Clone(args), i, i+2)
	}
	args = append([]string{
		"-sS", "--cacert", "ca.pem", "-D", "headers", "-o", "body", "-w", "%{http_code}",
		"-H", "Content-Type: " + kind, "--data-binary", "@body.b64",
	}, args...)
	status = string(f.must(nil, "curl", append(args, f.url(operation))...))
	body, err := os.ReadFile(f.path("body"))
	if err != nil {
		f.t.Fatal(err)
	}
	text, err := os.ReadFile(f.path("headers"))
	if err != nil {
		f.t.Fatal(err)
	}
	return body, status, string(text)
}

// openssl makes a key and a request for a name, the way that gateways do, and returns the request in DER.
func (f estFleet) openssl(name string, extra ...string) []byte {
	f.t.Helper()
	f.must(nil, "openssl", append([]string{
		"req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", name + ".key",
		"-subj", "/CN=" + name, "-outform", "DER", "-out", name + ".csr",
	}, extra...)...)
	der, err := os.ReadFile(f.path(name + ".csr"))
	if err != nil {
		f.t.Fatal(err)
	}
	return der
}

// wantCertificate has openssl read the answer and verify the certificate strictly; it returns the certificate in PEM.
func (f estFleet) wantCertificate(body []byte, name string) *x509.Certificate {
	f.t.Helper()
	message := f.must(body, "openssl", "base64", "-d", "-A")
	text := f.must(message, "openssl", "pkcs7", "-inform", "DER", "-print_certs")
	f.write(name+".pem", text)
	f.must(nil, "openssl", "verify", "-x509_strict", "-CAfile", "ca.pem", "-verify_hostname", name, name+".pem")
	block, _ := pem.Decode(text)
	if block == nil {
		f.t.Fatalf("openssl printed %q", text)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := pki.IdentityFromCertificate(leaf); err != nil {
		f.t.Errorf("the certificate is no machine's: %v", err)
	}
	return leaf
}

func TestESTWithCurlAndOpenSSL(t *testing.T) {
	f := startEST(t, false)
	// The CA certificates, for somebody who knows nothing yet but the root.
	cas := f.must(nil, "curl", "-sS", "--fail", "--cacert", "root.pem", f.url("cacerts"))
	printed := f.must(f.must(cas, "openssl", "base64", "-d", "-A"), "openssl", "pkcs7", "-inform", "DER", "-print_certs")
	if n := bytes.Count(printed, []byte("BEGIN CERTIFICATE")); n != 2 {
		t.Errorf("openssl found %d CA certificates, want root and issuing CA", n)
	}
	attributes := f.must(f.must(nil, "curl", "-sS", "--fail", "--cacert", "root.pem", f.url("csrattrs")), "openssl", "base64", "-d", "-A")
	if text := f.must(attributes, "openssl", "asn1parse", "-inform", "DER"); !bytes.Contains(text, []byte("prime256v1")) || !bytes.Contains(text, []byte("ecdsa-with-SHA256")) {
		t.Errorf("the attributes read %s", text)
	}

	csr := f.openssl("sql1.bank.example")
	token := f.Token("sql1")
	body, status, headers := f.curl("simpleenroll", csr)
	if status != "401" || !strings.Contains(headers, "Www-Authenticate: Basic") {
		t.Errorf("without anything to show: %s, %s%s", status, headers, body)
	}
	body, status, headers = f.curl("simpleenroll", csr, "-u", ":"+token)
	if status != "200" || !strings.Contains(headers, "Content-Type: application/pkcs7-mime; smime-type=certs-only") {
		t.Fatalf("with a token: %s, %s%s", status, headers, body)
	}
	first := f.wantCertificate(body, "sql1.bank.example")

	// The certificate renews itself, with another key.
	second := f.openssl("sql1.bank.example", "-keyout", "second.key")
	body, status, _ = f.curl("simplereenroll", second, "--cert", "sql1.bank.example.pem", "--key", "sql1.bank.example.key")
	if status != "200" {
		t.Fatalf("renewal: %s, %s", status, body)
	}
	if renewed := f.wantCertificate(body, "sql1.bank.example"); renewed.SerialNumber.Cmp(first.SerialNumber) == 0 {
		t.Error("the renewed certificate is the same")
	}
	body, status, _ = f.curl("simplereenroll", second)
	if status != "401" {
		t.Errorf("renewal without a certificate: %s, %s", status, body)
	}
}

func TestESTWithStrongSwan(t *testing.T) {
	f := startEST(t, false)
	base := strings.TrimSuffix(f.url(""), "/.well-known/est/")
	f.must(nil, "pki", "--estca", "--url", base, "--cacert", "root.pem", "--caout", "fetched", "--outform", "pem")
	if found, err := filepath.Glob(f.path("fetched*")); err != nil || len(found) == 0 {
		t.Errorf("pki --estca wrote %v, error %v", found, err)
	}
	key := f.must(nil, "pki", "--gen", "--type", "ecdsa", "--size", "256", "--outform", "pem")
	f.write("gw.key", key)
	csr := f.must(nil, "pki", "--req", "--type", "priv", "--in", "gw.key", "--dn", "CN=files1.bank.example", "--san", "files1.bank.example", "--outform", "der")
	f.write("gw.csr", csr)
	out := f.must(nil, "pki", "--est", "--url", base, "--in", "gw.csr", "--cacert", "ca.pem", "--cacert", "root.pem", "--userpass", "files1:"+f.Token("files1"), "--outform", "pem")
	f.write("gw.pem", out)
	f.must(nil, "openssl", "verify", "-x509_strict", "-CAfile", "ca.pem", "-verify_hostname", "files1.bank.example", "gw.pem")
	// And again, by the certificate that it has.
	out = f.must(nil, "pki", "--est", "--url", base, "--in", "gw.csr", "--cacert", "ca.pem", "--cacert", "root.pem", "--cert", "gw.pem", "--key", "gw.key", "--outform", "pem")
	f.write("gw2.pem", out)
	f.must(nil, "openssl", "verify", "-x509_strict", "-CAfile", "ca.pem", "gw2.pem")
}

func TestESTRequestWaits(t *testing.T) {
	f := startEST(t, true)
	csr := f.openssl("ws1.bank.example")
	body, status, headers := f.curl("simpleenroll", csr)
	if status != "202" || !strings.Contains(headers, "Retry-After: 10") {
		t.Fatalf("asking without a token: %s, %s%s", status, headers, body)
	}
	listed, err := f.Enrollments().ListEnrollmentRequests(f.Context(), &adminv1.ListEnrollmentRequestsRequest{})
	if err != nil || len(listed.GetRequests()) != 1 || listed.GetRequests()[0].GetVia() != "est" {
		t.Fatalf("requests are %v, error %v", listed, err)
	}
	if _, err := f.Enrollments().ApproveEnrollmentRequest(f.Context(), &adminv1.ApproveEnrollmentRequestRequest{Request: listed.GetRequests()[0].GetKey()}); err != nil {
		t.Fatal(err)
	}
	if body, status, _ = f.curl("simpleenroll", csr); status != "200" {
		t.Fatalf("after the approval: %s, %s", status, body)
	}
	f.wantCertificate(body, "ws1.bank.example")
}

func TestESTRefusals(t *testing.T) {
	f := startEST(t, false)
	token := f.Token("sql1")
	good := f.openssl("sql1.bank.example")
	for name, c := range map[string]struct {
		der  []byte
		args []string
		want string // status; "" for no connection
	}{
		"a token of nobody":         {good, []string{"-u", ":" + token[:len(token)-1]}, "400"},
		"another machine's name":    {f.openssl("ws1.bank.example"), []string{"-u", ":" + token}, "403"},
		"more than names":           {f.openssl("sql1.bank.example", "-addext", "keyUsage=keyCertSign"), []string{"-u", ":" + token}, "400"},
		"no request":                {[]byte("x"), []string{"-u", ":" + token}, "400"},
		"a body of another type":    {good, []string{"-u", ":" + token, "--type", "text/plain"}, "415"},
		"too much":                  {bytes.Repeat([]byte{0x30}, 20<<10), []string{"-u", ":" + token}, "413"},
		"an operation that is none": {good, []string{"-u", ":" + token, "--operation", "serverkeygen"}, "404"},
		"the wrong method":          {good, []string{"-u", ":" + token, "-X", "PUT"}, "405"},
		"TLS 1.1":                   {good, []string{"-u", ":" + token, "--tls-max", "1.1", "--tlsv1.1"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			operation := "simpleenroll"
			if i := slices.Index(c.args, "--operation"); i >= 0 {
				operation, c.args = c.args[i+1], c.args[:i]
			}
			if c.want == "" {
				if out, err := f.run(nil, "curl", append(c.args, "-sS", "--cacert", "ca.pem", f.url(operation))...); err == nil {
					t.Errorf("it connected: %s", out)
				}
				return
			}
			if body, status, _ := f.curl(operation, c.der, c.args...); status != c.want {
				t.Errorf("got %s, want %s: %s", status, c.want, body)
			}
		})
	}
	// None of them used the token up.
	if body, status, _ := f.curl("simpleenroll", good, "-u", ":"+token); status != "200" {
		t.Errorf("then the token gave %s: %s", status, body)
	}
}

// bound makes a request with a challenge password.
func bound(t *testing.T, key *ecdsa.PrivateKey, dnsName, password string) []byte {
	t.Helper()
	// crypto/x509 writes attributes of the form that extensions have only; a challenge password is a bare string.
	der, err := x509.CreateCertificateRequest(nil, &x509.CertificateRequest{Subject: pkix.Name{CommonName: dnsName}}, key)
	if err != nil {
		t.Fatal(err)
	}
	request, info := readPKCS10(t, der)
	attribute, err := asn1.Marshal(struct {
		Type   asn1.ObjectIdentifier
		Values []string `asn1:"set"`
	}{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}, []string{password}})
	if err != nil {
		t.Fatal(err)
	}
	info.Attributes = []asn1.RawValue{{FullBytes: attribute}}
	return request.write(t, info, key)
}

// A request with the channel binding of its connection is bound to it: sent over another one, it is worth nothing.
func TestESTChannelBinding(t *testing.T) {
	f := startEST(t, false)
	roots := x509.NewCertPool()
	text, err := os.ReadFile(f.path("ca.pem"))
	if err != nil || !roots.AppendCertsFromPEM(text) {
		t.Fatal("no CA certificates", err)
	}
	for version, binding := range map[uint16]func(tls.ConnectionState) ([]byte, error){
		tls.VersionTLS12: func(c tls.ConnectionState) ([]byte, error) { return c.TLSUnique, nil },
		tls.VersionTLS13: func(c tls.ConnectionState) ([]byte, error) {
			return c.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
		},
	} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			var elsewhere []byte
			for _, own := range []bool{false, true} {
				conn, err := tls.Dial("tcp", f.running.controller.ESTAddress().String(), &tls.Config{RootCAs: roots, MinVersion: version, MaxVersion: version})
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				value, err := binding(conn.ConnectionState())
				if err != nil || len(value) == 0 {
					t.Fatalf("binding %x, error %v", value, err)
				}
				stated := value
				if !own {
					// That of another connection.
					other, err := tls.Dial("tcp", f.running.controller.ESTAddress().String(), &tls.Config{RootCAs: roots, MinVersion: version, MaxVersion: version})
					if err != nil {
						t.Fatal(err)
					}
					defer other.Close()
					if stated, err = binding(other.ConnectionState()); err != nil {
						t.Fatal(err)
					}
					elsewhere = stated
				}
				if own && bytes.Equal(value, elsewhere) {
					t.Fatal("two connections have the same binding")
				}
				csr := bound(t, f.Join("").Key, "ws2.bank.example", base64.StdEncoding.EncodeToString(stated))
				r, err := http.NewRequest(http.MethodPost, f.url("simpleenroll"), strings.NewReader(base64.StdEncoding.EncodeToString(csr)))
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Content-Type", "application/pkcs10")
				r.SetBasicAuth("", f.Token("ws2"))
				client := http.Client{Transport: &http.Transport{DialTLS: func(string, string) (net.Conn, error) { return conn, nil }}}
				response, err := client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(response.Body)
				response.Body.Close()
				if err != nil {
					t.Fatal(err)
				}
				want := http.StatusBadRequest
				if own {
					want = http.StatusOK
				}
				if response.StatusCode != want {
					t.Errorf("own binding %v: %d, want %d: %s", own, response.StatusCode, want, body)
				}
				if own {
					der, err := base64.StdEncoding.DecodeString(string(body))
					if err != nil {
						t.Fatal(err)
					}
					if message, err := pkcs7.Parse(der); err != nil || len(message.Certificates) != 1 {
						t.Errorf("the answer is %v, error %v; want one certificate", message, err)
					}
				}
			}
		})
	}
}
