package trust

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
)

// MaxChain is the largest number of certificates that a peer may present and that a path may have, root included.
const MaxChain = 5

// Usage is what a certificate is used for: an extended key usage (RFC 5280 4.2.1.12).
type Usage uint8

// The usages. The zero value is no usage.
const (
	ServerAuth  Usage = iota + 1 // TLS server: id-kp-serverAuth
	ClientAuth                   // TLS client: id-kp-clientAuth
	IPsecIKE                     // IKE peer: id-kp-ipsecIKE, 1.3.6.1.5.5.7.3.17 (RFC 4945 5.1.3.12)
	OCSPSigning                  // OCSP responder: id-kp-OCSPSigning
)

// String returns the name of RFC 5280 or RFC 4945.
func (u Usage) String() string {
	switch u {
	case ServerAuth:
		return "serverAuth"
	case ClientAuth:
		return "clientAuth"
	case IPsecIKE:
		return "ipsecIKE"
	case OCSPSigning:
		return "OCSPSigning"
	}
	return fmt.Sprintf("usage %d", uint8(u))
}

// OID is the object identifier of the usage; nil for a value that is no usage.
func (u Usage) OID() asn1.ObjectIdentifier {
	switch u {
	case ServerAuth:
		return asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}
	case ClientAuth:
		return asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}
	case IPsecIKE:
		return asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 17}
	case OCSPSigning:
		return asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 9}
	}
	return nil
}

// Options say what a verdict is asked for.
type Options struct {
	// Usages: the certificate must be good for one of them. At least one is needed.
	Usages []Usage
	// Revoked is the set of revocations to hold the path against; the zero value is the empty set.
	Revoked Revocations
	// Denied is whom the directory does not admit, and more revocations; the zero value denies nobody.
	Denied Denials
	// HostName, where not empty, is the DNS name or IP address under which a TLS server was called.
	HostName string
	// IKEID, where not zero, is the ID payload of the peer. Whoever verifies an IKE peer must set it.
	IKEID pki.IKEID
}

// Verdict is a positive answer.
type Verdict struct {
	// Leaf is the certificate that was verified.
	Leaf *x509.Certificate
	// Path leads from Leaf to a root of the bundle, both included.
	Path []*x509.Certificate
	// NotAfter is when the first certificate of the path expires: the verdict must not be relied on beyond it.
	NotAfter time.Time
}

// ParseCertificate reads one DER certificate after checking its size. The error is an *Error.
func ParseCertificate(der []byte) (*x509.Certificate, error) {
	if len(der) > MaxCertificateSize {
		return nil, refuse(ReasonLimit, nil, nil, "%d octets, more than %d", len(der), MaxCertificateSize)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, refuse(ReasonMalformed, nil, err, "reading %d octets of DER", len(der))
	}
	return cert, nil
}

// ParseChain reads the certificates that a peer presented, the peer's own first, after checking their number and size.
// The error is an *Error.
func ParseChain(ders [][]byte) ([]*x509.Certificate, error) {
	if len(ders) == 0 || len(ders) > MaxChain {
		return nil, refuse(ReasonLimit, nil, nil, "the peer presented %d certificates, wanted 1 to %d", len(ders), MaxChain)
	}
	chain := make([]*x509.Certificate, 0, len(ders))
	for _, der := range ders {
		cert, err := ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		chain = append(chain, cert)
	}
	return chain, nil
}

// Verify decides whether chain[0] is to be believed at the time now. The rest of the chain are certificates that the
// peer sent along; they are not trusted, only used to find a path to a root of the bundle. A refusal is an *Error.
func (b Bundle) Verify(now time.Time, chain []*x509.Certificate, o Options) (Verdict, error) {
	if err := o.check(); err != nil {
		return Verdict{}, err
	}
	if err := checkLimits(chain); err != nil {
		return Verdict{}, err
	}
	if b.IsZero() {
		return Verdict{}, refuse(ReasonUnknownIssuer, chain[0], nil, "there is no trust bundle yet")
	}
	paths, err := b.paths(now, chain)
	if err != nil {
		return Verdict{}, err
	}
	return judge(chain[0], paths, o)
}

// judge makes every check but those of signatures and time, which the paths have passed.
func judge(leaf *x509.Certificate, paths [][]*x509.Certificate, o Options) (Verdict, error) {
	// Every path proves the same signature; one that also passes the other checks is enough.
	var refusal error
	for _, path := range paths {
		err := checkPath(path, o)
		if err == nil {
			if err := checkNames(leaf, o); err != nil {
				return Verdict{}, err
			}
			return Verdict{Leaf: leaf, Path: path, NotAfter: firstExpiry(path)}, nil
		}
		if refusal == nil {
			refusal = err
		}
	}
	return Verdict{}, refusal
}

func (o Options) check() error {
	if len(o.Usages) == 0 {
		return fmt.Errorf("no usage is asked for: %w", ErrOptions)
	}
	for _, u := range o.Usages {
		if u.OID() == nil {
			return fmt.Errorf("%v is asked for: %w", u, ErrOptions)
		}
	}
	return nil
}

// checkLimits bounds the work of everything that follows.
func checkLimits(chain []*x509.Certificate) error {
	if len(chain) == 0 || len(chain) > MaxChain {
		return refuse(ReasonLimit, nil, nil, "the peer presented %d certificates, wanted 1 to %d", len(chain), MaxChain)
	}
	for _, c := range chain {
		if c == nil || len(c.Raw) == 0 {
			return refuse(ReasonMalformed, nil, nil, "the chain has a certificate that was never encoded")
		}
		if len(c.Raw) > MaxCertificateSize {
			return refuse(ReasonLimit, c, nil, "%d octets, more than %d", len(c.Raw), MaxCertificateSize)
		}
		if err := pki.CheckKey(c.PublicKey); err != nil {
			return refuse(ReasonWeakKey, c, err, "checking its key")
		}
	}
	return nil
}

// paths finds the paths from the leaf to the roots, at most MaxChain long.
func (b Bundle) paths(now time.Time, chain []*x509.Certificate) ([][]*x509.Certificate, error) {
	leaf := chain[0]
	pool := x509.NewCertPool()
	for _, c := range slices.Concat(b.intermediates, chain[1:]) {
		pool.AddCert(c)
	}
	find := func(at time.Time) ([][]*x509.Certificate, error) {
		return leaf.Verify(x509.VerifyOptions{
			Roots:         b.rootPool,
			Intermediates: pool,
			CurrentTime:   at,
			// crypto/x509 does not know ipsecIKE, so extended key usage is checked in checkPath for every usage alike.
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		})
	}
	paths, err := find(now)
	if err != nil {
		return nil, explain(now, leaf, err, find)
	}
	short := slices.DeleteFunc(paths, func(p []*x509.Certificate) bool { return len(p) > MaxChain })
	if len(short) == 0 {
		return nil, refuse(ReasonLimit, leaf, nil, "its path to a root has more than %d certificates", MaxChain)
	}
	return short, nil
}

// explain turns crypto/x509's error into a reason. Expiry of an issuer is reported there as an unknown issuer, and
// expiry of a foreign certificate as expiry; so the path is looked for once more at the ends of the leaf's validity,
// one of which its issuers share even if they were renewed since. If there is a path, the clock is the only problem.
func explain(now time.Time, leaf *x509.Certificate, err error, find func(time.Time) ([][]*x509.Certificate, error)) *Error {
	for _, at := range []time.Time{leaf.NotBefore, leaf.NotAfter} {
		timely, again := find(at)
		if again != nil {
			err = again
			continue
		}
		for _, c := range timely[0] {
			if now.Before(c.NotBefore) || now.After(c.NotAfter) {
				return refuseTime(now, c)
			}
		}
	}
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return refuse(ReasonUnknownIssuer, leaf, nil, "its issuer %q does not lead to a root of the trust bundle", clip(leaf.Issuer.String()))
	case errors.As(err, new(x509.UnhandledCriticalExtension)):
		return refuse(ReasonMalformed, leaf, err, "it has a critical extension that is not understood (RFC 5280 4.2)")
	case errors.As(err, &invalid):
		switch invalid.Reason {
		case x509.Expired:
			return refuseTime(now, orLeaf(invalid.Cert, leaf))
		case x509.NotAuthorizedToSign, x509.IncompatibleUsage, x509.TooManyIntermediates,
			x509.CANotAuthorizedForThisName, x509.CANotAuthorizedForExtKeyUsage, x509.NameConstraintsWithoutSANs:
			return refuse(ReasonWrongUsage, orLeaf(invalid.Cert, leaf), err, "its path breaks a constraint")
		}
		return refuse(ReasonMalformed, orLeaf(invalid.Cert, leaf), err, "looking for a path to a root")
	}
	return refuse(ReasonUnknownIssuer, leaf, err, "looking for a path to a root of the trust bundle")
}

func orLeaf(c, leaf *x509.Certificate) *x509.Certificate {
	if c == nil {
		return leaf
	}
	return c
}

// checkPath applies what crypto/x509 leaves to us: keys of certificates from the bundle are known to be good, but
// usages and revocations are not.
func checkPath(path []*x509.Certificate, o Options) error {
	leaf := path[0]
	// A CA's own key may sign certificates; it must not speak as a peer.
	if leaf.IsCA {
		return refuse(ReasonWrongUsage, leaf, nil, "it is a CA certificate")
	}
	if leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return refuse(ReasonWrongUsage, leaf, nil, "its key usage has no digitalSignature (RFC 5280 4.2.1.3)")
	}
	if !slices.ContainsFunc(o.Usages, func(u Usage) bool { return permits(path, u) }) {
		return refuse(ReasonWrongUsage, leaf, nil, "its path is not good for %v; its own extended key usages are %v", o.Usages, usageNames(leaf))
	}
	for _, issuer := range path[1:] {
		if err := checkConstraints(issuer); err != nil {
			return err
		}
	}
	for _, revoked := range []Revocations{o.Revoked, o.Denied.revoked} {
		if err := revoked.CheckPath(path); err != nil {
			return err
		}
	}
	return o.Denied.check(leaf)
}

// permits reports whether the leaf names the usage and no issuer excludes it. A leaf must name it: neither a missing
// extension nor anyExtendedKeyUsage counts. An issuer with the extension restricts what is below it, as in every
// common implementation, although RFC 5280 does not say so; there "any" counts.
func permits(path []*x509.Certificate, u Usage) bool {
	oid := u.OID()
	for i, c := range path {
		oids := extendedUsages(c)
		if i > 0 && (len(oids) == 0 || slices.ContainsFunc(oids, oidAnyUsage.Equal)) {
			continue
		}
		if !slices.ContainsFunc(oids, oid.Equal) {
			return false
		}
	}
	return true
}

// oidAnyUsage is anyExtendedKeyUsage.
var oidAnyUsage = asn1.ObjectIdentifier{2, 5, 29, 37, 0}

// oidExtKeyUsage is id-ce-extKeyUsage.
var oidExtKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37}

// extendedUsages reads the extension itself: crypto/x509 splits it into two lists by what it knows.
func extendedUsages(c *x509.Certificate) []asn1.ObjectIdentifier {
	for _, e := range c.Extensions {
		if !e.Id.Equal(oidExtKeyUsage) {
			continue
		}
		var oids []asn1.ObjectIdentifier
		if rest, err := asn1.Unmarshal(e.Value, &oids); err != nil || len(rest) != 0 {
			// crypto/x509 parsed the certificate, so this does not happen; an OID that permits nothing refuses.
			return []asn1.ObjectIdentifier{{0, 0}}
		}
		return oids
	}
	return nil
}

func usageNames(c *x509.Certificate) []string {
	var out []string
	for _, oid := range extendedUsages(c) {
		name := oid.String()
		for _, u := range []Usage{ServerAuth, ClientAuth, IPsecIKE, OCSPSigning} {
			if u.OID().Equal(oid) {
				name = u.String()
			}
		}
		out = append(out, name)
	}
	return out
}

func checkNames(leaf *x509.Certificate, o Options) error {
	if o.HostName != "" {
		if err := matchHostName(leaf, o.HostName); err != nil {
			return err
		}
	}
	if !o.IKEID.IsZero() {
		if err := pki.MatchIKEID(leaf, o.IKEID.Type, o.IKEID.Data); err != nil {
			return refuse(ReasonNameMismatch, leaf, err, "the peer calls itself by a name that is not the certificate's")
		}
	}
	return nil
}

// matchHostName is strict where crypto/x509 is not: no wildcard matches, and nothing is guessed.
func matchHostName(leaf *x509.Certificate, host string) error {
	if address, err := netip.ParseAddr(host); err == nil {
		want := address.Unmap().AsSlice()
		for _, ip := range leaf.IPAddresses {
			if bytes.Equal(ip, want) {
				return nil
			}
		}
		return refuse(ReasonNameMismatch, leaf, nil, "the server was called by the address %v, the certificate has %v", address, leaf.IPAddresses)
	}
	if err := pki.MatchIKEID(leaf, pki.IDFQDN, []byte(host)); err != nil {
		return refuse(ReasonNameMismatch, leaf, nil, "the server was called by the name %q, the certificate has %q", clip(host), leaf.DNSNames)
	}
	return nil
}

func firstExpiry(path []*x509.Certificate) time.Time {
	first := path[0].NotAfter
	for _, c := range path[1:] {
		if c.NotAfter.Before(first) {
			first = c.NotAfter
		}
	}
	return first
}

func clip(s string) string {
	const most = 120
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
