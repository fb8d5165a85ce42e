package controllertest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/pki/enroll"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// raw makes a request out of a template, whatever the fleet thinks of it.
func raw(t *testing.T, template x509.CertificateRequest, key any) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// weakRSA is a key that nobody should make any more.
func weakRSA(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0")
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestAbuse is what a stranger, a thief and a machine in wrong hands try, all against one controller: what each of them is
// told, and that nothing was issued.
//
// Elsewhere are: a token that is revoked, expired, forged, for a machine that is gone or disabled (enrollment_test.go); a node
// that asks for another's bundle or secrets (TestNodeGetsNoBundleButItsOwn, TestSecretsReachOnlyWhoNeedsThem); the queue that
// strangers fill (controller/enrollment: TestRequestsAreBounded); what was superseded (TestEnrolmentSupersedes there).
func TestAbuse(t *testing.T) {
	f := New(t, Bank)
	f.Config.Enrollment.Requests = true
	f.Start()
	victim, thief := f.Node("sql1"), f.Node("ws1")
	stolen := f.Node("ws2")
	token := f.Token("files1")
	name := []string{"files1.bank.example"}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weak := weakRSA(t)
	good := raw(t, x509.CertificateRequest{DNSNames: name}, ec)
	broken := append([]byte(nil), good...)
	broken[len(broken)-1] ^= 1
	// To verify with a modulus of 16,384 bits would cost long.
	huge := &rsa.PublicKey{N: new(big.Int).SetBit(new(big.Int).Lsh(big.NewInt(1), 16383), 0, 1), E: 65537}
	spki, err := x509.MarshalPKIXPublicKey(huge)
	if err != nil {
		t.Fatal(err)
	}
	request, info := readPKCS10(t, good)
	info.Key = asn1.RawValue{FullBytes: spki}
	withHuge := request.write(t, info, nil)
	if _, err := f.certificates().RevokeCertificates(f.Context(), &adminv1.RevokeCertificatesRequest{Selector: ofMachine("ws1"), Reason: "keyCompromise"}); err != nil {
		t.Fatal(err)
	}
	before := f.directoryDigest()
	f.WriteDirectory(disabled(Bank, "ws2"))
	f.Eventually("ws2 is disabled", func() bool { return f.directoryDigest() != before })

	enrol := func(csr []byte) func() error {
		return func() error {
			j := f.Join(token)
			j.Request = csr
			_, err := j.Try(f.Context())
			return err
		}
	}
	submit := func(csr []byte) func() error {
		return func() error {
			j := f.Join("")
			j.Request = csr
			_, _, err := j.Submit(f.Context(), "")
			return err
		}
	}
	renew := func(n *Node, csr []byte) func() error {
		return func() error {
			_, err := nodev1.NewEnrollmentServiceClient(n.Dial(n.Certificate)).Renew(f.Context(), &nodev1.RenewRequest{Csr: csr})
			return err
		}
	}
	issued := f.issued()
	for _, c := range []struct {
		what string
		try  func() error
		code codes.Code
		says string
	}{
		{"another machine's DNS name", enrol(raw(t, x509.CertificateRequest{DNSNames: []string{"sql1.bank.example"}}, ec)), codes.PermissionDenied, "another name"},
		{"its own name and another's", enrol(raw(t, x509.CertificateRequest{DNSNames: []string{name[0], "sql1.bank.example"}}, ec)), codes.InvalidArgument, "one DNS name"},
		{"another's name as common name", enrol(raw(t, x509.CertificateRequest{Subject: pkix.Name{CommonName: "sql1.bank.example"}, DNSNames: name}, ec)), codes.InvalidArgument, "common name"},
		{"an address", enrol(raw(t, x509.CertificateRequest{DNSNames: name, IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)}}, ec)), codes.InvalidArgument, "one DNS name"},
		{"a wildcard", enrol(raw(t, x509.CertificateRequest{DNSNames: []string{"*.bank.example"}}, ec)), codes.InvalidArgument, "character"},
		{"a name with a zero octet", enrol(raw(t, x509.CertificateRequest{Subject: pkix.Name{CommonName: "files1.bank.example\x00.evil.example"}}, ec)), codes.InvalidArgument, "invalid certificate request"},
		{"a name with a zero octet among the alternative ones", enrol(raw(t, dnsNames(t, name[0]+"\x00.evil.example"), ec)), codes.InvalidArgument, "character"},
		{"its own name with a letter of another alphabet", enrol(raw(t, dnsNames(t, "fil\u0435s1.bank.example"), ec)), codes.InvalidArgument, ""},
		{"its own name with a letter that folds to a usual one", enrol(raw(t, x509.CertificateRequest{Subject: pkix.Name{CommonName: "files1.ban\u212a.example"}}, ec)), codes.InvalidArgument, "character"},
		{"its own name with a final dot", enrol(raw(t, dnsNames(t, name[0]+"."), ec)), codes.InvalidArgument, "final dot"},
		{"an address as a name", enrol(raw(t, dnsNames(t, "192.0.2.1"), ec)), codes.InvalidArgument, "taken for an address"},
		{"nothing as a name", enrol(raw(t, dnsNames(t, ""), ec)), codes.InvalidArgument, ""},
		{"its own name, a hundred times", enrol(raw(t, dnsNames(t, slices.Repeat(name, 100)...), ec)), codes.InvalidArgument, "more than"},
		{"ten thousand names", enrol(raw(t, dnsNames(t, slices.Repeat(name, 10_000)...), ec)), codes.InvalidArgument, "octets"},
		{"two lists of names", enrol(raw(t, x509.CertificateRequest{ExtraExtensions: slices.Repeat(dnsNames(t, name...).ExtraExtensions, 2)}, ec)), codes.InvalidArgument, ""},
		{"to be a CA", enrol(raw(t, x509.CertificateRequest{DNSNames: name, ExtraExtensions: []pkix.Extension{{Id: []int{2, 5, 29, 19}, Value: []byte{0x30, 3, 1, 1, 0xff}}}}, ec)), codes.InvalidArgument, "names are all"},
		{"an organisation", enrol(raw(t, x509.CertificateRequest{Subject: pkix.Name{Organization: []string{"Bank"}}, DNSNames: name}, ec)), codes.InvalidArgument, "common name alone"},
		{"an RSA key of 1024 bits", enrol(raw(t, x509.CertificateRequest{DNSNames: name}, weak)), codes.InvalidArgument, "1024 bits"},
		{"an RSA key of 16384 bits", enrol(withHuge), codes.InvalidArgument, "16384 bits"},
		{"a key on P-224", enrol(raw(t, x509.CertificateRequest{DNSNames: name}, p224)), codes.InvalidArgument, "curve"},
		{"a signature that is not the key's", enrol(broken), codes.InvalidArgument, "not signed by the key"},
		{"something behind the request", enrol(append(append([]byte(nil), good...), 0)), codes.InvalidArgument, "PKCS #10"},
		{"an indefinite length", enrol(append([]byte{0x30, 0x80}, good[4:]...)), codes.InvalidArgument, "PKCS #10"},
		{"more than any request has", enrol(make([]byte, enroll.MaxRequestSize+1)), codes.InvalidArgument, "octets"},
		{"nothing", enrol([]byte{}), codes.InvalidArgument, "PKCS #10"},

		{"a stranger in nobody's name", submit(raw(t, x509.CertificateRequest{DNSNames: []string{"nobody.bank.example"}}, ec)), codes.PermissionDenied, "no machine of that name"},
		{"a stranger in a disabled machine's name", submit(raw(t, x509.CertificateRequest{DNSNames: []string{"ws2.bank.example"}}, ec)), codes.PermissionDenied, "no machine of that name"},
		{"a stranger with a weak key", submit(raw(t, x509.CertificateRequest{DNSNames: name}, weak)), codes.InvalidArgument, "1024 bits"},

		{"renewal with a revoked certificate", renew(thief, names(t, thief, ec)), codes.Unauthenticated, "revoked"},
		{"renewal in another machine's name", renew(victim, names(t, thief, ec)), codes.PermissionDenied, "another name"},
		{"a machine that was stolen and disabled", func() error {
			// Refused as disabled at once, and a moment later as revoked.
			return renew(stolen, names(t, stolen, ec))()
		}, 0, ""},
		{"a session of the stolen machine", func() error { return stolen.Connect(&nodev1.Hello{}).WantEnd() }, 0, ""},
		{"a session with a revoked certificate", func() error { return thief.Open(thief.Certificate).WantEnd() }, codes.Unauthenticated, "revoked"},
		{"a certificate with somebody else's key", func() error {
			forged := victim.Certificate
			forged.PrivateKey = thief.Certificate.PrivateKey
			return victim.Open(forged).WantEnd()
		}, codes.Unavailable, ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			err := c.try()
			code := status.Code(err)
			if c.code == 0 {
				if code != codes.PermissionDenied && code != codes.Unauthenticated {
					t.Errorf("got %v, want a refusal", err)
				}
				return
			}
			if code != c.code || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %v with %q", err, c.code, c.says)
			}
		})
	}
	if now := f.issued(); now != issued {
		t.Errorf("%d certificates were issued meanwhile", now-issued)
	}
	// And the token is still good for the machine that it is for.
	if err := enrol(good)(); err != nil {
		t.Errorf("then the token gave %v", err)
	}
}

// dnsNames makes a template with names that crypto/x509 would refuse to write.
func dnsNames(t *testing.T, names ...string) x509.CertificateRequest {
	t.Helper()
	var all []asn1.RawValue
	for _, name := range names {
		all = append(all, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(name)})
	}
	value, err := asn1.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return x509.CertificateRequest{ExtraExtensions: []pkix.Extension{{Id: []int{2, 5, 29, 17}, Value: value}}}
}

// names makes the request of a node, with another key.
func names(t *testing.T, n *Node, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := enroll.NewRequest(key, n.Identity)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// issued counts the certificates of machines in the journal.
func (f *Fleet) issued() int {
	f.t.Helper()
	r, err := f.certificates().ListCertificates(f.Context(), &adminv1.ListCertificatesRequest{Profile: "machine", Limit: 5000})
	if err != nil {
		f.t.Fatal(err)
	}
	return len(r.GetCertificates())
}

// pkcs10 and pkcs10Info are CertificationRequest and CertificationRequestInfo (RFC 2986 4), to be changed and written anew.
type (
	pkcs10 struct {
		Info      asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	pkcs10Info struct {
		Version    int
		Subject    asn1.RawValue
		Key        asn1.RawValue
		Attributes []asn1.RawValue `asn1:"tag:0,set"`
	}
)

func readPKCS10(t *testing.T, der []byte) (request pkcs10, info pkcs10Info) {
	t.Helper()
	if _, err := asn1.Unmarshal(der, &request); err != nil {
		t.Fatal(err)
	}
	if _, err := asn1.Unmarshal(request.Info.FullBytes, &info); err != nil {
		t.Fatal(err)
	}
	return request, info
}

// write encodes the request, signed anew where there is a key.
func (r pkcs10) write(t *testing.T, info pkcs10Info, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	tbs, err := asn1.Marshal(info)
	if err != nil {
		t.Fatal(err)
	}
	r.Info = asn1.RawValue{FullBytes: tbs}
	if key != nil {
		digest := sha256.Sum256(tbs)
		signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
		if err != nil {
			t.Fatal(err)
		}
		r.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	}
	out, err := asn1.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A thousand uses of one token at once, each with a key of its own, give one certificate.
func TestOfAThousandUsesOneSucceeds(t *testing.T) {
	f := Start(t, Bank)
	token := f.Token("sql1")
	before := f.issued()
	j := f.Join(token)
	// Some connections, as behind a load balancer; the handshakes are not what this is about.
	var clients []nodev1.EnrollmentServiceClient
	for range 8 {
		client, conn, err := j.enrollment(f.Address())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		clients = append(clients, client)
	}
	const uses = 1000
	requests := make([][]byte, uses)
	for i := range requests {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		requests[i] = raw(t, x509.CertificateRequest{DNSNames: []string{"sql1.bank.example"}}, key)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*Patience)
	defer cancel()
	var won, used, often atomic.Int32
	var wg sync.WaitGroup
	for i, csr := range requests {
		wg.Go(func() {
			_, err := clients[i%len(clients)].Enroll(ctx, &nodev1.EnrollRequest{Token: token, Csr: csr})
			switch status.Code(err) {
			case codes.OK:
				won.Add(1)
			case codes.FailedPrecondition:
				used.Add(1)
			case codes.ResourceExhausted:
				often.Add(1)
			default:
				t.Errorf("use %d got %v", i, err)
			}
		})
	}
	wg.Wait()
	t.Logf("%d won, %d were told that it was used, %d that they ask too often", won.Load(), used.Load(), often.Load())
	if won.Load() != 1 || f.issued() != before+1 {
		t.Errorf("%d of %d uses won, and %d certificates were issued; want one", won.Load(), uses, f.issued()-before)
	}
}

// A client that resumes a TLS session shows a certificate that is not checked again, so no listener lets it.
func TestNoSessionIsResumed(t *testing.T) {
	f := New(t, Bank)
	f.Config.EST.Listen, f.Config.Admin.Listen = "127.0.0.1:0", "127.0.0.1:0"
	f.Start()
	n := f.Node("sql1")
	for name, address := range map[string]string{"nodes": f.Address(), "administrators": f.AdminAddress().String(), "EST": f.running.controller.ESTAddress().String()} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			if name != "EST" && version == tls.VersionTLS12 {
				continue // not spoken there
			}
			config := &tls.Config{
				InsecureSkipVerify: true, MinVersion: version, MaxVersion: version, Certificates: []tls.Certificate{n.Certificate},
				ClientSessionCache: tls.NewLRUClientSessionCache(8), NextProtos: map[string][]string{"nodes": {"h2"}, "administrators": {"h2"}}[name],
			}
			for range 2 {
				conn, err := tls.Dial("tcp", address, config)
				if err != nil {
					t.Fatal(err)
				}
				// A ticket of TLS 1.3 comes after the handshake and before everything else that the server says: its settings
				// where HTTP/2 is spoken, which ask for nothing, and elsewhere its answer.
				if err := conn.SetDeadline(time.Now().Add(Patience)); err != nil {
					t.Fatal(err)
				}
				if name == "EST" {
					if _, err := conn.Write([]byte("GET /.well-known/est/cacerts HTTP/1.1\r\nHost: est\r\n\r\n")); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := conn.Read(make([]byte, 1)); err != nil {
					t.Fatalf("%s, %s: the server says nothing: %v", name, tls.VersionName(version), err)
				}
				if conn.ConnectionState().DidResume {
					t.Errorf("%s, %s: a session was resumed", name, tls.VersionName(version))
				}
				conn.Close()
			}
		}
	}
}

// One machine that holds a right token cannot make the controller work without end.
func TestTokenIsNotShownWithoutEnd(t *testing.T) {
	f := Start(t, Bank)
	token := f.Token("sql1")
	conn, err := grpc.NewClient("passthrough:///"+f.Address(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true})))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := nodev1.NewEnrollmentServiceClient(conn)
	f.Eventually("the token is shown too often", func() bool {
		_, err := client.Identify(f.Context(), &nodev1.IdentifyRequest{Token: token})
		return status.Code(err) == codes.ResourceExhausted
	})
	// Another token of the same machine, from the same address, is not meant.
	if _, err := f.Join(f.Token("sql1")).Try(f.Context()); err != nil {
		t.Errorf("another token: %v", err)
	}
}
