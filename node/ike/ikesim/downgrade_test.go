package ikesim

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// rewrite lets somebody in the middle change the IKE_SA_INIT messages of one direction.
func (w *World) rewrite(response bool, change func(payloads []wire.Payload) []wire.Payload) {
	w.translate = func(_, _ *Node, d *ike.Datagram) bool {
		m, err := wire.ParseMessage(d.Bytes, wire.LimitBeforeAuth)
		if err == nil && m.Header.Exchange == wire.IKESAInit && m.Header.Response() == response {
			m.Payloads = change(m.Payloads)
			d.Bytes = wire.AppendMessage(nil, m)
		}
		return true
	}
}

func without(kind wire.NotifyType) func([]wire.Payload) []wire.Payload {
	return func(payloads []wire.Payload) []wire.Payload {
		return slices.DeleteFunc(slices.Clone(payloads), func(p wire.Payload) bool {
			n, ok := p.(wire.Notify)
			return ok && n.Type == kind
		})
	}
}

// Whoever changes IKE_SA_INIT on the way brings the two sides to another key exchange at best, never to an IKE SA.
func TestDowngrade(t *testing.T) {
	hybrid, plain := exchanging(proposal.GroupX25519, proposal.GroupMLKEM768), exchanging(proposal.GroupX25519)
	offers := []proposal.IKE{hybrid, plain}
	for name, attack := range map[string]func(w *World){
		"IKE_INTERMEDIATE is taken from the request":  func(w *World) { w.rewrite(false, without(wire.NotifyIntermediateExchangeSupported)) },
		"IKE_INTERMEDIATE is taken from the response": func(w *World) { w.rewrite(true, without(wire.NotifyIntermediateExchangeSupported)) },
		"the offer is taken from the request": func(w *World) {
			w.rewrite(false, func(payloads []wire.Payload) []wire.Payload {
				payloads = slices.Clone(payloads)
				for i, p := range payloads {
					if offer, ok := p.(wire.SA); ok {
						payloads[i] = wire.SA{Proposals: offer.Proposals[1:]}
					}
				}
				return payloads
			})
		},
		"the choice is another in the response": func(w *World) {
			w.rewrite(true, func(payloads []wire.Payload) []wire.Payload {
				payloads = slices.Clone(payloads)
				for i, p := range payloads {
					if _, ok := p.(wire.SA); ok {
						payloads[i] = wire.AnswerIKE(plain, 2, wire.SA{}, 0)
					}
				}
				return payloads
			})
		},
		"the whole transcript is taken from the request":  func(w *World) { w.rewrite(false, without(wire.NotifyFullTranscriptAuth)) },
		"the whole transcript is taken from the response": func(w *World) { w.rewrite(true, without(wire.NotifyFullTranscriptAuth)) },
	} {
		for _, auth := range []spd.Auth{pskAuth, certAuth} {
			w, a, b := offering(4, Faults{Delay: 5 * time.Millisecond}, auth, offers, offers)
			attack(w)
			a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
			w.Run(2 * time.Minute)
			if a.Ups+b.Ups > 0 {
				t.Errorf("%s: an IKE SA is up\n%s", name, story(w))
			}
			w.translate = nil // nobody in the middle any more
			a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
			w.Run(time.Minute)
			mirrored(t, w, a, b, 1)
			if got := suiteOf(t, a); got != hybrid {
				t.Errorf("%s: afterwards the IKE SA has %s", name, got)
			}
		}
	}
}

// The settings of both sides decide whether AUTH covers both messages of IKE_SA_INIT, and whether there is an IKE SA.
func TestTranscript(t *testing.T) {
	for _, c := range []struct {
		a, b spd.Transcript
		up   bool
	}{
		{spd.TranscriptPrefer, spd.TranscriptPrefer, true},
		{spd.TranscriptPrefer, spd.TranscriptNever, true},
		{spd.TranscriptNever, spd.TranscriptPrefer, true},
		{spd.TranscriptRequire, spd.TranscriptPrefer, true},
		{spd.TranscriptPrefer, spd.TranscriptRequire, true},
		{spd.TranscriptRequire, spd.TranscriptNever, false},
		{spd.TranscriptNever, spd.TranscriptRequire, false},
	} {
		for _, auth := range []spd.Auth{pskAuth, certAuth} {
			w := New(7, Faults{Delay: 5 * time.Millisecond})
			w.Tracing = true
			ca, cb := config("a.example", addrA, meshRule(addrA, auth)), config("b.example", addrB, meshRule(addrB, auth))
			ca.Transcript, cb.Transcript = c.a, c.b
			a, b := w.Add("a.example", addrA, ca), w.Add("b.example", addrB, cb)
			a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
			w.Run(2 * time.Minute)
			if c.up {
				mirrored(t, w, a, b, 1)
			} else if a.Ups+b.Ups > 0 {
				t.Errorf("%s against %s: an IKE SA is up", c.a, c.b)
			}
			want := c.a != spd.TranscriptNever || c.up // the responder says so whatever the initiator says, unless it refuses
			if announced := strings.Contains(story(w), "N(IKE_SA_INIT_FULL_TRANSCRIPT_AUTH)"); announced != want {
				t.Errorf("%s against %s: announced %v, want %v", c.a, c.b, announced, want)
			}
		}
	}
}
