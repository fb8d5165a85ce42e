package pki

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// scheme is the URI scheme of the identity URIs.
const scheme = "bailiwick"

// The first path segment of an identity URI: the role that the holder plays.
const (
	roleMachine       = "machine"
	roleController    = "controller"
	roleAdministrator = "administrator"
)

// Subject is whoever a certificate of the fleet can be issued to: an [Identity] (a machine), a [Controller] or an
// [Administrator], and nothing else.
type Subject interface {
	// CommonName is what the subject's CN repeats for people.
	CommonName() string
	// SANs are the subject alternative names, all of them.
	SANs() SANs
	// String names the subject in logs and errors.
	String() string

	subject()
}

// Identity is a machine: the directory object that it is, and the DNS name that it has. Comparable with ==.
type Identity struct {
	trustDomain string
	uuid        UUID
	dnsName     string
}

// NewIdentity makes the identity of a machine. trustDomain and dnsName are DNS names in any case; the UUID must not be
// zero. Errors wrap ErrName.
func NewIdentity(trustDomain string, uuid UUID, dnsName string) (Identity, error) {
	domain, err := ParseDNSName(trustDomain)
	if err != nil {
		return Identity{}, fmt.Errorf("trust domain: %w", err)
	}
	if uuid.IsZero() {
		return Identity{}, fmt.Errorf("machine %q has the nil UUID: %w", clip(dnsName), ErrName)
	}
	name, err := ParseDNSName(dnsName)
	if err != nil {
		return Identity{}, fmt.Errorf("machine %v: %w", uuid, err)
	}
	return Identity{domain, uuid, name}, nil
}

// TrustDomain is the directory root as a DNS name, in lower case.
func (id Identity) TrustDomain() string { return id.trustDomain }

// UUID is the directory object's UUID: what stays the same when the machine is renamed or moved.
func (id Identity) UUID() UUID { return id.uuid }

// DNSName is the machine's DNS name, in lower case.
func (id Identity) DNSName() string { return id.dnsName }

// IsZero reports whether id is the zero value, which names no machine.
func (id Identity) IsZero() bool { return id == Identity{} }

// URI is the machine's identity URI.
func (id Identity) URI() string {
	return identityURI(id.trustDomain, roleMachine, id.uuid.String())
}

// maxCommonName is ub-common-name of RFC 5280 A.1.
const maxCommonName = 64

// CommonName is the DNS name, or the UUID where the DNS name is too long for a common name.
func (id Identity) CommonName() string {
	if len(id.dnsName) > maxCommonName {
		return id.uuid.String()
	}
	return id.dnsName
}

// SANs are the machine's DNS name and identity URI.
func (id Identity) SANs() SANs {
	return SANs{DNSNames: []string{id.dnsName}, URI: id.URI()}
}

// IKEID is the ID payload under which the machine authenticates: ID_FQDN, its DNS name.
func (id Identity) IKEID() IKEID {
	return IKEID{Type: IDFQDN, Data: []byte(id.dnsName)}
}

// String returns "sql1.bank.example (<uuid>)".
func (id Identity) String() string { return id.dnsName + " (" + id.uuid.String() + ")" }

func (Identity) subject() {}

// Controller is the controller as a TLS server: the names and addresses under which nodes and administrators reach it.
type Controller struct {
	trustDomain string
	dnsNames    []string
	addresses   []netip.Addr
}

// maxControllerNames bounds the names and the addresses, each, of one controller certificate.
const maxControllerNames = 32

// NewController makes the subject of a controller certificate. The first DNS name is its name in the identity URI; at
// least one is needed. Duplicates are dropped. Errors wrap ErrName.
func NewController(trustDomain string, dnsNames []string, addresses []netip.Addr) (Controller, error) {
	domain, err := ParseDNSName(trustDomain)
	if err != nil {
		return Controller{}, fmt.Errorf("trust domain: %w", err)
	}
	if len(dnsNames) == 0 || len(dnsNames) > maxControllerNames || len(addresses) > maxControllerNames {
		return Controller{}, fmt.Errorf("controller has %d DNS names and %d addresses, wanted 1 to %d names and at most %d addresses: %w",
			len(dnsNames), len(addresses), maxControllerNames, maxControllerNames, ErrName)
	}
	c := Controller{trustDomain: domain}
	for _, s := range dnsNames {
		name, err := ParseDNSName(s)
		if err != nil {
			return Controller{}, fmt.Errorf("controller: %w", err)
		}
		if !slices.Contains(c.dnsNames, name) {
			c.dnsNames = append(c.dnsNames, name)
		}
	}
	for _, a := range addresses {
		if err := checkAddress(a); err != nil {
			return Controller{}, fmt.Errorf("controller: %w", err)
		}
		if !slices.Contains(c.addresses, a) {
			c.addresses = append(c.addresses, a)
		}
	}
	return c, nil
}

// TrustDomain is the directory root as a DNS name, in lower case.
func (c Controller) TrustDomain() string { return c.trustDomain }

// URI is the controller's identity URI.
func (c Controller) URI() string {
	return identityURI(c.trustDomain, roleController, c.name())
}

// CommonName is the first DNS name, or its first label where that is too long for a common name.
func (c Controller) CommonName() string {
	if name := c.name(); len(name) <= maxCommonName {
		return name
	}
	label, _, _ := strings.Cut(c.name(), ".")
	return label
}

func (c Controller) name() string {
	if len(c.dnsNames) == 0 {
		return ""
	}
	return c.dnsNames[0]
}

// SANs are the DNS names, the addresses and the identity URI.
func (c Controller) SANs() SANs {
	return SANs{DNSNames: slices.Clone(c.dnsNames), Addresses: slices.Clone(c.addresses), URI: c.URI()}
}

// String returns "controller <name>".
func (c Controller) String() string { return roleController + " " + c.name() }

// Equal reports whether both are the same names and addresses in the same order.
func (c Controller) Equal(other Controller) bool {
	return c.trustDomain == other.trustDomain && slices.Equal(c.dnsNames, other.dnsNames) && slices.Equal(c.addresses, other.addresses)
}

func (Controller) subject() {}

// Administrator is a person who uses the admin API. Comparable with ==.
type Administrator struct {
	trustDomain string
	account     string
}

// NewAdministrator makes the subject of an administrator's certificate. account is 1 to 64 letters, digits and any of
// ". _ - @". Errors wrap ErrName.
func NewAdministrator(trustDomain, account string) (Administrator, error) {
	domain, err := ParseDNSName(trustDomain)
	if err != nil {
		return Administrator{}, fmt.Errorf("trust domain: %w", err)
	}
	if err := parseAccount(account); err != nil {
		return Administrator{}, err
	}
	return Administrator{domain, account}, nil
}

// TrustDomain is the directory root as a DNS name, in lower case.
func (a Administrator) TrustDomain() string { return a.trustDomain }

// Account is the administrator's name.
func (a Administrator) Account() string { return a.account }

// URI is the administrator's identity URI.
func (a Administrator) URI() string {
	return identityURI(a.trustDomain, roleAdministrator, a.account)
}

// CommonName is the account.
func (a Administrator) CommonName() string { return a.account }

// SANs are the identity URI alone.
func (a Administrator) SANs() SANs { return SANs{URI: a.URI()} }

// String returns "administrator <account>".
func (a Administrator) String() string { return roleAdministrator + " " + a.account }

func (Administrator) subject() {}

func identityURI(trustDomain, role, name string) string {
	return scheme + "://" + trustDomain + "/" + role + "/" + name
}

// SubjectFromCertificate reads whose certificate it is. It does not say whether the certificate is to be believed:
// verify it first (pki/trust). The names must be exactly those of one subject in canonical form, nothing besides.
// Errors wrap ErrIdentity.
func SubjectFromCertificate(cert *x509.Certificate) (Subject, error) {
	if cert == nil {
		return nil, fmt.Errorf("no certificate: %w", ErrIdentity)
	}
	sans, err := SANsFromExtensions(cert.Extensions)
	if err != nil {
		return nil, fmt.Errorf("certificate of %q: %w: %w", clip(cert.Subject.String()), ErrIdentity, err)
	}
	subject, err := SubjectFromSANs(sans)
	if err != nil {
		return nil, fmt.Errorf("certificate of %q: %w", clip(cert.Subject.String()), err)
	}
	return subject, nil
}

// IdentityFromCertificate reads which machine a certificate belongs to, as SubjectFromCertificate does, and refuses a
// certificate of another role.
func IdentityFromCertificate(cert *x509.Certificate) (Identity, error) {
	subject, err := SubjectFromCertificate(cert)
	if err != nil {
		return Identity{}, err
	}
	id, ok := subject.(Identity)
	if !ok {
		return Identity{}, fmt.Errorf("certificate belongs to %v, not to a machine: %w", subject, ErrIdentity)
	}
	return id, nil
}

// SubjectFromSANs reads whose names they are. Errors wrap ErrIdentity.
func SubjectFromSANs(sans SANs) (Subject, error) {
	domain, role, name, err := splitURI(sans.URI)
	if err != nil {
		return nil, err
	}
	var subject Subject
	switch role {
	case roleMachine:
		uuid, parseErr := ParseUUID(name)
		if parseErr != nil {
			return nil, fmt.Errorf("identity URI %q: %w: %w", clip(sans.URI), ErrIdentity, parseErr)
		}
		if len(sans.DNSNames) != 1 || len(sans.Addresses) != 0 {
			return nil, fmt.Errorf("machine %v has %d DNS names and %d addresses, wanted one DNS name and no address: %w",
				uuid, len(sans.DNSNames), len(sans.Addresses), ErrIdentity)
		}
		subject, err = NewIdentity(domain, uuid, sans.DNSNames[0])
	case roleController:
		subject, err = NewController(domain, sans.DNSNames, sans.Addresses)
	case roleAdministrator:
		subject, err = NewAdministrator(domain, name)
	default:
		return nil, fmt.Errorf("identity URI %q has the role %q, wanted %q, %q or %q: %w",
			clip(sans.URI), clip(role), roleMachine, roleController, roleAdministrator, ErrIdentity)
	}
	if err != nil {
		return nil, fmt.Errorf("identity URI %q: %w: %w", clip(sans.URI), ErrIdentity, err)
	}
	// One identity has one spelling, so that no list of names can be got around by writing it differently.
	if !subject.SANs().Equal(sans) {
		return nil, fmt.Errorf("names %v are not the canonical names of %v, which are %v: %w", sans, subject, subject.SANs(), ErrIdentity)
	}
	return subject, nil
}

func splitURI(uri string) (domain, role, name string, err error) {
	rest, ok := strings.CutPrefix(uri, scheme+"://")
	if !ok {
		return "", "", "", fmt.Errorf("identity URI %q does not start with %q: %w", clip(uri), scheme+"://", ErrIdentity)
	}
	parts := strings.Split(rest, "/")
	if len(parts) != 3 {
		return "", "", "", fmt.Errorf("identity URI %q is not %s://<trust domain>/<role>/<name>: %w", clip(uri), scheme, ErrIdentity)
	}
	return parts[0], parts[1], parts[2], nil
}
