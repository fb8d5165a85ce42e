package driver

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Credentials are the machine's key and whom it trusts, as they are now.
type Credentials interface {
	Signer
	Trust() trust.Bundle
}

// Denier is implemented by Credentials that know whom not to believe.
type Denier interface {
	// Denials are what is known, and when that was last known to be so; the zero time means that nothing was ever heard.
	Denials() (trust.Denials, time.Time)
}

// Grouper is implemented by Credentials that know the members of groups of the directory. With others nobody is a member
// of anything.
type Grouper interface{ Groups() trust.Groups }

// strictAge is how old the knowledge of denials may be where the policy is strict. A controller that is away for a
// night must not stop a fleet.
const strictAge = 24 * time.Hour

// BundleVerifier judges peers by the trust bundle of Credentials: chain, validity, usage, revocation, the binding of the
// ID to the certificate (RFC 4945 3), and the signature.
type BundleVerifier struct {
	Credentials Credentials
	// Paths remembers the chains of peers that come again; nil verifies every signature anew.
	Paths *trust.Paths
}

// VerifyPeer implements Verifier.
func (b BundleVerifier) VerifyPeer(now time.Time, v ike.Verify) ike.Verified {
	verdict, refusal := b.judge(now, ike.Rejudge{IDType: v.IDType, ID: v.ID, Chain: v.Chain, Auth: v.Auth, Revocation: v.Revocation, Groups: v.Groups})
	if refusal != nil {
		return *refusal
	}
	if err := suite.Verify(verdict.Leaf.PublicKey, wire.AuthMethod(v.Method), v.Data, v.Octets, hashes(v.Hashes)); err != nil {
		return ike.Verified{
			Reason: ike.ReasonAuthFailed,
			Detail: fmt.Sprintf("signature of %q: %v", verdict.Leaf.Subject, err),
		}
	}
	return b.accepted(verdict, v.IDType, v.ID, v.Groups)
}

// RejudgePeer implements Verifier.
func (b BundleVerifier) RejudgePeer(now time.Time, r ike.Rejudge) ike.Verified {
	verdict, refusal := b.judge(now, r)
	if refusal != nil {
		return *refusal
	}
	return b.accepted(verdict, r.IDType, r.ID, r.Groups)
}

// judge decides everything but the signature.
func (b BundleVerifier) judge(now time.Time, r ike.Rejudge) (trust.Verdict, *ike.Verified) {
	refuse := func(v ike.Verified) (trust.Verdict, *ike.Verified) { return trust.Verdict{}, &v }
	o := trust.Options{Usages: []trust.Usage{trust.IPsecIKE}, IKEID: pki.IKEID{Type: r.IDType, Data: r.ID}}
	denier, knows := b.Credentials.(Denier)
	var heard time.Time
	if knows && (r.Revocation != spd.RevocationOff || r.Auth.AccountMapping) {
		o.Denied, heard = denier.Denials()
	}
	verdict, err := b.Paths.Verify(b.Credentials.Trust(), now, r.Chain, o)
	if err != nil {
		v := refused(err)
		if v.Reason == ike.ReasonUnknownIssuer {
			v.Detail += "; " + bothLists(r.Chain, b.Credentials.Trust())
		}
		return refuse(v)
	}
	if r.Revocation == spd.RevocationStrict && (heard.IsZero() || now.Sub(heard) > strictAge) {
		return refuse(ike.Verified{
			Reason: ike.ReasonStandingUnknown,
			Detail: fmt.Sprintf("the policy wants to know whether %q is revoked, and the controller has not told for %s", verdict.Leaf.Subject, strictAge),
		})
	}
	if !r.Auth.AcceptsIssuer(issuers(verdict.Path)) {
		return refuse(ike.Verified{
			Reason: ike.ReasonIssuerNotAllowed,
			Detail: fmt.Sprintf("the chain of %q does not contain the CA %q that the policy wants, but %q", verdict.Leaf.Subject, r.Auth.CA, issuers(verdict.Path)),
		})
	}
	if r.Auth.AccountMapping {
		if refusal := mapped(verdict.Leaf, heard); refusal != nil {
			return refuse(*refusal)
		}
	}
	return verdict, nil
}

// mapped refuses a certificate that is valid and stands for no account of the directory. That the account is not among
// those denied was judged with the path; here it is wanted that the directory was heard at all.
func mapped(leaf *x509.Certificate, heard time.Time) *ike.Verified {
	if _, err := pki.IdentityFromCertificate(leaf); err != nil {
		return &ike.Verified{
			Reason: ike.ReasonPeerDenied,
			Detail: fmt.Sprintf("the policy wants certificates of accounts in the directory, and %q names none: %v", leaf.Subject, err),
		}
	}
	if heard.IsZero() {
		return &ike.Verified{
			Reason: ike.ReasonStandingUnknown,
			Detail: fmt.Sprintf("the policy wants to know whether the directory admits %q, and the controller has never told", leaf.Subject),
		}
	}
	return nil
}

// mostNamed bounds how many CAs a sentence names on each side: a peer may send any chain.
const mostNamed = 4

// bothLists says which CAs a peer showed, and which ones this machine trusts: of two lists without a common name neither
// administrator sees more than his own.
func bothLists(chain [][]byte, bundle trust.Bundle) string {
	var shown, trusted []string
	add := func(list *[]string, name string) {
		if len(*list) < mostNamed && !slices.Contains(*list, name) {
			*list = append(*list, name)
		}
	}
	for _, der := range chain {
		if c, err := x509.ParseCertificate(der); err == nil {
			add(&shown, c.Issuer.String())
		}
	}
	for _, c := range bundle.Roots() {
		add(&trusted, c.Subject.String())
	}
	return fmt.Sprintf("its certificates are of %q, this machine trusts %q", shown, trusted)
}

// issuers are the subjects of the CAs of a path.
func issuers(path []*x509.Certificate) []string {
	var names []string
	for _, c := range path[1:] {
		names = append(names, c.Subject.String())
	}
	return names
}

// accepted names the machine that the certificate stands for, and which of the groups it is in, or the ID where it is not
// one of the fleet.
func (b BundleVerifier) accepted(verdict trust.Verdict, idType byte, id []byte, groups []string) ike.Verified {
	v := ike.Verified{Peer: pki.IKEID{Type: idType, Data: id}.String(), NotAfter: verdict.NotAfter}
	machine, err := pki.IdentityFromCertificate(verdict.Leaf)
	if err != nil {
		return v
	}
	v.Peer = machine.DNSName()
	if grouper, ok := b.Credentials.(Grouper); ok && len(groups) > 0 {
		known := grouper.Groups()
		for _, g := range groups {
			if known.Contains(g, machine.UUID()) {
				v.Groups = append(v.Groups, g)
			}
		}
	}
	return v
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
		case trust.ReasonDenied:
			v.Reason = ike.ReasonPeerDenied
		case trust.ReasonNameMismatch:
			v.Reason = ike.ReasonIDMismatch
		case trust.ReasonMalformed, trust.ReasonLimit, trust.ReasonWeakKey, trust.ReasonWrongUsage: // the detail says which
			v.Reason = ike.ReasonCertInvalid
		}
	}
	return v
}
