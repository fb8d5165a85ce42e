package enroll

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"

	"github.com/bailiwick-net/bailiwick/pki"
)

// MaxRequestSize is the largest DER request looked at, in octets.
const MaxRequestSize = 8 << 10

// Request is a certificate request (PKCS #10, RFC 2986) whose signature was verified.
type Request struct {
	// PublicKey is the key to be certified; its holder signed the request.
	PublicKey crypto.PublicKey
	// KeyID names PublicKey.
	KeyID pki.KeyID
	// Subject is whose names the request states; nil when it states a DNS name alone.
	Subject pki.Subject
	// DNSName is the only name of a machine that joins and does not know its UUID yet; empty when Subject is set.
	DNSName string
}

// NewRequest makes the request of somebody who knows all of its names, signed with its key. ECDSA and RSA keys of the
// standard library sign deterministically. The key must be one that pki.CheckKey accepts.
func NewRequest(signer crypto.Signer, subject pki.Subject) ([]byte, error) {
	return newRequest(signer, subject.CommonName(), subject.SANs())
}

// NewJoinRequest makes the request of a machine that joins with a token: it states its DNS name, so that a token for
// another machine is noticed, and learns its UUID from the certificate.
func NewJoinRequest(signer crypto.Signer, dnsName string) ([]byte, error) {
	name, err := pki.ParseDNSName(dnsName)
	if err != nil {
		return nil, fmt.Errorf("making a certificate request: %w", err)
	}
	return newRequest(signer, "", pki.SANs{DNSNames: []string{name}})
}

func newRequest(signer crypto.Signer, commonName string, sans pki.SANs) ([]byte, error) {
	if err := pki.CheckKey(signer.Public()); err != nil {
		return nil, fmt.Errorf("making a certificate request: %w", err)
	}
	uris, err := sans.URIs()
	if err != nil {
		return nil, fmt.Errorf("making a certificate request: %w", err)
	}
	template := &x509.CertificateRequest{
		Subject:     pkix.Name{CommonName: commonName},
		DNSNames:    sans.DNSNames,
		IPAddresses: sans.IPAddresses(),
		URIs:        uris,
	}
	// No source of randomness: ECDSA then derives its nonce from the key and the message (RFC 6979).
	der, err := x509.CreateCertificateRequest(nil, template, signer)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate request for %v: %w", sans, err)
	}
	return der, nil
}

// signatureAlgorithms are those that a request may be signed with. crypto/x509 would still accept SHA-1 here.
var signatureAlgorithms = map[x509.SignatureAlgorithm]bool{
	x509.SHA256WithRSA: true, x509.SHA384WithRSA: true, x509.SHA512WithRSA: true,
	x509.SHA256WithRSAPSS: true, x509.SHA384WithRSAPSS: true, x509.SHA512WithRSAPSS: true,
	x509.ECDSAWithSHA256: true, x509.ECDSAWithSHA384: true, x509.ECDSAWithSHA512: true,
	x509.PureEd25519: true,
}

var (
	oidCommonName     = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// ParseRequest reads a request. It checks size, key and algorithm, then the signature, then the names: exactly those
// of one subject, or exactly one DNS name. Errors wrap ErrRequest.
func ParseRequest(der []byte) (Request, error) {
	if len(der) > MaxRequestSize {
		return Request{}, fmt.Errorf("%d octets, more than %d: %w", len(der), MaxRequestSize, ErrRequest)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return Request{}, fmt.Errorf("reading %d octets of PKCS #10: %w: %w", len(der), ErrRequest, err)
	}
	if csr.Version != 0 {
		return Request{}, fmt.Errorf("version %d, wanted 0 (RFC 2986 4.1): %w", csr.Version, ErrRequest)
	}
	if err := pki.CheckKey(csr.PublicKey); err != nil {
		return Request{}, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if !signatureAlgorithms[csr.SignatureAlgorithm] {
		return Request{}, fmt.Errorf("signature algorithm %v is not accepted: %w", csr.SignatureAlgorithm, ErrRequest)
	}
	if err := csr.CheckSignature(); err != nil {
		return Request{}, fmt.Errorf("not signed by the key in it: %w: %w", ErrRequest, err)
	}
	keyID, err := pki.KeyIDOf(csr.PublicKey)
	if err != nil {
		return Request{}, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	r := Request{PublicKey: csr.PublicKey, KeyID: keyID}
	if err := r.readNames(csr); err != nil {
		return Request{}, err
	}
	return r, nil
}

func (r *Request) readNames(csr *x509.CertificateRequest) error {
	for _, e := range csr.Extensions {
		if !e.Id.Equal(oidSubjectAltName) {
			return fmt.Errorf("asks for the extension %v: names are all that a request may ask for: %w", e.Id, ErrRequest)
		}
	}
	sans, err := pki.SANsFromExtensions(csr.Extensions)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRequest, err)
	}
	commonName, err := commonName(csr)
	if err != nil {
		return err
	}
	if sans.URI == "" {
		return r.readDNSName(sans, commonName)
	}
	subject, err := pki.SubjectFromSANs(sans)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if commonName != "" && commonName != subject.CommonName() {
		return fmt.Errorf("common name %q, but the names of %v: %w", commonName, subject, ErrRequest)
	}
	r.Subject = subject
	return nil
}

// readDNSName takes the one name of a joining machine. Where the request has no subject alternative name it is the common
// name, which is where clients that are not ours state it.
func (r *Request) readDNSName(sans pki.SANs, commonName string) error {
	if len(sans.DNSNames) == 0 && len(sans.Addresses) == 0 && commonName != "" {
		sans.DNSNames = []string{commonName}
	}
	if len(sans.DNSNames) != 1 || len(sans.Addresses) != 0 {
		return fmt.Errorf("states the names %v, wanted one DNS name, or the names of one subject: %w", sans, ErrRequest)
	}
	name, err := pki.ParseDNSName(sans.DNSNames[0])
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if commonName != "" && commonName != sans.DNSNames[0] {
		return fmt.Errorf("common name %q, but the DNS name %q: %w", commonName, sans.DNSNames[0], ErrRequest)
	}
	r.DNSName = name
	return nil
}

// commonName allows a subject that is empty or one common name: any other attribute would be asking for something.
func commonName(csr *x509.CertificateRequest) (string, error) {
	switch names := csr.Subject.Names; {
	case len(names) == 0:
		return "", nil
	case len(names) == 1 && names[0].Type.Equal(oidCommonName):
		return csr.Subject.CommonName, nil
	}
	return "", fmt.Errorf("subject %q, wanted none or a common name alone: %w", csr.Subject.String(), ErrRequest)
}

// Match reports whether the request may be answered with a certificate of subject, and gives an error where it states
// somebody else's name. Errors wrap ErrNameMismatch.
func Match(r Request, subject pki.Subject) error {
	if r.Subject != nil {
		if r.Subject.SANs().Equal(subject.SANs()) {
			return nil
		}
		return fmt.Errorf("the request is for %v %v, but its sender may only have a certificate of %v %v: %w",
			r.Subject, r.Subject.SANs(), subject, subject.SANs(), ErrNameMismatch)
	}
	machine, ok := subject.(pki.Identity)
	if !ok {
		return fmt.Errorf("the request is for the machine %q, but its sender is %v: %w", r.DNSName, subject, ErrNameMismatch)
	}
	if r.DNSName != machine.DNSName() {
		return fmt.Errorf("the request is for the machine %q, but its sender may only have a certificate of %v: %w",
			r.DNSName, machine, ErrNameMismatch)
	}
	return nil
}
