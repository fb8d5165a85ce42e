package ikev2

import (
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// RFC 7296 lets each side authenticate its own message of IKE_SA_INIT. Who breaks the key exchange that both can be brought
// down to, while they negotiate, can then change what each of them hears of the other. Where both support
// draft-ietf-ipsecme-ikev2-downgrade-prevention, AUTH of each side covers both messages. Each side says so whatever the
// other one says, so that taking a notify away makes the two disagree about what AUTH covers.

// transcriptPrefix is the length of the zeros before the two messages. Otherwise the SPI of the initiator stands there,
// which is never zero: so AUTH of one kind is never AUTH of the other.
const transcriptPrefix = 8

// transcriptSupport announces it.
func (s *SA) transcriptSupport() []wire.Payload {
	if s.cfg.Transcript == spd.TranscriptNever {
		return nil
	}
	return []wire.Payload{wire.Notify{Type: wire.NotifyFullTranscriptAuth}}
}

// transcriptAgreed reports whether AUTH covers both messages, judged by the peer's one. ok is false when the policy wants
// that and the peer does not.
func transcriptAgreed(setting spd.Transcript, m wire.Message) (whole, ok bool) {
	_, supported := wire.FindNotify(m.Payloads, wire.NotifyFullTranscriptAuth)
	return supported && setting != spd.TranscriptNever, supported || setting != spd.TranscriptRequire
}

const errNoTranscript = "the policy requires that AUTH covers the whole of IKE_SA_INIT, which the peer does not support"

// signedInit is what AUTH of one side covers of IKE_SA_INIT, in parts: its own message, or a prefix, the other one and then
// its own.
func (hs *handshake) signedInit(initiator bool) [][]byte {
	own, other := hs.request, hs.response
	if !initiator {
		own, other = other, own
	}
	if !hs.transcript {
		return [][]byte{own}
	}
	return [][]byte{make([]byte, transcriptPrefix), other, own}
}
