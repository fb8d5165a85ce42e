package agent

import (
	"crypto/sha1"
	"crypto/x509"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Negotiation is what the IKE configuration takes from the node rather than from the policy.
type Negotiation struct {
	ForceEncap bool
	KeyLog     bool
	// Secrets are the preshared keys by name, and former values that are accepted (keyring.PreviousOf).
	Secrets map[string]sa.Secret
	// CrashSecret makes the tokens of quick crash detection.
	CrashSecret sa.Secret
}

// IKEConfig is the configuration that enforces the set with these credentials. Rules appear in the order of weight; a
// rule whose filters do not stand together appears once for each run of them.
func IKEConfig(set spd.Set, credentials identity.Credentials, n Negotiation) ike.Config {
	exchange := set.KeyExchange()
	config := ike.Config{
		Offers:      exchange.Offers,
		IKELifetime: exchange.Lifetime,
		Childless:   exchange.Childless,
		ChildLimit:  exchange.ChildLimit,
		Mobility:    mobility(exchange.Mobility),
		Transcript:  exchange.Transcript,
		Secrets:     n.Secrets,
		CrashSecret: n.CrashSecret,
		ForceEncap:  n.ForceEncap,
		KeyLog:      n.KeyLog,
	}
	config.AnnounceAuthentication = exchange.AnnounceAuthentication
	config.Revocation, config.Reauthentication = exchange.Revocation, exchange.Reauthentication
	if !credentials.Identity.IsZero() {
		id := credentials.Identity.IKEID()
		config.Local = ike.Identity{Type: id.Type, Data: id.Data}
		config.Chain, config.NotAfter = credentials.RawChain(), notAfter(credentials.Chain)
		config.Authorities = authorities(credentials, set)
	}
	for _, negotiable := range set.Negotiables() {
		made := ikeRule(negotiable.Rule, negotiable.Pairs)
		made.Auth = accepting(made.Auth, n.Secrets)
		config.Rules = append(config.Rules, made)
	}
	if response := set.DefaultResponse(); response.Active {
		config.DefaultResponse = &ike.Rule{
			Mode: sa.Transport, Offers: response.Offers, Auth: accepting(response.Auth, n.Secrets),
			PFS: response.PFS, Lifetime: response.Lifetime, Idle: response.Idle,
		}
	}
	return config
}

func ikeRule(rule *spd.Rule, pairs []ike.Pair) ike.Rule {
	r := ike.Rule{
		ID: rule.ID, Mode: sa.Transport, Pairs: pairs,
		Offers: rule.Action.Offers, Auth: rule.Auth, PFS: rule.Action.PFS, Associations: rule.Action.Associations,
		Lifetime: rule.Action.Lifetime, Fallback: rule.Action.Fallback,
		PeerGroups: rule.PeerGroups,
	}
	if rule.Tunnel.IsValid() {
		r.Mode, r.Tunnel = sa.Tunnel, rule.Tunnel
	}
	return r
}

func mobility(m spd.Mobility) ike.Mobility {
	switch m {
	case spd.MobilityNever:
		return ike.MobilityOff
	case spd.MobilityWithoutNAT:
		return ike.MobilityWithoutNAT
	case spd.MobilityAllow:
	}
	return ike.MobilityOn
}

// authorities are the hashes of the CA keys that this node accepts, as CERTREQ carries them. SHA-1 is what the protocol
// asks for here (RFC 7296 3.7); nothing is authenticated by it. A CA that an entry of the policy excludes is in none: the
// first request of a responder goes out before it knows which rule will count.
func authorities(credentials identity.Credentials, set spd.Set) [][]byte {
	excluded := set.ExcludedCAs()
	var out [][]byte
	for _, certs := range [][]*x509.Certificate{credentials.Trust.Roots(), credentials.Trust.Intermediates()} {
		for _, cert := range certs {
			if slices.ContainsFunc(excluded, func(a spd.Auth) bool { return a.CA == "" || a.NamesCA(cert.Subject.String()) }) {
				continue
			}
			sum := sha1.Sum(cert.RawSubjectPublicKeyInfo)
			out = append(out, sum[:])
		}
	}
	return out
}

// notAfter is when the first certificate of the chain expires.
func notAfter(chain []*x509.Certificate) (first time.Time) {
	for _, c := range chain {
		if first.IsZero() || c.NotAfter.Before(first) {
			first = c.NotAfter
		}
	}
	return first
}
