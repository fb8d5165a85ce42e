package ikev2

import (
	"errors"
	"net/netip"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/impair"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"

	"crypto/sha256"
)

// message is a message of the peer, decrypted.
type message struct {
	header   wire.Header
	payloads []wire.Payload
	plaintext
}

// plaintext is the inside of a protected message before it is parsed: a chain of payloads.
type plaintext struct {
	first wire.PayloadType
	inner []byte
}

// Receive handles a datagram for this SA. It is parsed; its octets are valid during the call only.
func (s *SA) Receive(now time.Time, local, remote netip.AddrPort, datagram []byte, m wire.Message) {
	s.now = now
	s.receive(local, remote, datagram, m)
	if s.state != StateClosed {
		s.advance()
	}
}

func (s *SA) receive(local, remote netip.AddrPort, datagram []byte, m wire.Message) {
	if m.Header.FromInitiator() == s.initiator { // an own message
		s.drop(ike.ReasonReflected, m.Header, nil)
		return
	}
	if s.state == StateClosed {
		s.repeat(local, remote, datagram, m)
		return
	}
	if m.Header.Exchange == wire.IKESAInit {
		if s.initiator && m.Header.Response() && s.hs != nil {
			s.receiveInitResponse(local, remote, datagram, m)
		} else {
			s.drop(ike.ReasonMessageID, m.Header, nil) // it has had its answer
		}
		return
	}
	switch {
	case !protected(m) && s.hs == nil:
		s.drop(ike.ReasonUnprotected, m.Header, nil)
		s.receiveUnprotected(m)
	case s.in == nil:
		s.hold(local, remote, datagram, m)
	case m.Header.Response():
		s.receiveResponse(local, remote, datagram, m)
	default:
		s.receiveRequest(local, remote, datagram, m)
	}
}

// repeat sends the last response again when the peer repeats the request (RFC 7296 2.1), and nothing else.
func (s *SA) repeat(local, remote netip.AddrPort, datagram []byte, m wire.Message) bool {
	last := &s.win.last
	if m.Header.Response() || !last.valid || m.Header.MessageID != last.id {
		return false
	}
	if !s.repeated(datagram, m) {
		return true
	}
	for _, c := range s.children { // the initiator has not seen the response yet
		if !c.confirm.IsZero() {
			c.confirm = s.now.Add(confirmWait)
		}
	}
	if last.asked++; last.asked >= shrinkAfter && s.state != StateClosed {
		s.shrink(&last.sealed)
	}
	s.tell(&ike.Trace{Kind: ike.TraceRepeated, Text: ike.Sentence{Format: "%s response %d, asked for again", Args: []any{m.Header.Exchange, last.id}}})
	for _, d := range last.datagrams {
		if impair.On(impair.AnswerDiffers) {
			d = append(d[:len(d)-1:len(d)-1], ^d[len(d)-1])
		}
		s.host.Emit(ike.Send{Local: local, Remote: remote, Bytes: d})
	}
	return true
}

// repeated reports whether a datagram asks for the last response again: the same octets, or the same message cut into
// more fragments than before, which only its author can make (RFC 7383 2.6). Only the first fragment asks (2.6.1).
func (s *SA) repeated(datagram []byte, m wire.Message) bool {
	last := &s.win.last
	if len(m.Payloads) > 0 {
		if f, ok := m.Payloads[len(m.Payloads)-1].(wire.Fragment); ok {
			switch {
			case f.Number != 1:
				return false
			case f.Total > last.total && last.in != nil && s.state != StateClosed:
				_, err := last.in.OpenFragment(datagram, f)
				if err == nil && last.asked+1 < shrinkAfter {
					last.asked = shrinkAfter - 1 // the peer has found the path to be narrow
				}
				return err == nil
			}
		}
	}
	return sha256.Sum256(datagram) == last.digest
}

func (s *SA) receiveRequest(local, remote netip.AddrPort, datagram []byte, m wire.Message) {
	if s.repeat(local, remote, datagram, m) {
		return
	}
	if m.Header.MessageID != s.win.expect {
		s.drop(ike.ReasonMessageID, m.Header, nil)
		return
	}
	if s.win.serving != nil {
		s.drop(ike.ReasonBusy, m.Header, nil)
		return
	}
	o, err := s.open(&s.requests, datagram, m)
	if err != nil {
		s.drop(dropReason(err), m.Header, err)
		return
	}
	if !o.done {
		return
	}
	v := &serving{id: m.Header.MessageID, exchange: m.Header.Exchange, digest: o.digest, total: o.total, local: local, remote: remote}
	in := message{header: m.Header, payloads: o.payloads, plaintext: o.plaintext}
	if o.syntax != nil {
		s.win.serving = v
		s.answerSyntax(v, o.syntax)
		return
	}
	s.traceMessage(ike.TraceReceived, wire.Message{Header: m.Header, Payloads: o.payloads})
	if err := accepted(s.state, m.Header, o.payloads); err != nil {
		if errors.Is(err, errNotNow) {
			s.drop(ike.ReasonUnexpected, m.Header, err)
			return
		}
		s.win.serving = v
		s.answerSyntax(v, &wire.Error{Notify: wire.NotifyInvalidSyntax, Detail: err.Error()})
		return
	}
	s.win.serving = v
	s.moved(local, remote)
	confirmed := s.heard(true)
	switch m.Header.Exchange {
	case wire.IKEIntermediate:
		s.serveIntermediate(v, in)
	case wire.IKEAuth:
		s.serveAuth(v, in)
	case wire.CreateChildSA:
		s.serveCreate(v, in)
	case wire.IKEFollowupKE:
		s.serveFollowup(v, in)
	case wire.Informational:
		s.serveInformational(v, in)
	}
	s.confirm(confirmed)
}

// answerSyntax answers an authentic but malformed request. INVALID_SYNTAX ends the SA on both sides (RFC 7296 2.21.3).
func (s *SA) answerSyntax(v *serving, err error) {
	var we *wire.Error
	n := wire.Notify{Type: wire.NotifyInvalidSyntax}
	if errors.As(err, &we) && we.Notify != 0 {
		n.Type, n.Data = we.Notify, we.Data
	}
	s.respond(v, n)
	if n.Type == wire.NotifyInvalidSyntax {
		s.end(ike.ReasonSyntax, ike.FaultPeer, err.Error())
	}
}

func (s *SA) receiveResponse(local, remote netip.AddrPort, datagram []byte, m wire.Message) {
	p := s.win.pending
	if p == nil || m.Header.MessageID != p.id || m.Header.Exchange != p.exchange {
		s.drop(ike.ReasonMessageID, m.Header, nil)
		return
	}
	o, err := s.open(&s.responses, datagram, m)
	if err != nil {
		s.drop(dropReason(err), m.Header, err)
		return
	}
	if !o.done {
		return
	}
	s.smallPath = s.smallPath || p.small
	s.win.pending, s.win.silence = nil, 0
	s.traceMessage(ike.TraceReceived, wire.Message{Header: m.Header, Payloads: o.payloads})
	if o.syntax == nil {
		o.syntax = accepted(s.state, m.Header, o.payloads)
	}
	if o.syntax != nil { // RFC 7296 2.21.3: nothing can be answered to a response
		s.end(ike.ReasonSyntax, ike.FaultPeer, o.syntax.Error())
		return
	}
	s.moved(local, remote)
	s.arrived(local, remote)
	s.confirm(s.heard(false))
	s.note(Answered{})
	in := message{header: m.Header, payloads: o.payloads, plaintext: o.plaintext}
	if n, ok := wire.FindNotify(o.payloads, wire.NotifyInvalidSyntax); ok && s.state.established() {
		s.end(ike.ReasonPeerSyntax, ike.FaultLocal, "the peer answered with "+n.Type.String())
		return
	}
	switch m.Header.Exchange {
	case wire.IKEIntermediate:
		s.receiveIntermediate(in)
		return
	case wire.IKEAuth:
		s.giveUp = s.now.Add(jobTimeout)
		s.receiveAuthResponse(in)
		return
	case wire.IKEFollowupKE:
		s.finishFollowup(in)
		return
	}
	if s.current != nil {
		s.current.finish(s, in)
	}
}

// moved follows a peer behind a NAT to a new address, from an authentic new message only. A side that is behind a NAT
// itself does not follow (RFC 7296 2.23). Before the end of IKE_AUTH the peer may move to port 4500.
func (s *SA) moved(local, remote netip.AddrPort) {
	if s.local == local && s.remote == remote || s.mobile { // RFC 4555 3.8: with MOBIKE the peer tells where it is
		return
	}
	authenticating := s.state == StateIntermediate || s.state == StateAuthenticating
	floats := !s.initiator && authenticating && local.Addr() == s.local.Addr() && remote.Addr() == s.remote.Addr()
	if !floats && (!s.natRemote || s.natLocal || authenticating) {
		return
	}
	s.move(local, remote)
}

func (s *SA) move(local, remote netip.AddrPort) {
	s.trace("peer moved from %s to %s", s.remote, remote)
	s.local, s.remote = local, remote
	for _, c := range s.children {
		if !c.gone && c.Encap {
			c.Local, c.Remote = local, remote
			s.host.Emit(ike.Move{SPI: c.In.SPI, Local: local, Remote: remote, Encap: true})
		}
	}
}

// PeerMoved follows authenticated ESP of a Child SA that came from a new address.
func (s *SA) PeerMoved(now time.Time, in sa.SPI, remote netip.AddrPort) {
	s.now = now
	c := s.childByIn(in)
	if s.mobile {
		s.strayed(remote)
		return
	}
	if c == nil || !s.natRemote || s.natLocal || remote == s.remote || remote.Port() == 0 {
		return
	}
	s.trace("peer moved from %s to %s, by ESP", s.remote, remote)
	s.remote = remote
	for _, c := range s.children {
		if !c.gone && c.Encap {
			c.Remote = remote
			if c.In.SPI != in { // the datapath has moved that one
				s.host.Emit(ike.Move{SPI: c.In.SPI, Local: c.Local, Remote: remote, Encap: true})
			}
		}
	}
}
