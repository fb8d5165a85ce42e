package ikev2

import (
	"bytes"
	"crypto/subtle"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// A peer that was restarted without a word knows nothing of the IKE SA. It can say so to the next message of this side
// (INVALID_IKE_SPI), or to ESP (INVALID_SPI), but not prove it: such messages are not protected, and anyone can send
// them. They cause a liveness check before its time and nothing else (RFC 7296 2.4). With quick crash detection (RFC
// 6290) each side gives the other a token while the SA lives, which only itself can compute, from a secret that outlives
// its restart: the right token in the clear is the proof, and ends the SA as soon as nothing would be in clear because of that.

const (
	// hintEvery bounds the liveness checks that unprotected messages cause.
	hintEvery = 5 * time.Second
	// RFC 6290 4.1: the length of a token in octets.
	tokenMin, tokenMax = 16, 128
)

// crash is what an SA knows of tokens.
type crash struct {
	token  []byte    // of the peer, nil when it gave none
	hinted time.Time // when an unprotected message last caused a liveness check
}

// ownToken is the notify that gives this side's token to the peer; nothing when this side has no secret.
func (s *SA) ownToken() []wire.Payload {
	if s.cfg.CrashSecret.Len() == 0 {
		return nil
	}
	return []wire.Payload{wire.Notify{
		Protocol: wire.ProtocolIKE, Type: wire.NotifyQuickCrashDetection,
		Data: suite.CrashToken(s.cfg.CrashSecret, s.spii(), s.spir()),
	}}
}

// takeToken keeps the peer's token, from an authenticated message.
func (s *SA) takeToken(payloads []wire.Payload) {
	if n, ok := wire.FindNotify(payloads, wire.NotifyQuickCrashDetection); ok && len(n.Data) >= tokenMin && len(n.Data) <= tokenMax {
		s.token = bytes.Clone(n.Data)
	}
}

// giveToken sends the token of an IKE SA that a rekey made: its SPIs are new (RFC 6290 4.3).
type giveToken struct{}

func (*giveToken) rank() int { return rankLiveness }

func (*giveToken) begin(s *SA) bool {
	token := s.ownToken()
	if token == nil || s.state != StateEstablished {
		return false
	}
	s.request(wire.Informational, token...)
	return true
}

func (t *giveToken) finish(s *SA, _ message) { s.done(t) }

// protected reports whether the peer encrypted a message. Of one that it did not only a token counts.
func protected(m wire.Message) bool {
	if len(m.Payloads) == 0 {
		return false
	}
	switch m.Payloads[len(m.Payloads)-1].(type) {
	case wire.Encrypted, wire.Fragment:
		return true
	}
	return false
}

// receiveUnprotected handles a message in the clear that names an established SA.
func (s *SA) receiveUnprotected(m wire.Message) {
	if !s.state.established() {
		return
	}
	if n, ok := wire.FindNotify(m.Payloads, wire.NotifyQuickCrashDetection); ok && len(s.token) > 0 &&
		subtle.ConstantTimeCompare(n.Data, s.token) == 1 {
		s.note(PeerForgot{})
		return
	}
	if _, ok := wire.FindNotify(m.Payloads, wire.NotifyInvalidIKESPI); ok && m.Header.Response() {
		s.hint()
	}
}

// PeerLostChild handles an unprotected INVALID_SPI about the outbound half of a Child SA.
func (s *SA) PeerLostChild(now time.Time, out sa.SPI) {
	s.now = now
	if s.state.established() && s.childByOut(out) != nil {
		s.hint()
		s.advance()
	}
}

// PeerForgot says that the peer has proved that it knows nothing of the IKE SA any more. Whoever takes the note ends the
// SA, which else goes on.
type PeerForgot struct{}

func (PeerForgot) note() {}

// hint asks the peer whether it is there, though not for everybody who says that it is not.
func (s *SA) hint() {
	if s.now.Sub(s.hinted) < hintEvery || s.Busy() || s.state != StateEstablished {
		return
	}
	s.hinted = s.now
	s.enqueue(&liveness{}, timeZero)
}
