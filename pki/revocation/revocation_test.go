package revocation

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/pki"
)

var epoch = time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)

// authority is a CA and a certificate of it that may sign for it.
func authority(t testing.TB) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "CA"}, NotBefore: epoch, NotAfter: epoch.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCRLSign | x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, SubjectKeyId: []byte{1, 2, 3},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func TestReasons(t *testing.T) {
	for _, name := range Reasons() {
		r, err := ParseReason(strings.ToUpper(name))
		if err != nil || r.String() != name {
			t.Errorf("%q reads %v, error %v", name, r, err)
		}
	}
	for _, text := range []string{"", "removeFromCRL", "boredom", strings.Repeat("x", 1000)} {
		if _, err := ParseReason(text); !errors.Is(err, ErrReason) || len(err.Error()) > 400 {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	if Superseded.BlocksKey() || !KeyCompromise.BlocksKey() || !CertificateHold.BlocksKey() {
		t.Error("only a superseded certificate leaves its key alone")
	}
	if !KeyCompromise.Outlives() || CessationOfOperation.Outlives() {
		t.Error("a compromised key stays blocked, that of a machine that is gone does not")
	}
}

func TestPointersThatCannotBeMeant(t *testing.T) {
	for _, base := range []string{"https://pki.example", "pki.example", "http://", "http://a@pki.example", "http://pki.example/?x", "http://pki.example/#x", "ftp://pki.example", "http://" + strings.Repeat("a", 300)} {
		if _, err := NewPointers(base, 1); !errors.Is(err, ErrPointers) {
			t.Errorf("%.40q: %v", base, err)
		}
	}
	for _, parts := range []int{-1, 0, 3, 512} {
		if _, err := NewPointers("http://pki.example", parts); !errors.Is(err, ErrPointers) {
			t.Errorf("%d parts: %v", parts, err)
		}
	}
	p, err := NewPointers("", 1)
	if err != nil || !p.IsZero() || p.OCSP() != "" || p.CRL(pki.KeyID{1}, big.NewInt(1)) != "" {
		t.Errorf("no base makes %+v, error %v", p, err)
	}
}

// Every certificate is in exactly one part, whose path leads back to it.
func TestScopes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var issuer pki.KeyID
		copy(issuer[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "issuer"))
		serial := new(big.Int).SetBytes(rapid.SliceOfN(rapid.Byte(), 1, 20).Draw(t, "serial"))
		parts := 1 << rapid.IntRange(0, 8).Draw(t, "parts")
		p, err := NewPointers("http://pki.bank.example:7480/x/", parts)
		if err != nil {
			t.Fatal(err)
		}
		path, ok := strings.CutPrefix(p.CRL(issuer, serial), "http://pki.bank.example:7480/x")
		scope, parsed := ParsePath(path)
		if !ok || !parsed || !scope.Contains(issuer, serial) || scope.Of != parts {
			t.Fatalf("%s leads to %+v", path, scope)
		}
		in := 0
		for i := range parts {
			if (Scope{IssuerName(issuer), i, parts}).Contains(issuer, serial) {
				in++
			}
		}
		if in != 1 {
			t.Fatalf("the certificate is in %d parts", in)
		}
	})
	for _, path := range []string{"", "/crl/", "/crl/x.crl", "/crl/0123456789abcdef", "/crl/0123456789abcdef-0-of-1.crl", "/crl/0123456789abcdef-4-of-4.crl", "/crl/0123456789abcdef-00-of-04.crl",
		"/crl/0123456789abcdef-1-of-3.crl", "/crl/0123456789abcdef-1-of-512.crl", "/crl/0123456789abcdef--1-of-4.crl", "/crl/0123456789abcdefx.crl", "/x/0123456789abcdef.crl", "/crl/0123456789abcdef1-of-4.crl"} {
		if s, ok := ParsePath(path); ok {
			t.Errorf("%q is taken for %+v", path, s)
		}
	}
}

func TestLists(t *testing.T) {
	cert, key := authority(t)
	list := List{
		Number: 9, ThisUpdate: epoch.Add(time.Millisecond), NextUpdate: epoch.Add(time.Hour), DistributionPoint: "http://pki.example/crl/x.crl",
		Entries: []Entry{{big.NewInt(900), epoch, Unspecified}, {big.NewInt(3), epoch, CertificateHold}},
	}
	template, err := list.Template()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, cert, key)
	if err != nil {
		t.Fatal(err)
	}
	got, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := got.CheckSignatureFrom(cert); err != nil {
		t.Error(err)
	}
	e := got.RevokedCertificateEntries
	if got.Number.Int64() != 9 || !bytes.Equal(got.AuthorityKeyId, cert.SubjectKeyId) || !got.NextUpdate.Equal(list.NextUpdate) ||
		len(e) != 2 || e[0].SerialNumber.Int64() != 3 || e[0].ReasonCode != 6 || e[1].ReasonCode != 0 || len(e[1].Extensions) != 0 {
		t.Errorf("the list is %+v", got)
	}
	critical := false
	for _, x := range got.Extensions {
		critical = critical || x.Id.Equal(oidIssuingDistributionPoint) && x.Critical && bytes.Contains(x.Value, []byte(list.DistributionPoint))
	}
	if !critical {
		t.Error("a part does not say that it is one")
	}
	for name, wrong := range map[string]List{
		"without a number": {ThisUpdate: epoch, NextUpdate: epoch.Add(1)}, "over before it begins": {Number: 1, ThisUpdate: epoch, NextUpdate: epoch},
		"no serial number": {Number: 1, ThisUpdate: epoch, NextUpdate: epoch.Add(1), Entries: []Entry{{}}},
	} {
		if _, err := wrong.Template(); !errors.Is(err, ErrList) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// requestFor makes a request with the library that is the judge here, and adds a nonce.
func requestFor(t testing.TB, issuer *x509.Certificate, nonce []byte) []byte {
	t.Helper()
	der, err := ocsp.CreateRequest(&x509.Certificate{SerialNumber: big.NewInt(0x1234)}, issuer, nil)
	if err != nil {
		t.Fatal(err)
	}
	if nonce == nil {
		return der
	}
	wrap := func(tag byte, content []byte) []byte {
		if len(content) > 127 {
			return append([]byte{tag, 0x81, byte(len(content))}, content...)
		}
		return append([]byte{tag, byte(len(content))}, content...)
	}
	extension := wrap(0x30, append([]byte{0x06, 0x09, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 2}, wrap(0x04, wrap(0x04, nonce))...))
	list := der[4:] // what is inside request and tbsRequest
	return wrap(0x30, wrap(0x30, append(bytes.Clone(list), wrap(0xa2, wrap(0x30, extension))...)))
}

func TestResponses(t *testing.T) {
	cert, key := authority(t)
	nonce := []byte("0123456789abcdef")
	request, err := ParseRequest(requestFor(t, cert, nonce))
	if err != nil {
		t.Fatal(err)
	}
	id := request.Certificates[0]
	if len(request.Certificates) != 1 || id.Serial.Int64() != 0x1234 || !id.Matches(cert) || !bytes.Equal(request.Nonce, nonce) {
		t.Fatalf("the request reads %+v", request)
	}
	if other, _ := authority(t); id.Matches(other) {
		t.Error("a certificate of one CA is taken for one of another with the same name")
	}
	for _, state := range []State{Good, Revoked, Unknown} {
		der, err := Response{
			Answers: []Single{{ID: id, State: state, At: epoch, Reason: KeyCompromise}}, Nonce: nonce,
			ProducedAt: epoch.Add(2 * time.Hour), ThisUpdate: epoch.Add(2 * time.Hour), NextUpdate: epoch.Add(3 * time.Hour),
		}.Sign(rand.Reader, cert, key)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ocsp.ParseResponse(der, cert)
		if err != nil {
			t.Fatal(err)
		}
		want := map[State]int{Good: ocsp.Good, Revoked: ocsp.Revoked, Unknown: ocsp.Unknown}[state]
		if got.Status != want || got.SerialNumber.Int64() != 0x1234 || !got.NextUpdate.Equal(epoch.Add(3*time.Hour)) || !bytes.Contains(der, nonce) {
			t.Errorf("the response is %+v, wanted the status %d", got, want)
		}
		if state == Revoked && (got.RevocationReason != ocsp.KeyCompromise || !got.RevokedAt.Equal(epoch)) {
			t.Errorf("revoked at %v for %d", got.RevokedAt, got.RevocationReason)
		}
	}
	if _, err := (Response{}).Sign(rand.Reader, cert, key); !errors.Is(err, ErrResponse) {
		t.Errorf("a response without an answer: %v", err)
	}
	for _, f := range []Failure{MalformedRequest, InternalError, TryLater, Unauthorized} {
		var got ocsp.ResponseError
		if _, err := ocsp.ParseResponse(f.Append(nil), nil); !errors.As(err, &got) || byte(got.Status) != byte(f) {
			t.Errorf("failure %d reads %v", f, err)
		}
	}
}

func TestInvalidRequests(t *testing.T) {
	cert, _ := authority(t)
	good := requestFor(t, cert, []byte("nonce"))
	if _, err := ParseRequest(good); err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if _, err := ParseRequest(good[:n]); !errors.Is(err, ErrRequest) {
			t.Errorf("the first %d of %d octets: %v", n, len(good), err)
		}
	}
	for name, der := range map[string][]byte{
		"more than one": append(bytes.Clone(good), good...), "too long": make([]byte, MaxRequest+1),
		"empty nonce":    requestFor(t, cert, []byte{}),
		"no certificate": {0x30, 4, 0x30, 2, 0x30, 0},
	} {
		if _, err := ParseRequest(der); !errors.Is(err, ErrRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzRequest(f *testing.F) {
	cert, _ := authority(f)
	f.Add(requestFor(f, cert, nil))
	f.Add(requestFor(f, cert, []byte("0123456789abcdef")))
	f.Fuzz(func(t *testing.T, der []byte) {
		r, err := ParseRequest(der)
		if err != nil {
			if !errors.Is(err, ErrRequest) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		if len(r.Certificates) == 0 || len(r.Certificates) > MaxRequests || len(r.Nonce) > MaxNonce {
			t.Fatalf("accepted: %s", fmt.Sprintf("%+v", r))
		}
		for _, c := range r.Certificates {
			c.Matches(cert)
		}
	})
}

// FuzzPath: one list has one path.
func FuzzPath(f *testing.F) {
	f.Add("/crl/0123456789abcdef.crl")
	f.Add("/crl/0123456789abcdef-3-of-16.crl")
	f.Add("/crl/0123456789abcdef-03-of-16.crl")
	f.Fuzz(func(t *testing.T, path string) {
		s, ok := ParsePath(path)
		if ok && (s.Path() != path || s.Of < 1 || s.Of > MaxParts || s.Part < 0 || s.Part >= s.Of) {
			t.Fatalf("%q is read as %+v", path, s)
		}
	})
}
