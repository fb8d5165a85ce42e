package ikeload

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // RFC 7296 3.7 fixes SHA-1 for CERTREQ; nothing is authenticated by it
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"time"

	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// KeyKind is the kind of a machine's key, and of its authority's.
type KeyKind uint8

// The kinds.
const (
	KeyECDSA KeyKind = iota + 1 // P-256
	KeyRSA                      // 2048 bits
)

func (k KeyKind) generate() (crypto.Signer, error) {
	if k == KeyRSA {
		return rsa.GenerateKey(rand.Reader, 2048)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// Authority issues certificates for a measurement. Its leaves are of the shape that the product's own CA makes: a DNS
// name and the ipsecIKE usage.
type Authority struct {
	kind   KeyKind
	key    crypto.Signer
	cert   *x509.Certificate
	serial int64
}

// Identity is a machine's key and certificate.
type Identity struct {
	Name string
	DER  []byte
	Key  crypto.Signer
}

// NewAuthority makes a self-signed root.
func NewAuthority(kind KeyKind) (*Authority, error) {
	key, err := kind.generate()
	if err != nil {
		return nil, fmt.Errorf("make the key of the authority: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Load CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of the authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the certificate of the authority: %w", err)
	}
	return &Authority{kind: kind, key: key, cert: cert, serial: 1}, nil
}

// Issue makes a machine's key and certificate.
func (a *Authority) Issue(name string) (Identity, error) {
	key, err := a.kind.generate()
	if err != nil {
		return Identity{}, fmt.Errorf("make the key of %s: %w", name, err)
	}
	a.serial++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.serial), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage:           x509.KeyUsageDigitalSignature,
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{trust.IPsecIKE.OID()},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return Identity{}, fmt.Errorf("sign the certificate of %s: %w", name, err)
	}
	return Identity{Name: name, DER: der, Key: key}, nil
}

// DER is the root's certificate.
func (a *Authority) DER() []byte { return a.cert.Raw }

// credentials implement driver.Credentials.
type credentials struct {
	key    crypto.Signer
	bundle trust.Bundle
}

// Signer implements driver.Signer.
func (c credentials) Signer() crypto.Signer { return c.key }

// Trust implements driver.Credentials.
func (c credentials) Trust() trust.Bundle { return c.bundle }

func newCredentials(key crypto.Signer, root []byte) (credentials, []byte, error) {
	if key == nil {
		return credentials{}, nil, nil
	}
	cert, err := x509.ParseCertificate(root)
	if err != nil {
		return credentials{}, nil, fmt.Errorf("read the certificate of the authority: %w", err)
	}
	bundle, err := trust.NewBundle(1, []*x509.Certificate{cert}, nil)
	if err != nil {
		return credentials{}, nil, err
	}
	sum := sha1.Sum(cert.RawSubjectPublicKeyInfo) //nolint:gosec // see the import
	return credentials{key, bundle}, sum[:], nil
}
