package pki

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// oidSubjectAltName is id-ce-subjectAltName (RFC 5280 4.2.1.6).
var oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// SANs are the subject alternative names that certificates of the fleet may have. There is at most one URI.
type SANs struct {
	DNSNames  []string
	Addresses []netip.Addr
	URI       string
}

// IPAddresses are the addresses in the form that crypto/x509 templates take.
func (s SANs) IPAddresses() []net.IP {
	var out []net.IP
	for _, a := range s.Addresses {
		out = append(out, a.AsSlice())
	}
	return out
}

// URIs is the URI in the form that crypto/x509 templates take; it is empty when there is none. A URI that does not
// parse is an error: SANs of a [Subject] always parse.
func (s SANs) URIs() ([]*url.URL, error) {
	if s.URI == "" {
		return nil, nil
	}
	u, err := url.Parse(s.URI)
	if err != nil {
		return nil, fmt.Errorf("identity URI %q: %w", clip(s.URI), err)
	}
	return []*url.URL{u}, nil
}

// Equal reports whether both hold the same names in the same order and spelling.
func (s SANs) Equal(other SANs) bool {
	return s.URI == other.URI && slices.Equal(s.DNSNames, other.DNSNames) && slices.Equal(s.Addresses, other.Addresses)
}

// IsZero reports whether there is no name at all.
func (s SANs) IsZero() bool { return s.URI == "" && len(s.DNSNames) == 0 && len(s.Addresses) == 0 }

// String lists the names, quoted, for errors.
func (s SANs) String() string {
	out := ""
	for _, n := range s.DNSNames {
		out += fmt.Sprintf(" DNS:%q", clip(n))
	}
	for _, a := range s.Addresses {
		out += " IP:" + a.String()
	}
	if s.URI != "" {
		out += fmt.Sprintf(" URI:%q", clip(s.URI))
	}
	if out == "" {
		return "[no names]"
	}
	return "[" + out[1:] + "]"
}

// The context-specific tags of GeneralName (RFC 5280 4.2.1.6).
const (
	tagDNSName   = cryptobyte_asn1.Tag(2 | 0x80)
	tagURI       = cryptobyte_asn1.Tag(6 | 0x80)
	tagIPAddress = cryptobyte_asn1.Tag(7 | 0x80)
)

// maxSANs bounds the names in one extension.
const maxSANs = 2*maxControllerNames + 1

// SANsFromExtensions reads the subject alternative names from the extensions of a certificate or of a request, from
// the very octets that were signed. No such extension gives the zero SANs. A name of a type that certificates of the
// fleet do not have is an error, not skipped: what is not understood must not be believed in part.
func SANsFromExtensions(extensions []pkix.Extension) (SANs, error) {
	var value []byte
	found := false
	for _, e := range extensions {
		if !e.Id.Equal(oidSubjectAltName) {
			continue
		}
		if found {
			return SANs{}, errors.New("two subject alternative name extensions")
		}
		value, found = e.Value, true
	}
	if !found {
		return SANs{}, nil
	}
	return parseSANs(value)
}

func parseSANs(der []byte) (SANs, error) {
	var s SANs
	input, names := cryptobyte.String(der), cryptobyte.String(nil)
	if !input.ReadASN1(&names, cryptobyte_asn1.SEQUENCE) || !input.Empty() {
		return SANs{}, errors.New("subject alternative name extension is not one DER sequence")
	}
	for count := 1; !names.Empty(); count++ {
		if count > maxSANs {
			return SANs{}, fmt.Errorf("more than %d subject alternative names", maxSANs)
		}
		var value cryptobyte.String
		var tag cryptobyte_asn1.Tag
		if !names.ReadAnyASN1(&value, &tag) {
			return SANs{}, fmt.Errorf("subject alternative name %d is not DER", count)
		}
		switch tag {
		case tagDNSName:
			s.DNSNames = append(s.DNSNames, string(value))
		case tagURI:
			if s.URI != "" || len(value) == 0 {
				return SANs{}, errors.New("subject alternative names hold an empty URI or more than one")
			}
			s.URI = string(value)
		case tagIPAddress:
			a, ok := netip.AddrFromSlice(value)
			if !ok {
				return SANs{}, fmt.Errorf("IP address of %d octets among the subject alternative names", len(value))
			}
			s.Addresses = append(s.Addresses, a)
		default:
			return SANs{}, fmt.Errorf("subject alternative name of the type [%d], wanted only dNSName, URI and iPAddress", byte(tag)&0x1f)
		}
	}
	return s, nil
}
