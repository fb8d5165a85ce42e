package ikev2

import (
	"fmt"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

// trace tells of a decision. The text is put together only when somebody reads it, so the arguments must not change.
func (s *SA) trace(format string, args ...any) {
	if false { // tells go vet that this is a formatting function
		_ = fmt.Sprintf(format, args...)
	}
	if s.cfg.Untraced {
		return
	}
	s.tell(&ike.Trace{Kind: ike.TraceDecided, Text: ike.Sentence{Format: format, Args: args}})
}

// tell completes a line with what is known of the peer.
func (s *SA) tell(t *ike.Trace) {
	t.IKE, t.Peer, t.Remote = ike.IKESPI(s.own), s.peerName, s.remote
	t.Known = s.initiator || s.peerName != ""
	s.host.Emit(t)
}

// traceMessage tells of a message that was sent, received or repeated.
func (s *SA) traceMessage(kind ike.TraceKind, m wire.Message) {
	if s.cfg.Untraced {
		return
	}
	v := m.Summary()
	routine := kind != ike.TraceRepeated && v.Exchange == wire.Informational && v.Empty()
	s.tell(&ike.Trace{Kind: kind, Routine: routine, Text: v})
}

// drop tells of a message that has no effect, and why. The SA goes on.
func (s *SA) drop(reason ike.Reason, h wire.Header, detail error) {
	s.tell(&ike.Trace{Kind: ike.TraceDropped, Reason: reason, Text: dropped{h.Exchange, h.Response(), h.MessageID, detail}})
	s.note(Dropped{Reason: reason})
}

// refuseRequest tells that a request of the peer for a Child SA, or for a rekey, was not served, and why.
func (s *SA) refuseRequest(reason ike.Reason, detail string) {
	s.trace("refuse: %s", describe(reason, detail))
	s.note(ChildRefused{Reason: reason, Detail: detail})
}

// dropped is the text of a dropped message.
type dropped struct {
	exchange wire.ExchangeType
	response bool
	id       uint32
	detail   error // may be nil
}

// String names the message, and what is wrong with it.
func (d dropped) String() string {
	kind := "request"
	if d.response {
		kind = "response"
	}
	text := fmt.Sprintf("%s %s %d", d.exchange, kind, d.id)
	if d.detail != nil {
		text += ": " + d.detail.Error()
	}
	return text
}

// Dropped says that a message of the peer had no effect.
type Dropped struct{ Reason ike.Reason }

func (Dropped) note() {}
