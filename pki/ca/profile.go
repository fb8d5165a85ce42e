package ca

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/revocation"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// Kind is the role that a profile issues for.
type Kind uint8

// The kinds. The zero value is none.
const (
	Machine   Kind = iota + 1 // a node: IKE peer and TLS client of the controller; subject pki.Identity
	Server                    // the controller as a TLS server; subject pki.Controller
	Admin                     // an administrator's TLS client; subject pki.Administrator
	Gateway                   // a machine that others reach networks through, also peers that want to see that in its certificate
	Peer                      // a machine that runs other software than our node, and renews by hand
	Responder                 // signs OCSP responses for the CA (RFC 6960 4.2.2.2); subject pki.Controller
)

// String returns the kind as written in configuration and journal.
func (k Kind) String() string {
	switch k {
	case Machine:
		return "machine"
	case Server:
		return "server"
	case Admin:
		return "admin"
	case Gateway:
		return "gateway"
	case Peer:
		return "peer"
	case Responder:
		return "responder"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

const day = 24 * time.Hour

// limits bound what a profile of a kind may be configured to.
type limits struct {
	shortest, longest, usual time.Duration
	usages                   []trust.Usage
	// more are extended key usages that we ask nobody for, and others ask us for.
	more []asn1.ObjectIdentifier
}

// oidIKEIntermediate is "IP security IKE intermediate", which Windows and macOS look for in the certificate of a gateway
// where there is no serverAuth.
var oidIKEIntermediate = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 8, 2, 2}

func (k Kind) limits() (limits, bool) {
	switch k {
	case Machine:
		// No serverAuth: a machine must not pass for the controller.
		return limits{day, 90 * day, 30 * day, []trust.Usage{trust.ClientAuth, trust.IPsecIKE}, nil}, true
	case Server:
		return limits{day, 90 * day, 30 * day, []trust.Usage{trust.ServerAuth}, nil}, true
	case Admin:
		return limits{time.Hour, 90 * day, 7 * day, []trust.Usage{trust.ClientAuth}, nil}, true
	case Gateway:
		return limits{day, 90 * day, 30 * day, []trust.Usage{trust.ClientAuth, trust.IPsecIKE}, []asn1.ObjectIdentifier{oidIKEIntermediate}}, true
	case Peer:
		// Nobody renews them unasked, so they live longer.
		return limits{day, 397 * day, 90 * day, []trust.Usage{trust.ClientAuth, trust.IPsecIKE}, []asn1.ObjectIdentifier{oidIKEIntermediate}}, true
	case Responder:
		// Nobody asks whether it is revoked, so it is short: RFC 6960 4.2.2.2.1.
		return limits{time.Hour, 7 * day, 2 * day, []trust.Usage{trust.OCSPSigning}, nil}, true
	}
	return limits{}, false
}

// The range of ProfileConfig.Backdate.
const (
	defaultBackdate = 5 * time.Minute
	maxBackdate     = time.Hour
)

// ProfileConfig is a profile as configured. The zero value of each field is safe: the default.
type ProfileConfig struct {
	// Lifetime is how long a certificate is good for: 24 h to 90 days for machines, gateways and servers (default 30
	// days), 1 h to 90 days for administrators (default 7 days), 24 h to 397 days for peers (default 90 days).
	Lifetime time.Duration
	// Backdate is how long before its issuing a certificate is already good, for clocks that are slow: up to 1 h
	// (default 5 min).
	Backdate time.Duration
	// Organization, where not empty, is the O of the subject: up to 64 characters.
	Organization string
	// Pointers are where certificates say that their revocation can be looked up. Those of responders say nothing.
	Pointers revocation.Pointers
}

// Profile is a validated profile. The zero value issues nothing.
type Profile struct {
	kind         Kind
	lifetime     time.Duration
	shortest     time.Duration
	backdate     time.Duration
	organization string
	usages       []trust.Usage
	more         []asn1.ObjectIdentifier
	pointers     revocation.Pointers
}

// maxOrganization is ub-organization-name of RFC 5280 A.1.
const maxOrganization = 64

// NewProfile validates a configuration. Errors wrap ErrProfile and name the field and the range.
func NewProfile(kind Kind, c ProfileConfig) (Profile, error) {
	l, ok := kind.limits()
	if !ok {
		return Profile{}, fmt.Errorf("%v: %w", kind, ErrProfile)
	}
	p := Profile{kind: kind, lifetime: c.Lifetime, shortest: l.shortest, backdate: c.Backdate, organization: c.Organization, usages: l.usages, more: l.more}
	if kind != Responder {
		p.pointers = c.Pointers
	}
	if p.lifetime == 0 {
		p.lifetime = l.usual
	}
	if p.backdate == 0 {
		p.backdate = defaultBackdate
	}
	if p.lifetime < l.shortest || p.lifetime > l.longest {
		return Profile{}, fmt.Errorf("lifetime %v of the %v profile, wanted %v to %v: %w", c.Lifetime, kind, l.shortest, l.longest, ErrProfile)
	}
	if p.backdate < 0 || p.backdate > maxBackdate {
		return Profile{}, fmt.Errorf("backdate %v of the %v profile, wanted 0 to %v: %w", c.Backdate, kind, maxBackdate, ErrProfile)
	}
	if len(p.organization) > maxOrganization || strings.TrimSpace(p.organization) != p.organization || strings.ContainsFunc(p.organization, isControl) {
		return Profile{}, fmt.Errorf("organization %q of the %v profile, wanted at most %d octets without control characters or outer spaces: %w",
			p.organization, kind, maxOrganization, ErrProfile)
	}
	return p, nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// Kind is the role that the profile issues for.
func (p Profile) Kind() Kind { return p.kind }

// Lifetime is how long a certificate of the profile is good for, where the issuer lives long enough.
func (p Profile) Lifetime() time.Duration { return p.lifetime }

// admits reports whether the profile issues to such a subject.
func (p Profile) admits(s pki.Subject) error {
	ok := false
	switch s := s.(type) {
	case pki.Identity:
		ok = (p.kind == Machine || p.kind == Gateway || p.kind == Peer) && !s.IsZero()
	case pki.Controller:
		ok = (p.kind == Server || p.kind == Responder) && len(s.SANs().DNSNames) > 0
	case pki.Administrator:
		ok = p.kind == Admin && s.Account() != ""
	}
	if !ok {
		return fmt.Errorf("the %v profile does not issue to %v: %w", p.kind, s, ErrProfile)
	}
	return nil
}

// window is the validity of a certificate issued now: never longer than the issuer's. A certificate may be shorter
// than the profile's lifetime while the issuer's end is near, so that a fleet is not cut off weeks before that end;
// below the shortest lifetime that the kind allows, issuing stops.
func (p Profile) window(now time.Time, issuer *x509.Certificate) (notBefore, notAfter time.Time, err error) {
	// Certificates count in seconds (RFC 5280 4.1.2.5.1).
	now = now.UTC().Truncate(time.Second)
	refusal := &IssuerValidityError{Now: now, NotBefore: issuer.NotBefore, NotAfter: issuer.NotAfter, Needed: p.shortest}
	if now.Before(issuer.NotBefore) || !now.Before(issuer.NotAfter) {
		return time.Time{}, time.Time{}, refusal
	}
	notBefore, notAfter = now.Add(-p.backdate), now.Add(p.lifetime)
	if notBefore.Before(issuer.NotBefore) {
		notBefore = issuer.NotBefore
	}
	if notAfter.After(issuer.NotAfter) {
		notAfter = issuer.NotAfter
	}
	if notAfter.Sub(now) < p.shortest {
		return time.Time{}, time.Time{}, refusal
	}
	return notBefore, notAfter, nil
}

// extKeyUsages are the profile's usages for a template and for the lint.
func (p Profile) extKeyUsages() (known []x509.ExtKeyUsage, unknown, all []asn1.ObjectIdentifier) {
	for _, u := range p.usages {
		all = append(all, u.OID())
		switch u {
		case trust.ServerAuth:
			known = append(known, x509.ExtKeyUsageServerAuth)
		case trust.ClientAuth:
			known = append(known, x509.ExtKeyUsageClientAuth)
		case trust.OCSPSigning:
			known = append(known, x509.ExtKeyUsageOCSPSigning)
		case trust.IPsecIKE:
			// crypto/x509 has no name for it.
			unknown = append(unknown, u.OID())
		}
	}
	return known, append(unknown, p.more...), append(all, p.more...)
}
