package driver

import (
	"fmt"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// Credentials are the machine's key and whom it trusts, as they are now.
type Credentials interface {
	Signer
	Trust() trust.Bundle
}

// Revoker is implemented by Credentials that know revoked certificates.
type Revoker interface{ Revocations() trust.Revocations }

// BundleVerifier judges peers by the trust bundle of Credentials: chain, validity, usage, revocation, the binding of the
// ID to the certificate (RFC 4945 3), and the signature.
type BundleVerifier struct {
	Credentials Credentials
	// Paths remembers the chains of peers that come again; nil verifies every signature anew.
	Paths *trust.Paths
}

// VerifyPeer implements Verifier.
func (b BundleVerifier) VerifyPeer(now time.Time, v ike.Verify) ike.Verified {
	o := trust.Options{Usages: []trust.Usage{trust.IPsecIKE}, IKEID: pki.IKEID{Type: v.IDType, Data: v.ID}}
	if r, ok := b.Credentials.(Revoker); ok {
		o.Revoked = r.Revocations()
	}
	verdict, err := b.Paths.Verify(b.Credentials.Trust(), now, v.Chain, o)
	if err != nil {
		return refused(err)
	}
	if v.Auth.CA != "" {
		found := false
		for _, c := range verdict.Path[1:] {
			found = found || strings.EqualFold(c.Subject.String(), v.Auth.CA)
		}
		if !found {
			return ike.Verified{
				Reason: ike.ReasonIssuerNotAllowed,
				Detail: fmt.Sprintf("the chain of %q does not contain the CA %q that the policy wants", verdict.Leaf.Subject, v.Auth.CA),
			}
		}
	}
	if err := suite.Verify(verdict.Leaf.PublicKey, wire.AuthMethod(v.Method), v.Data, v.Octets, hashes(v.Hashes)); err != nil {
		return ike.Verified{
			Reason: ike.ReasonAuthFailed,
			Detail: fmt.Sprintf("signature of %q: %v", verdict.Leaf.Subject, err),
		}
	}
	return ike.Verified{Peer: peerName(verdict, v)}
}

// peerName is the machine that the certificate stands for, or the ID where it is not one of the fleet.
func peerName(verdict trust.Verdict, v ike.Verify) string {
	if id, err := pki.IdentityFromCertificate(verdict.Leaf); err == nil {
		return id.DNSName()
	}
	return pki.IKEID{Type: v.IDType, Data: v.ID}.String()
}

func refused(err error) ike.Verified {
	v := ike.Verified{Reason: ike.ReasonAuthFailed, Detail: err.Error()}
	if reason, ok := trust.ReasonOf(err); ok {
		switch reason {
		case trust.ReasonUnknownIssuer:
			v.Reason = ike.ReasonUnknownIssuer
		case trust.ReasonExpired:
			v.Reason = ike.ReasonCertExpired
		case trust.ReasonNotYetValid:
			v.Reason = ike.ReasonCertNotYetValid
		case trust.ReasonRevoked:
			v.Reason = ike.ReasonCertRevoked
		case trust.ReasonNameMismatch:
			v.Reason = ike.ReasonIDMismatch
		case trust.ReasonMalformed, trust.ReasonLimit, trust.ReasonWeakKey, trust.ReasonWrongUsage: // the detail says which
			v.Reason = ike.ReasonCertInvalid
		}
	}
	return v
}
