package enroll

import (
	"crypto/tls"
	"encoding/asn1"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// oidChallengePassword is the attribute of RFC 2985 5.4.1, in which EST carries the channel binding (RFC 7030 3.5).
var oidChallengePassword = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}

// maxChallengePassword is pkcs-9-ub-challengePassword of RFC 2985.
const maxChallengePassword = 255

// ChallengePassword reads the challengePassword attribute of a request in DER; present says whether there is one. It does
// not look at the signature: call ParseRequest as well. Errors wrap ErrRequest.
func ChallengePassword(der []byte) (password string, present bool, err error) {
	bad := func(what string) (string, bool, error) {
		return "", false, fmt.Errorf("reading the challenge password of a request: %s: %w", what, ErrRequest)
	}
	if len(der) > MaxRequestSize {
		return bad(fmt.Sprintf("%d octets, more than %d", len(der), MaxRequestSize))
	}
	input := cryptobyte.String(der)
	var request, info, attributes cryptobyte.String
	var hasAttributes bool
	// CertificationRequest and CertificationRequestInfo of RFC 2986 4.
	if !input.ReadASN1(&request, cbasn1.SEQUENCE) || !input.Empty() || !request.ReadASN1(&info, cbasn1.SEQUENCE) ||
		!info.SkipASN1(cbasn1.INTEGER) || !info.SkipASN1(cbasn1.SEQUENCE) || !info.SkipASN1(cbasn1.SEQUENCE) ||
		!info.ReadOptionalASN1(&attributes, &hasAttributes, cbasn1.Tag(0).Constructed().ContextSpecific()) || !info.Empty() {
		return bad("not PKCS #10")
	}
	for !attributes.Empty() {
		var attribute, values, value cryptobyte.String
		var oid asn1.ObjectIdentifier
		if !attributes.ReadASN1(&attribute, cbasn1.SEQUENCE) || !attribute.ReadASN1ObjectIdentifier(&oid) ||
			!attribute.ReadASN1(&values, cbasn1.SET) || !attribute.Empty() {
			return bad("not an attribute")
		}
		if !oid.Equal(oidChallengePassword) {
			continue
		}
		if present {
			return bad("there are two")
		}
		var tag cbasn1.Tag
		if !values.ReadAnyASN1(&value, &tag) || !values.Empty() {
			return bad("not exactly one value")
		}
		// The forms of DirectoryString that hold ASCII alone or UTF-8; nothing else carries a channel binding.
		if tag != cbasn1.PrintableString && tag != cbasn1.UTF8String && tag != cbasn1.IA5String && tag != cbasn1.T61String {
			return bad(fmt.Sprintf("a string of the type %d", tag))
		}
		if len(value) == 0 || len(value) > maxChallengePassword {
			return bad(fmt.Sprintf("%d octets, wanted 1 to %d", len(value), maxChallengePassword))
		}
		password, present = string(value), true
	}
	return password, present, nil
}

// ExporterSize is the length of tls-exporter, in octets.
const ExporterSize = 32

// TLSExporter returns tls-exporter of a connection of TLS 1.3 (RFC 9266 4.2), which no other connection shares.
func TLSExporter(c *tls.ConnectionState) ([]byte, error) {
	if c.Version < tls.VersionTLS13 {
		return nil, fmt.Errorf("%s has no tls-exporter that is safe without an extended master secret (RFC 9266 4.1)", tls.VersionName(c.Version))
	}
	return c.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, ExporterSize)
}
