package ikev2

import (
	"fmt"
	"slices"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Postquantum preshared keys (RFC 8784). Both sides announce USE_PPK in IKE_SA_INIT. In IKE_AUTH the initiator names the
// key by PPK_IDENTITY and authenticates with keys that it is mixed into; where its policy can do without, NO_PPK_AUTH
// carries what it would say without. The responder takes the first when it has the key, and says so by an empty
// PPK_IDENTITY.

// usePPK announces that this side knows of postquantum preshared keys.
func usePPK() []wire.Payload { return []wire.Payload{wire.Notify{Type: wire.NotifyUsePPK}} }

// offerPPK announces them as initiator, when the entry names one that is there.
func (s *SA) offerPPK() []wire.Payload {
	if s.ppk(s.auth).Len() == 0 {
		return nil
	}
	return usePPK()
}

// answerPPK announces them as responder to an initiator that did, when there is one for any peer.
func (s *SA) answerPPK() []wire.Payload {
	has := func(list []spd.Auth) bool {
		return slices.ContainsFunc(list, func(a spd.Auth) bool { return s.ppk(a).Len() > 0 })
	}
	for _, r := range s.cfg.Rules {
		if s.hs.peerPPK && has(r.Auth) {
			return usePPK()
		}
	}
	if r := s.cfg.DefaultResponse; s.hs.peerPPK && r != nil && has(r.Auth) {
		return usePPK()
	}
	return nil
}

// ppk is the postquantum preshared key of an entry; empty when it names none, or one that is not there.
func (s *SA) ppk(entry spd.Auth) sa.Secret {
	if entry.PPK == "" {
		return sa.Secret{}
	}
	return s.cfg.Secrets[entry.PPK]
}

// wantsPPK reports whether an entry accepts no peer without its key.
func wantsPPK(entry spd.Auth) bool { return entry.WantsPPK() }

// lacksPPK reports whether the responder's IKE_SA_INIT does without the key that the rule wants.
func (s *SA) lacksPPK(m wire.Message) bool {
	_, knows := wire.FindNotify(m.Payloads, wire.NotifyUsePPK)
	return wantsPPK(s.auth) && !knows
}

// proof is what one side says of itself in IKE_AUTH.
type proof struct {
	auth   wire.Auth
	octets []byte // that auth covers
	mixed  bool   // a postquantum preshared key is in the keys
}

// signedOctets are what AUTH of one side covers. message is its IKE_SA_INIT in parts, nonce that of the other side.
func (s *SA) signedOctets(message [][]byte, nonce []byte, skp sa.Secret, id wire.ID, authID uint32) ([]byte, error) {
	octets, err := suite.OctetsToSign(s.suite.PRF, nonce, skp, id, message...)
	if err != nil {
		return nil, err
	}
	return s.hs.appendIntAuth(octets, authID), nil
}

// ownProof are the octets that the own AUTH covers, with the key mixed in where both sides use it.
func (s *SA) ownProof(id wire.ID, authID uint32, mix bool) ([]byte, error) {
	hs, keys := s.hs, s.keys
	if mix && !hs.mixed {
		var err error
		if keys, err = suite.MixPPK(s.suite.PRF, s.ppk(s.auth), s.keys); err != nil {
			return nil, fmt.Errorf("mix in the postquantum preshared key %q: %w", s.auth.PPK, err)
		}
	}
	if s.initiator {
		return s.signedOctets(hs.signedInit(true), hs.nr, keys.PI, id, authID)
	}
	return s.signedOctets(hs.signedInit(false), hs.ni, keys.PR, id, authID)
}

// ownPPK reports whether this side, as initiator, names a key in IKE_AUTH.
func (s *SA) ownPPK() bool { return s.hs.peerPPK && s.ppk(s.auth).Len() > 0 }

// namePPK are the notifies that name the key. plain is AUTH without it, for a responder that does not have it.
func (s *SA) namePPK(plain *wire.Auth) []wire.Payload {
	id := wire.PPKID{Type: wire.PPKIDFixed, Data: []byte(s.auth.PPK)}
	list := []wire.Payload{wire.Notify{Type: wire.NotifyPPKIdentity, Data: id.Append(nil)}}
	if plain != nil {
		list = append(list, wire.Notify{Type: wire.NotifyNoPPKAuth, Data: plain.Data})
	}
	return list
}

// signPlain makes AUTH without the key as well, where the peer may do without it.
func (s *SA) signPlain(id wire.ID, then func(plain *wire.Auth, failure *refusal)) {
	if !s.ownPPK() || !s.auth.PPKOptional {
		then(nil, nil)
		return
	}
	octets, err := s.ownProof(id, s.win.next, false)
	if err != nil {
		then(nil, &refusal{ike.ReasonInternal, err.Error()})
		return
	}
	s.sign(s.auth, octets, func(auth wire.Auth, failure *refusal) { then(&auth, failure) })
}

// peerProof is what the peer's IKE_AUTH proves under an entry, or why it proves nothing. The initiator's message may
// prove the same twice, with the key and without.
func (s *SA) peerProof(entry spd.Auth, id wire.ID, auth wire.Auth, m message) (proof, *ike.Verified) {
	hs := s.hs
	refuse := func(format string, args ...any) (proof, *ike.Verified) {
		return proof{}, &ike.Verified{Reason: ike.ReasonNoPPK, Detail: fmt.Sprintf(format, args...)}
	}
	named, says := wire.FindNotify(m.payloads, wire.NotifyPPKIdentity)
	mixed := false
	switch {
	case s.initiator:
		mixed = says && s.ownPPK()
	case says && hs.peerPPK:
		p, err := wire.ParsePPKID(named.Data)
		mixed = err == nil && string(p.Data) == entry.PPK && s.ppk(entry).Len() > 0
	}
	if !mixed && wantsPPK(entry) {
		return refuse("%s does not use the postquantum preshared key %q that the rule wants", idString(id), entry.PPK)
	}
	if !mixed && says && !s.initiator {
		plain, has := wire.FindNotify(m.payloads, wire.NotifyNoPPKAuth)
		if !has {
			return refuse("%s wants to use a postquantum preshared key that this machine does not have for it", idString(id))
		}
		auth.Data = plain.Data
	}
	keys := s.keys
	if mixed {
		var err error
		if keys, err = suite.MixPPK(s.suite.PRF, s.ppk(entry), s.keys); err != nil {
			return proof{}, &ike.Verified{Reason: ike.ReasonInternal, Detail: err.Error()}
		}
	}
	message, nonce, skp := hs.signedInit(true), hs.nr, keys.PI
	if s.initiator {
		message, nonce, skp = hs.signedInit(false), hs.ni, keys.PR
	}
	octets, err := s.signedOctets(message, nonce, skp, id, m.header.MessageID)
	if err != nil {
		return proof{}, &ike.Verified{Reason: ike.ReasonInternal, Detail: err.Error()}
	}
	return proof{auth, octets, mixed}, nil
}

// adoptPPK uses the keys that the peer's proof was made with from now on.
func (s *SA) adoptPPK(entry spd.Auth, p proof) error {
	s.hs.mixed = p.mixed
	if !p.mixed {
		return nil
	}
	keys, err := suite.MixPPK(s.suite.PRF, s.ppk(entry), s.keys)
	if err != nil {
		return err
	}
	for _, old := range []sa.Secret{s.keys.D, s.keys.PI, s.keys.PR} {
		old.Wipe()
	}
	s.keys = keys
	s.trace("the keys hold the postquantum preshared key %q", entry.PPK)
	return nil
}

// confirmPPK is the responder's sign that it has the key.
func (s *SA) confirmPPK() []wire.Payload {
	if !s.hs.mixed {
		return nil
	}
	return []wire.Payload{wire.Notify{Type: wire.NotifyPPKIdentity}}
}
