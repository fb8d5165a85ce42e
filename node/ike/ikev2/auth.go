package ikev2

import (
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"crypto/x509"
	"crypto/x509/pkix"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// sendAuth authenticates the initiator and asks for the first Child SA (RFC 7296 1.2).
func (s *SA) sendAuth() {
	hs := s.hs
	s.float()
	id, err := s.ownID(s.auth, false)
	if err != nil {
		s.end(ike.ReasonNoCredential, ike.FaultLocal, err.Error())
		return
	}
	hs.id = id
	s.signPlain(id, func(plain *wire.Auth, failure *refusal) {
		if failure != nil {
			s.end(failure.reason, ike.FaultLocal, failure.detail)
			return
		}
		octets, err := s.ownProof(id, s.win.next, s.ownPPK())
		if err != nil {
			s.end(ike.ReasonInternal, ike.FaultLocal, err.Error())
			return
		}
		s.sign(s.auth, octets, func(auth wire.Auth, failure *refusal) { s.requestAuth(id, auth, plain, failure) })
	})
}

// requestAuth sends IKE_AUTH with what the jobs have made.
func (s *SA) requestAuth(id wire.ID, auth wire.Auth, plain *wire.Auth, failure *refusal) {
	if failure != nil {
		s.end(failure.reason, ike.FaultLocal, failure.detail)
		return
	}
	hs := s.hs
	payloads := append(make([]wire.Payload, 0, usualPayloads), id)
	payloads = append(payloads, s.certificates(s.auth)...)
	if s.auth.Method == spd.AuthCertificate {
		payloads = append(payloads, s.certRequest()...)
	}
	if s.auth.RemoteID != "" { // tells a responder with several identities which one is meant
		if want, err := parseID(s.auth.RemoteID, nil); err == nil {
			want.Responder = true
			payloads = append(payloads, want)
		}
	}
	payloads = append(payloads, auth)
	if s.ownPPK() {
		payloads = append(payloads, s.namePPK(plain)...)
	}
	payloads = append(payloads, s.announceAuth([]spd.Auth{s.auth})...)
	if s.host.FirstContact(s.own, s.remote.Addr()) {
		payloads = append(payloads, wire.Notify{Type: wire.NotifyInitialContact})
	}
	payloads = append(payloads, s.offerMobility()...)
	payloads = append(payloads, s.ownToken()...)
	if !hs.childless || s.cfg.Childless != spd.ChildlessPrefer {
		hs.first = s.newChildRequest(*hs.flow, *hs.rule, false, 0)
		hs.first.ni, hs.first.nr = hs.ni, hs.nr
		payloads = append(payloads, s.childPayloads(hs.first)...)
	}
	s.giveUp = s.now
	s.giveUp = s.giveUp.Add(RetransmitTotal + jobTimeout)
	s.request(wire.IKEAuth, payloads...)
}

// receiveAuthResponse authenticates the responder.
func (s *SA) receiveAuthResponse(m message) {
	hs := s.hs
	idr, hasID := wire.Find(m.payloads, func(p wire.ID) bool { return p.Responder })
	auth, hasAuth := wire.Find[wire.Auth](m.payloads, nil)
	if !hasID || !hasAuth {
		reason, detail := ike.ReasonSyntax, "IKE_AUTH response without IDr and AUTH"
		for _, p := range m.payloads {
			if n, ok := p.(wire.Notify); ok && n.Type.IsError() {
				reason, detail = reasonOf(n.Type), "the peer answered IKE_AUTH with "+n.Type.String()
				break
			}
		}
		s.end(reason, reason.Fault(), detail)
		return
	}
	chain := chainOf(m.payloads)
	s.verify([]spd.Auth{s.auth}, idr, chain, auth, m, func(_ spd.Auth, p proof, v ike.Verified) {
		if v.Reason == ike.ReasonNone {
			if err := s.adoptPPK(s.auth, p); err != nil {
				v = ike.Verified{Reason: ike.ReasonInternal, Detail: err.Error()}
			}
		}
		if v.Reason != ike.ReasonNone {
			// RFC 7296 2.21.2: the responder believes the SA to be up, so it is told. Nothing waits for its answer.
			s.request(wire.Informational, wire.Notify{Type: wire.NotifyAuthenticationFailed})
			s.end(v.Reason, ike.FaultPeer, v.Detail)
			return
		}
		if hs.first != nil && !answersChild(m.payloads) { // EAP, say, which nobody asked for
			s.request(wire.Informational, wire.Delete{Protocol: wire.ProtocolIKE})
			s.end(ike.ReasonSyntax, ike.FaultPeer, "IKE_AUTH response that neither makes the Child SA nor refuses it")
			return
		}
		s.believe(idr, s.auth, v, chain)
		flow, rule, first := hs.flow, hs.rule, hs.first
		s.becomeEstablished(m.payloads)
		if first == nil {
			s.enqueue(&newChild{flow: *flow, rule: *rule}, timeZero)
			return
		}
		s.finishChild(first, m.payloads, *flow)
	})
}

// answersChild reports whether a response makes a Child SA or says why not.
func answersChild(payloads []wire.Payload) bool {
	return slices.ContainsFunc(payloads, func(p wire.Payload) bool {
		n, ok := p.(wire.Notify)
		return ok && n.Type.IsError() || p.PayloadType() == wire.TypeSA
	})
}

// becomeEstablished ends the handshake.
func (s *SA) becomeEstablished(payloads []wire.Payload) {
	s.state = StateEstablished
	s.established = s.now
	s.origin = Origin{Initiator: s.initiator, Exchange: s.initial, Created: s.created, Established: s.now}
	s.giveUp = timeZero
	s.hs = nil
	s.learnMobility(payloads)
	s.takeToken(payloads)
	s.startLife()
	s.readAuthLifetime(payloads)
	if s.doubt && s.chain != nil {
		s.rejudge()
	}
	_, contact := wire.FindNotify(payloads, wire.NotifyInitialContact)
	s.trace("established with %s, authenticated by %s, protected by %s, NAT here %v, NAT there %v", s.peerName, s.auth.Method, s.suite, s.natLocal, s.natRemote)
	s.up = true
	s.host.Emit(ike.Up{IKE: ike.IKESPI(s.own), Peer: s.peerName, Local: s.local, Remote: s.remote, Suite: s.suite, Auth: s.auth.Method})
	s.note(Established{InitialContact: contact})
}

// sign makes the own AUTH payload.
func (s *SA) sign(entry spd.Auth, octets []byte, then func(auth wire.Auth, failure *refusal)) {
	if entry.Method == spd.AuthPSK {
		secret, ok := s.cfg.Secrets[entry.Secret]
		if !ok || secret.Len() == 0 {
			then(wire.Auth{}, &refusal{ike.ReasonNoCredential, fmt.Sprintf("there is no preshared key %q", entry.Secret)})
			return
		}
		data, err := suite.PSKAuth(s.suite.PRF, secret, octets)
		if err != nil {
			then(wire.Auth{}, &refusal{ike.ReasonInternal, "compute AUTH: " + err.Error()})
			return
		}
		then(wire.Auth{Method: wire.AuthSharedKey, Data: data}, nil)
		return
	}
	s.do(ike.Sign{Octets: octets, Hashes: numbers(s.hs.hashes), Accepted: s.hs.announced.algorithmIdentifiers()}, func(r ike.Result) {
		signed, ok := r.(ike.Signed)
		if !ok || signed.Err != nil {
			then(wire.Auth{}, &refusal{ike.ReasonSignFailed, "sign AUTH with the machine's key: " + resultError(signed.Err)})
			return
		}
		then(wire.Auth{Method: wire.AuthMethod(signed.Method), Data: signed.Data}, nil)
	})
}

// certificates are the CERT payloads of an entry, the leaf first (RFC 7296 3.6).
func (s *SA) certificates(entry spd.Auth) []wire.Payload {
	if entry.Method != spd.AuthCertificate {
		return nil
	}
	var payloads []wire.Payload
	for _, der := range s.cfg.Chain {
		payloads = append(payloads, wire.Cert{Encoding: wire.CertX509Signature, Data: der})
	}
	return payloads
}

func (s *SA) certRequest() []wire.Payload {
	if len(s.cfg.Authorities) == 0 {
		return nil
	}
	return []wire.Payload{wire.CertReq{Encoding: wire.CertX509Signature, Data: slices.Concat(s.cfg.Authorities...)}}
}

func chainOf(payloads []wire.Payload) [][]byte {
	var chain [][]byte
	for _, p := range payloads {
		if c, ok := p.(wire.Cert); ok && c.Encoding == wire.CertX509Signature {
			chain = append(chain, slices.Clone(c.Data))
		}
	}
	return chain
}

func numbers(hashes []wire.HashAlgorithm) []uint16 {
	var list []uint16
	for _, h := range hashes {
		list = append(list, uint16(h))
	}
	return list
}

// ownID is the identity with which this side authenticates by an entry.
func (s *SA) ownID(entry spd.Auth, responder bool) (wire.ID, error) {
	id := wire.ID{Type: wire.IDType(s.cfg.Local.Type), Data: s.cfg.Local.Data}
	switch {
	case entry.LocalID != "":
		var err error
		if id, err = parseID(entry.LocalID, s.cfg.Chain); err != nil {
			return wire.ID{}, err
		}
	case id.Type == 0:
		id = addressID(s.local.Addr())
	}
	id.Responder = responder
	return id, nil
}

func addressID(a netip.Addr) wire.ID {
	if a.Unmap().Is4() {
		return wire.ID{Type: wire.IDIPv4Addr, Data: a.Unmap().AsSlice()}
	}
	return wire.ID{Type: wire.IDIPv6Addr, Data: a.AsSlice()}
}

// parseID reads the notation of spd.Auth. A DN is taken from the own certificate whose subject it names, because its
// DER form must be that of the certificate.
func parseID(text string, chain [][]byte) (wire.ID, error) {
	kind, value, _ := strings.Cut(text, ":")
	switch kind {
	case "fqdn":
		if value != "" {
			return wire.ID{Type: wire.IDFQDN, Data: []byte(value)}, nil
		}
	case "email":
		if strings.Contains(value, "@") {
			return wire.ID{Type: wire.IDRFC822, Data: []byte(value)}, nil
		}
	case "ip":
		if a, err := netip.ParseAddr(value); err == nil {
			return addressID(a), nil
		}
	case "dn":
		if len(chain) > 0 {
			cert, err := x509.ParseCertificate(chain[0])
			if err == nil && cert.Subject.String() == value {
				return wire.ID{Type: wire.IDDERASN1DN, Data: cert.RawSubject}, nil
			}
		}
		return wire.ID{}, fmt.Errorf("identity %q is not the subject of the machine's certificate", text)
	}
	return wire.ID{}, fmt.Errorf("identity %q is not of the form fqdn:NAME, email:ADDRESS, ip:ADDRESS or dn:NAME", text)
}

// idString prints an identity for people; what is not printable is escaped, because the peer chose it.
func idString(id wire.ID) string {
	switch id.Type {
	case wire.IDFQDN, wire.IDRFC822:
		q := fmt.Sprintf("%q", id.Data)
		return q[1 : len(q)-1]
	case wire.IDIPv4Addr, wire.IDIPv6Addr:
		if a, ok := netip.AddrFromSlice(id.Data); ok {
			return a.String()
		}
	case wire.IDDERASN1DN:
		var seq pkix.RDNSequence
		if rest, err := asn1.Unmarshal(id.Data, &seq); err == nil && len(rest) == 0 {
			q := fmt.Sprintf("%q", seq.String())
			return q[1 : len(q)-1]
		}
	}
	return id.Type.String() + ":" + hex.EncodeToString(id.Data)
}
