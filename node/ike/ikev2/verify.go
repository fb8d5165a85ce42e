package ikev2

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// accepting gets the verdict about a peer, and what of its message the verdict is about.
type accepting func(entry spd.Auth, made proof, v ike.Verified)

// verify tries the entries in order until one accepts the peer. Only entries of the method that the peer used count:
// there is no other way in. Whatever fails, the peer gets one and the same answer.
func (s *SA) verify(entries []spd.Auth, id wire.ID, chain [][]byte, auth wire.Auth, m message, then accepting) {
	refuse := func(reason ike.Reason, format string, args ...any) {
		then(spd.Auth{}, proof{}, ike.Verified{Reason: reason, Detail: fmt.Sprintf(format, args...)})
	}
	if len(s.hs.hashes) > 0 && fixedHash(auth.Method) {
		// RFC 7427 4: both sides know method 14. Whoever makes the peer use another one wants a weaker hash.
		refuse(ike.ReasonAuthFailed, "%s authenticates with %s, although it has announced that it knows %s",
			idString(id), auth.Method, wire.AuthDigitalSignature)
		return
	}
	wanted := spd.AuthCertificate
	if auth.Method == wire.AuthSharedKey {
		wanted = spd.AuthPSK
	}
	entries = slices.DeleteFunc(slices.Clone(entries), func(e spd.Auth) bool { return e.Method != wanted })
	switch {
	case auth.Method == wire.AuthNull || len(entries) == 0:
		refuse(ike.ReasonAuthFailed, "%s authenticates with %s, which no rule for it allows", idString(id), auth.Method)
	case wanted == spd.AuthPSK:
		s.verifyPSK(entries, id, auth, m, then)
	default:
		s.verifyCertificate(entries, id, chain, auth, m, then)
	}
}

// fixedHash reports whether a method is one of those that came before method 14.
func fixedHash(m wire.AuthMethod) bool {
	switch m {
	case wire.AuthRSA, wire.AuthECDSA256, wire.AuthECDSA384, wire.AuthECDSA521:
		return true
	default:
		return false
	}
}

func (s *SA) verifyCertificate(entries []spd.Auth, id wire.ID, chain [][]byte, auth wire.Auth, m message, then accepting) {
	claim := claimOf(id)
	failed := ike.Verified{Reason: ike.ReasonAuthFailed}
	var try func(i int)
	try = func(i int) {
		if i == len(entries) {
			then(spd.Auth{}, proof{}, failed)
			return
		}
		e := entries[i]
		if err := claim.check(e); err != nil {
			failed = ike.Verified{Reason: ike.ReasonIDMismatch, Detail: err.Error()}
			try(i + 1)
			return
		}
		made, refused := s.peerProof(e, id, auth, m)
		if refused != nil {
			failed = *refused
			try(i + 1)
			return
		}
		work := ike.Verify{
			IDType: byte(id.Type), ID: id.Data, Chain: chain,
			Method: byte(made.auth.Method), Data: made.auth.Data, Octets: made.octets,
			Hashes: numbers(suite.SupportedHashes()), Auth: e, Revocation: s.cfg.Revocation,
			Groups: WantedGroups(s.cfg),
		}
		s.do(work, func(r ike.Result) {
			v := judgement(r)
			if v.Reason == ike.ReasonNone {
				then(e, made, v)
				return
			}
			failed = v
			try(i + 1)
		})
	}
	try(0)
}

// judgement reads the result of a job about a peer. One that says nothing is a refusal: nobody is accepted by default.
func judgement(r ike.Result) ike.Verified {
	v, ok := r.(ike.Verified)
	switch {
	case !ok:
		return ike.Verified{Reason: ike.ReasonInternal, Detail: "the job gave a result of another kind"}
	case v.Reason == ike.ReasonNone && v.Peer == "":
		return ike.Verified{Reason: ike.ReasonInternal, Detail: "the job gave an empty verdict"}
	}
	return v
}

// verifyPSK looks only at the keys that the rule has for the peer's identity, so that many keys cost no more than one.
// Where there is none, the same work is done with another key, so that time tells nothing.
func (s *SA) verifyPSK(entries []spd.Auth, id wire.ID, auth wire.Auth, m message, then accepting) {
	claim := claimOf(id)
	all := entries
	entries = nil
	for _, e := range all {
		if claim.is(e) {
			entries = append(entries, e)
		}
	}
	if len(entries) == 0 {
		_ = suite.VerifyPSK(s.suite.PRF, sa.NewSecret(make([]byte, 32)), s.hs.request, auth.Data)
		err := claim.check(all[0])
		if len(all) > 1 {
			err = fmt.Errorf("the peer claims to be %s, for whom none of %d preshared keys of the rule is", idString(id), len(all))
		}
		then(spd.Auth{}, proof{}, ike.Verified{Reason: ike.ReasonIDMismatch, Detail: err.Error()})
		return
	}
	failed := ike.Verified{Reason: ike.ReasonAuthFailed}
	for _, e := range entries {
		made, refused := s.peerProof(e, id, auth, m)
		if refused != nil {
			failed = *refused
			continue
		}
		secret, known := s.cfg.Secrets[e.Secret]
		known = known && secret.Len() > 0
		if !known {
			secret = sa.NewSecret(make([]byte, 32))
		}
		err := suite.VerifyPSK(s.suite.PRF, secret, made.octets, made.auth.Data)
		switch {
		case !known:
			failed = ike.Verified{Reason: ike.ReasonNoCredential, Detail: fmt.Sprintf("there is no preshared key %q", e.Secret)}
		case err != nil:
			failed = ike.Verified{
				Reason: ike.ReasonAuthFailed,
				Detail: fmt.Sprintf("the preshared key %q of %s differs: %v", e.Secret, idString(id), err),
			}
		default:
			then(e, made, ike.Verified{Peer: idString(id)})
			return
		}
	}
	then(spd.Auth{}, proof{}, failed)
}

// claim is the identity that the peer claims, in the notation of spd.Auth.
type claim struct {
	id   wire.ID
	text string // "" for what the notation does not know
}

func claimOf(id wire.ID) claim {
	c := claim{id: id}
	switch id.Type {
	case wire.IDFQDN:
		c.text = "fqdn:" + string(id.Data)
	case wire.IDRFC822:
		c.text = "email:" + string(id.Data)
	case wire.IDIPv4Addr, wire.IDIPv6Addr:
		if a, ok := netip.AddrFromSlice(id.Data); ok {
			c.text = "ip:" + a.String()
		}
	case wire.IDDERASN1DN:
		c.text = "dn:" + idString(id)
	}
	return c
}

// is reports whether an entry is for the claimed identity.
func (c claim) is(e spd.Auth) bool { return e.IsFor(c.text) }

func (c claim) check(e spd.Auth) error {
	if c.is(e) {
		return nil
	}
	return fmt.Errorf("the peer claims to be %s, the policy wants %s", idString(c.id), e.RemoteID)
}
