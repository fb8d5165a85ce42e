package trust

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/bailiwick-net/bailiwick/pki"
)

// The limits of a bundle. A fleet has one or two roots and a few issuing CAs, twice that while they are rotated.
const (
	MaxBundleCertificates = 64
	// MaxCertificateSize is the largest DER certificate looked at, in octets. An RSA-8192 certificate has 3 KiB.
	MaxCertificateSize = 16 << 10
	// MaxBundleSize is the largest encoded bundle looked at, in octets, PEM or DER.
	MaxBundleSize = 2 << 20
)

// bundleFormat is the version of the DER encoding.
const bundleFormat = 1

// Digest names the content of a bundle or of a set of revocations: the SHA-256 of its DER encoding.
type Digest [sha256.Size]byte

// String returns 64 hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Bundle is what a verifier trusts: roots, and intermediates that help to reach them. It is immutable, and in one
// canonical order, so that the same certificates have the same digest. The zero Bundle trusts nothing.
type Bundle struct {
	revision      uint64
	roots         []*x509.Certificate
	intermediates []*x509.Certificate
	encoded       []byte
	rootPool      *x509.CertPool
}

// NewBundle makes a bundle from at least one root. revision is the writer's number for it, higher for newer. Roots
// must be self-signed CA certificates, intermediates CA certificates that are not; all must have acceptable keys.
// Validity is not looked at here, it is when a chain is verified. Errors wrap ErrBundle.
func NewBundle(revision uint64, roots, intermediates []*x509.Certificate) (Bundle, error) {
	if len(roots) == 0 {
		return Bundle{}, fmt.Errorf("trust bundle without a root would trust nobody: %w", ErrBundle)
	}
	if n := len(roots) + len(intermediates); n > MaxBundleCertificates {
		return Bundle{}, fmt.Errorf("trust bundle of %d certificates, more than %d: %w", n, MaxBundleCertificates, ErrBundle)
	}
	for _, c := range roots {
		if err := checkAuthority(c); err != nil {
			return Bundle{}, err
		}
		if !selfSigned(c) {
			return Bundle{}, fmt.Errorf("root %q is not self-signed: %w", subjectOf(c), ErrBundle)
		}
	}
	for _, c := range intermediates {
		if err := checkAuthority(c); err != nil {
			return Bundle{}, err
		}
		if selfSigned(c) {
			return Bundle{}, fmt.Errorf("intermediate %q is self-signed: list it as a root, if it is to be trusted: %w", subjectOf(c), ErrBundle)
		}
	}
	b := Bundle{revision: revision, roots: canonical(roots), intermediates: canonical(intermediates), rootPool: x509.NewCertPool()}
	for _, c := range b.roots {
		b.rootPool.AddCert(c)
	}
	encoded, err := encodeBundle(b)
	if err != nil {
		return Bundle{}, err
	}
	b.encoded = encoded
	return b, nil
}

// checkAuthority refuses what cannot issue, before a signature of it is looked at.
func checkAuthority(c *x509.Certificate) error {
	if c == nil || len(c.Raw) == 0 {
		return fmt.Errorf("trust bundle with a certificate that was never encoded: %w", ErrBundle)
	}
	if len(c.Raw) > MaxCertificateSize {
		return fmt.Errorf("CA certificate %q of %d octets, more than %d: %w", subjectOf(c), len(c.Raw), MaxCertificateSize, ErrBundle)
	}
	if !c.BasicConstraintsValid || !c.IsCA {
		return fmt.Errorf("certificate %q is not a CA certificate (RFC 5280 4.2.1.9): %w", subjectOf(c), ErrBundle)
	}
	if c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0 {
		return fmt.Errorf("CA certificate %q may not sign certificates (RFC 5280 4.2.1.3): %w", subjectOf(c), ErrBundle)
	}
	if err := pki.CheckKey(c.PublicKey); err != nil {
		return fmt.Errorf("CA certificate %q: %w: %w", subjectOf(c), ErrBundle, err)
	}
	return nil
}

func selfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, c.RawSubject) && c.CheckSignatureFrom(c) == nil
}

// canonical orders by encoding and drops duplicates.
func canonical(certs []*x509.Certificate) []*x509.Certificate {
	out := slices.Clone(certs)
	slices.SortFunc(out, func(a, b *x509.Certificate) int { return bytes.Compare(a.Raw, b.Raw) })
	return slices.CompactFunc(out, func(a, b *x509.Certificate) bool { return bytes.Equal(a.Raw, b.Raw) })
}

// IsZero reports whether b is the zero Bundle, which trusts nothing.
func (b Bundle) IsZero() bool { return len(b.roots) == 0 }

// Revision is the writer's number for the bundle.
func (b Bundle) Revision() uint64 { return b.revision }

// Roots are the roots in canonical order. The certificates are shared: do not change them.
func (b Bundle) Roots() []*x509.Certificate { return slices.Clone(b.roots) }

// Intermediates are the intermediates in canonical order. The certificates are shared: do not change them.
func (b Bundle) Intermediates() []*x509.Certificate { return slices.Clone(b.intermediates) }

// Digest names the bundle: its certificates and its revision.
func (b Bundle) Digest() Digest { return sha256.Sum256(b.encoded) }

// Append appends the DER encoding:
//
//	SEQUENCE {
//	    INTEGER                    1, the format
//	    INTEGER                    revision
//	    SEQUENCE OF Certificate    roots, in ascending order of their encoding, at least one
//	    SEQUENCE OF Certificate    intermediates, likewise
//	}
func (b Bundle) Append(dst []byte) []byte { return append(dst, b.encoded...) }

func encodeBundle(b Bundle) ([]byte, error) {
	var out cryptobyte.Builder
	certificates := func(certs []*x509.Certificate) cryptobyte.BuilderContinuation {
		return func(seq *cryptobyte.Builder) {
			for _, c := range certs {
				seq.AddBytes(c.Raw)
			}
		}
	}
	out.AddASN1(cryptobyte_asn1.SEQUENCE, func(seq *cryptobyte.Builder) {
		seq.AddASN1Uint64(bundleFormat)
		seq.AddASN1Uint64(b.revision)
		seq.AddASN1(cryptobyte_asn1.SEQUENCE, certificates(b.roots))
		seq.AddASN1(cryptobyte_asn1.SEQUENCE, certificates(b.intermediates))
	})
	der, err := out.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encoding trust bundle: %w: %w", ErrBundle, err)
	}
	return der, nil
}

// ParseBundle reads the encoding of Append, and nothing but the canonical encoding. Errors wrap ErrBundle.
func ParseBundle(der []byte) (Bundle, error) {
	if len(der) > MaxBundleSize {
		return Bundle{}, fmt.Errorf("trust bundle of %d octets, more than %d: %w", len(der), MaxBundleSize, ErrBundle)
	}
	revision, rootSeq, intermediateSeq, err := readLists(der, bundleFormat)
	if err != nil {
		return Bundle{}, fmt.Errorf("trust bundle: %w: %w", err, ErrBundle)
	}
	roots, err := readCertificates(rootSeq)
	if err != nil {
		return Bundle{}, err
	}
	intermediates, err := readCertificates(intermediateSeq)
	if err != nil {
		return Bundle{}, err
	}
	b, err := NewBundle(revision, roots, intermediates)
	if err != nil {
		return Bundle{}, err
	}
	if !bytes.Equal(b.encoded, der) {
		return Bundle{}, fmt.Errorf("trust bundle is not in canonical order: %w", ErrBundle)
	}
	return b, nil
}

func readCertificates(seq cryptobyte.String) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for !seq.Empty() {
		var der cryptobyte.String
		if !seq.ReadASN1Element(&der, cryptobyte_asn1.SEQUENCE) {
			return nil, fmt.Errorf("certificate %d of the trust bundle is not DER: %w", len(out)+1, ErrBundle)
		}
		if len(out) == MaxBundleCertificates {
			return nil, fmt.Errorf("trust bundle of more than %d certificates: %w", MaxBundleCertificates, ErrBundle)
		}
		c, err := ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of the trust bundle: %w: %w", len(out)+1, ErrBundle, err)
		}
		out = append(out, c)
	}
	return out, nil
}

const pemCertificate = "CERTIFICATE"

// AppendPEM appends every certificate as a PEM block, roots first: the form that other programs read. The revision is
// not in it.
func (b Bundle) AppendPEM(dst []byte) []byte {
	for _, c := range slices.Concat(b.roots, b.intermediates) {
		dst = append(dst, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: c.Raw})...)
	}
	return dst
}

// ParseBundlePEM reads certificates in PEM and gives the bundle the revision. Self-signed certificates are roots,
// others intermediates. Text between the blocks is ignored; a damaged block, or one of another type, is an error.
// Errors wrap ErrBundle.
func ParseBundlePEM(revision uint64, text []byte) (Bundle, error) {
	if len(text) > MaxBundleSize {
		return Bundle{}, fmt.Errorf("trust bundle of %d octets, more than %d: %w", len(text), MaxBundleSize, ErrBundle)
	}
	// pem.Decode skips a block that it cannot read; counting the beginnings shows that none was.
	announced := bytes.Count(text, []byte("-----BEGIN "))
	if announced > MaxBundleCertificates {
		return Bundle{}, fmt.Errorf("trust bundle of %d PEM blocks, more than %d: %w", announced, MaxBundleCertificates, ErrBundle)
	}
	var roots, intermediates []*x509.Certificate
	read := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		read++
		if block.Type != pemCertificate {
			return Bundle{}, fmt.Errorf("PEM block %d of the trust bundle is %q, wanted %q: %w", read, block.Type, pemCertificate, ErrBundle)
		}
		c, err := ParseCertificate(block.Bytes)
		if err != nil {
			return Bundle{}, fmt.Errorf("PEM block %d of the trust bundle: %w: %w", read, ErrBundle, err)
		}
		if bytes.Equal(c.RawIssuer, c.RawSubject) {
			roots = append(roots, c)
		} else {
			intermediates = append(intermediates, c)
		}
	}
	if read != announced {
		return Bundle{}, fmt.Errorf("trust bundle announces %d PEM blocks, but only %d can be read: %w", announced, read, ErrBundle)
	}
	return NewBundle(revision, roots, intermediates)
}
