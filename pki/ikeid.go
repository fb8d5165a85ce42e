package pki

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// The ID types of IKE (RFC 7296 3.5; IANA "IKEv2 Identification Payload ID Types") that can be bound to a certificate.
const (
	IDIPv4Addr  byte = 1 // 4 octets; bound to an iPAddress
	IDFQDN      byte = 2 // a DNS name without a final dot; bound to a dNSName
	IDRFC822    byte = 3 // a mail address; bound to an rfc822Name
	IDIPv6Addr  byte = 5 // 16 octets; bound to an iPAddress
	IDDERASN1DN byte = 9 // a DER Name; bound to the whole subject
)

// IKEID is the content of an IDi or IDr payload.
type IKEID struct {
	Type byte   // one of the ID constants, or a foreign value
	Data []byte // the identification data, without the payload header
}

// IsZero reports whether there is no ID.
func (id IKEID) IsZero() bool { return id.Type == 0 && len(id.Data) == 0 }

// String returns the type's RFC name and the data, quoted or in hexadecimal, for people.
func (id IKEID) String() string {
	switch id.Type {
	case IDFQDN, IDRFC822:
		return fmt.Sprintf("%s %q", idTypeName(id.Type), clip(string(id.Data)))
	case IDIPv4Addr, IDIPv6Addr:
		if a, ok := netip.AddrFromSlice(id.Data); ok {
			return idTypeName(id.Type) + " " + a.String()
		}
	}
	return fmt.Sprintf("%s %x", idTypeName(id.Type), id.Data[:min(len(id.Data), 64)])
}

func idTypeName(t byte) string {
	switch t {
	case IDIPv4Addr:
		return "ID_IPV4_ADDR"
	case IDFQDN:
		return "ID_FQDN"
	case IDRFC822:
		return "ID_RFC822_ADDR"
	case IDIPv6Addr:
		return "ID_IPV6_ADDR"
	case IDDERASN1DN:
		return "ID_DER_ASN1_DN"
	}
	return fmt.Sprintf("ID type %d", t)
}

// maxIKEID bounds the identification data looked at; a distinguished name is the longest that is legitimate.
const maxIKEID = 4096

// emptyDN is the DER of a Name without attributes: it would match every certificate with an empty subject.
var emptyDN = []byte{0x30, 0x00}

// MatchIKEID reports whether the certificate may speak under the IKE ID, and gives an error where not (RFC 4945 3.1,
// RFC 7296 3.5). An address, DNS name or mail address must be a subject alternative name of its own type; a
// distinguished name must be the whole subject, octet for octet. DNS names and the domain of a mail address compare
// without case. The common name is never looked at and a wildcard never matches. Errors wrap ErrIKEIDMismatch, or
// ErrIKEIDType for ID types that no certificate can prove, ID_KEY_ID among them.
func MatchIKEID(cert *x509.Certificate, idType byte, idData []byte) error {
	id := IKEID{idType, idData}
	if cert == nil {
		return fmt.Errorf("%v: no certificate came with it: %w", id, ErrIKEIDMismatch)
	}
	if len(idData) == 0 || len(idData) > maxIKEID {
		return fmt.Errorf("%s of %d octets, wanted 1 to %d: %w", idTypeName(idType), len(idData), maxIKEID, ErrIKEIDMismatch)
	}
	var matched bool
	var holds string
	switch idType {
	case IDFQDN:
		matched, holds = hasDNSName(cert, string(idData)), fmt.Sprintf("DNS names %q", cert.DNSNames)
	case IDRFC822:
		matched, holds = hasMailAddress(cert, string(idData)), fmt.Sprintf("mail addresses %q", cert.EmailAddresses)
	case IDIPv4Addr:
		matched, holds = len(idData) == net.IPv4len && hasAddress(cert, idData), fmt.Sprintf("addresses %v", cert.IPAddresses)
	case IDIPv6Addr:
		matched, holds = len(idData) == net.IPv6len && hasAddress(cert, idData), fmt.Sprintf("addresses %v", cert.IPAddresses)
	case IDDERASN1DN:
		matched, holds = !bytes.Equal(idData, emptyDN) && bytes.Equal(idData, cert.RawSubject), fmt.Sprintf("subject %q", clip(cert.Subject.String()))
	default:
		return fmt.Errorf("%v: %w", id, ErrIKEIDType)
	}
	if !matched {
		return fmt.Errorf("%v, but the certificate has the %s: %w", id, holds, ErrIKEIDMismatch)
	}
	return nil
}

func hasDNSName(cert *x509.Certificate, presented string) bool {
	want, err := ParseDNSName(presented)
	if err != nil {
		return false
	}
	for _, s := range cert.DNSNames {
		// A wildcard does not parse, so it names no machine.
		if name, err := ParseDNSName(s); err == nil && name == want {
			return true
		}
	}
	return false
}

func hasMailAddress(cert *x509.Certificate, presented string) bool {
	wantLocal, wantDomain, ok := splitMailAddress(presented)
	if !ok {
		return false
	}
	for _, s := range cert.EmailAddresses {
		// The local part is case sensitive, the domain is not (RFC 5280 7.5).
		if local, domain, ok := splitMailAddress(s); ok && local == wantLocal && domain == wantDomain {
			return true
		}
	}
	return false
}

func splitMailAddress(s string) (local, domain string, ok bool) {
	at := strings.LastIndexByte(s, '@')
	if at <= 0 {
		return "", "", false
	}
	for i := range at {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == '@' {
			return "", "", false
		}
	}
	domain, err := ParseDNSName(s[at+1:])
	return s[:at], domain, err == nil
}

// hasAddress compares octets of the same length only: ::ffff:192.0.2.1 is not 192.0.2.1 here.
func hasAddress(cert *x509.Certificate, presented []byte) bool {
	for _, ip := range cert.IPAddresses {
		if bytes.Equal(ip, presented) {
			return true
		}
	}
	return false
}
