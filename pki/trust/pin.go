package trust

import (
	"bytes"
	"crypto/x509"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
)

// PinnedVerify decides whether a server is to be believed by a machine that holds nothing but a pin, which is the key
// id of the root, from a join token. The chain must hold the pinned root itself, so a server that machines join
// through sends its root along. The root must be a self-signed CA certificate, and the chain must verify to it as in
// Bundle.Verify. The returned bundle, at revision 0, holds the root alone: for the rest of the join. A refusal is an *Error.
func PinnedVerify(now time.Time, chain []*x509.Certificate, pin pki.KeyID, o Options) (Verdict, Bundle, error) {
	if err := checkLimits(chain); err != nil {
		return Verdict{}, Bundle{}, err
	}
	var presented []string
	for _, c := range chain {
		// The pin names a key, not a certificate: a root that was renewed with the same key still matches.
		key, err := pki.KeyIDOf(c.PublicKey)
		if err != nil {
			return Verdict{}, Bundle{}, refuse(ReasonWeakKey, c, err, "its key cannot be named")
		}
		if key != pin || !bytes.Equal(c.RawIssuer, c.RawSubject) {
			presented = append(presented, key.String()[:16])
			continue
		}
		bundle, err := NewBundle(0, []*x509.Certificate{c}, nil)
		if err != nil {
			return Verdict{}, Bundle{}, refuse(ReasonUnknownIssuer, c, err, "it has the pinned key, but is not a root")
		}
		verdict, err := bundle.Verify(now, chain, o)
		if err != nil {
			return Verdict{}, Bundle{}, err
		}
		return verdict, bundle, nil
	}
	return Verdict{}, Bundle{}, refuse(ReasonUnknownIssuer, chain[0], nil,
		"the server presented no root with the pinned key %s, but keys that start with %q: this is not the controller that made the token or that the pin is of, or it does not send its root",
		pin, presented)
}
