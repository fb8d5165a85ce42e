package trust

import (
	"crypto/x509"
	"encoding/asn1"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// oidNameConstraints is id-ce-nameConstraints (RFC 5280 4.2.1.10).
var oidNameConstraints = asn1.ObjectIdentifier{2, 5, 29, 30}

// checkConstraints refuses an issuer whose name constraints are about other names than crypto/x509 enforces: it refuses
// those itself only where the extension is critical, which RFC 5280 demands and not every CA does. A constraint that
// nobody enforces would let the CA vouch for what it must not.
func checkConstraints(issuer *x509.Certificate) error {
	for _, e := range issuer.Extensions {
		if !e.Id.Equal(oidNameConstraints) {
			continue
		}
		if !enforceable(e.Value) {
			return refuse(ReasonWrongUsage, issuer, nil, "its name constraints are about names that cannot be held against them (RFC 5280 4.2.1.10)")
		}
	}
	return nil
}

// enforceable reports whether name constraints are only about mail addresses, DNS names, URIs and IP addresses:
//
//	SEQUENCE { permitted [0], excluded [1], each a sequence of SEQUENCE { base GeneralName, ... } }
func enforceable(der []byte) bool {
	input := cryptobyte.String(der)
	var constraints cryptobyte.String
	if !input.ReadASN1(&constraints, cryptobyte_asn1.SEQUENCE) || !input.Empty() {
		return false
	}
	for !constraints.Empty() {
		var subtrees cryptobyte.String
		var tag cryptobyte_asn1.Tag
		if !constraints.ReadAnyASN1(&subtrees, &tag) {
			return false
		}
		for !subtrees.Empty() {
			var subtree, base cryptobyte.String
			if !subtrees.ReadASN1(&subtree, cryptobyte_asn1.SEQUENCE) || !subtree.ReadAnyASN1(&base, &tag) {
				return false
			}
			switch tag {
			case tagMailAddress, tagDNSName, tagURI, tagIPAddress:
			default:
				return false
			}
		}
	}
	return true
}

// The context-specific tags of GeneralName that crypto/x509 holds against constraints (RFC 5280 4.2.1.6).
const (
	tagMailAddress = cryptobyte_asn1.Tag(1 | 0x80)
	tagDNSName     = cryptobyte_asn1.Tag(2 | 0x80)
	tagURI         = cryptobyte_asn1.Tag(6 | 0x80)
	tagIPAddress   = cryptobyte_asn1.Tag(7 | 0x80)
)
