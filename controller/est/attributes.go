package est

import (
	"encoding/asn1"
	"net/http"
)

// What /csrattrs recommends (RFC 7030 4.5.2): a key on P-256 and a request signed with SHA-256. Other keys that the fleet
// accepts are accepted here too.
var (
	oidECPublicKey     = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidP256            = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
	oidECDSAWithSHA256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
)

// csrAttributes is CsrAttrs ::= SEQUENCE OF CHOICE { oid OBJECT IDENTIFIER, attribute Attribute }.
func csrAttributes() ([]byte, error) {
	type attribute struct {
		Type   asn1.ObjectIdentifier
		Values []asn1.ObjectIdentifier `asn1:"set"`
	}
	return asn1.Marshal(struct {
		Key       attribute
		Signature asn1.ObjectIdentifier
	}{attribute{oidECPublicKey, []asn1.ObjectIdentifier{oidP256}}, oidECDSAWithSHA256})
}

// attributes answers /csrattrs (RFC 7030 4.5).
func (h *Handler) attributes(w http.ResponseWriter, _ *http.Request) {
	der, err := csrAttributes()
	if err != nil {
		h.config.Log.Error("cannot encode the attributes of certificate requests", "error", err)
		http.Error(w, "the attributes cannot be encoded; the controller's log has the reason", http.StatusInternalServerError)
		return
	}
	answer(w, "application/csrattrs", der)
}
