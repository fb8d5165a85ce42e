package ikev2

import (
	"slices"

	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Announced authentication methods (RFC 9593): each side may tell which ways to authenticate it accepts, the responder in
// IKE_SA_INIT, the initiator in IKE_AUTH, so that a side with several credentials need not guess.

// announced is what the peer accepts.
type announced struct {
	psk, certificate bool
	identifiers      [][]byte // AlgorithmIdentifiers of method 14
}

// announceAuth tells what the entries accept, where the policy wants that to be told.
func (s *SA) announceAuth(entries []spd.Auth) []wire.Payload {
	if !s.cfg.AnnounceAuthentication {
		return nil
	}
	var list []wire.AuthAnnouncement
	has := func(m spd.AuthMethod) bool {
		return slices.ContainsFunc(entries, func(e spd.Auth) bool { return e.Method == m })
	}
	if has(spd.AuthCertificate) {
		for _, id := range suite.AlgorithmIdentifiers() {
			list = append(list, wire.AuthAnnouncement{Method: wire.AuthDigitalSignature, Linked: true, Algorithm: id})
		}
	}
	if has(spd.AuthPSK) {
		list = append(list, wire.AuthAnnouncement{Method: wire.AuthSharedKey})
	}
	if len(list) == 0 {
		return nil
	}
	return []wire.Payload{wire.Notify{Type: wire.NotifySupportedAuthMethods, Data: wire.AppendAuthAnnouncements(nil, list)}}
}

// readAnnounced takes what the peer accepts. Without a usable notify it stays unknown: the peer is tried as ever.
func (s *SA) readAnnounced(payloads []wire.Payload) {
	n, ok := wire.FindNotify(payloads, wire.NotifySupportedAuthMethods)
	if !ok || len(n.Data) == 0 {
		return
	}
	list, err := wire.ParseAuthAnnouncements(n.Data)
	if err != nil {
		s.trace("SUPPORTED_AUTH_METHODS is ignored: %s", err)
		return
	}
	a := &announced{}
	for _, one := range list {
		switch {
		case one.Method == wire.AuthSharedKey:
			a.psk = true
		case one.Method == wire.AuthDigitalSignature && len(one.Algorithm) > 0:
			a.certificate = true
			a.identifiers = append(a.identifiers, slices.Clone(one.Algorithm))
		case fixedHash(one.Method):
			a.certificate = true
		}
	}
	s.hs.announced = a
}

// accepts reports whether the peer takes an entry's method, as far as that is known.
func (a *announced) accepts(e spd.Auth) bool {
	switch {
	case a == nil:
		return true
	case e.Method == spd.AuthPSK:
		return a.psk
	}
	return a.certificate
}

// chooseEntry moves the initiator to the first entry of its rule that the responder accepts, when it does not accept the
// one that was begun with. The announcement is not authenticated yet, but AUTH covers it, and the policy allows every
// entry.
func (s *SA) chooseEntry() {
	hs := s.hs
	if hs.announced.accepts(s.auth) {
		return
	}
	for _, e := range hs.rule.Auth {
		if hs.announced.accepts(e) && s.holds(e) && (hs.peerPPK || !wantsPPK(e)) {
			s.trace("the peer announces other authentication than %s: %s is used", s.auth.Method, e.Method)
			s.auth = e
			return
		}
	}
}

// holds reports whether this side has the credential of an entry.
func (s *SA) holds(e spd.Auth) bool {
	if wantsPPK(e) && s.ppk(e).Len() == 0 {
		return false
	}
	if e.Method == spd.AuthPSK {
		return s.cfg.Secrets[e.Secret].Len() > 0
	}
	return len(s.cfg.Chain) > 0
}

// algorithmIdentifiers are the AlgorithmIdentifiers that the peer accepts; nil when it has not told.
func (a *announced) algorithmIdentifiers() [][]byte {
	if a == nil {
		return nil
	}
	return a.identifiers
}
