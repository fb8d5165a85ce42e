package spd

import "fmt"

// State is what the machine knows, at the moment of a packet, about security with the packet's peer for the selectors of
// its filter.
type State uint8

// The states.
const (
	// StateNone: no association, and no negotiation was started.
	StateNone State = iota + 1
	// StateNegotiating: IKE runs, and the peer was not yet silent for the delay of the fallback.
	StateNegotiating
	// StateSilent: the peer did not answer IKE for the delay of the fallback, or until IKE gave up.
	StateSilent
	// StateFailed: the peer answered, and the negotiation failed.
	StateFailed
	// StateSoft: a soft association lives.
	StateSoft
	// StateLive: a pair of SAs lives.
	StateLive
	// StateSecured: no SA lives, but this very flow was protected before. It never goes back to clear.
	StateSecured
)

// States lists every state in the order of the tables.
func States() []State {
	return []State{StateNone, StateNegotiating, StateSilent, StateFailed, StateSoft, StateLive, StateSecured}
}

// String names the state.
func (s State) String() string {
	switch s {
	case StateNone:
		return "none"
	case StateNegotiating:
		return "negotiating"
	case StateSilent:
		return "silent"
	case StateFailed:
		return "failed"
	case StateSoft:
		return "soft"
	case StateLive:
		return "live"
	case StateSecured:
		return "secured"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Fate is what happens to a packet. The zero value drops.
type Fate uint8

// The fates.
const (
	Drop    Fate = iota
	Pass         // in clear
	Hold         // queued, within bounds, until the negotiation ends
	Protect      // through the SA
)

// String names the fate.
func (f Fate) String() string {
	switch f {
	case Drop:
		return "drop"
	case Pass:
		return "pass"
	case Hold:
		return "hold"
	case Protect:
		return "protect"
	}
	return fmt.Sprintf("fate(%d)", uint8(f))
}

// Effect is what a packet sets off beside its own fate. The zero value sets off nothing.
type Effect uint8

// The effects.
const (
	Nothing Effect = iota
	Acquire        // start a negotiation with the peer, unless one runs
	Soften         // create a soft association with the peer, which is an auditable event
)

// String names the effect.
func (e Effect) String() string {
	switch e {
	case Nothing:
		return "nothing"
	case Acquire:
		return "acquire"
	case Soften:
		return "soften"
	}
	return fmt.Sprintf("effect(%d)", uint8(e))
}

// Verdict is the answer of the tables. The zero value drops.
type Verdict struct {
	Fate   Fate
	Effect Effect
}

// String prints the fate, and the effect if there is one.
func (v Verdict) String() string {
	if v.Effect == Nothing {
		return v.Fate.String()
	}
	return v.Fate.String() + ", " + v.Effect.String()
}

// Outbound is the table for outbound packets. Whatever it does not know, it drops.
func Outbound(m Match, s State) Verdict {
	switch m.Action {
	case ActionPermit:
		return Verdict{Fate: Pass}
	case ActionNegotiate:
		if m.Rule == nil || m.Group { // IKE has no peer to negotiate with behind a group address
			return Verdict{}
		}
		return outboundNegotiate(m.Rule.Action.Fallback.Mode, s)
	case ActionBlock:
	}
	return Verdict{}
}

func outboundNegotiate(fallback FallbackMode, s State) Verdict {
	soft := fallback == FallbackWait || fallback == FallbackDiscover
	switch s {
	case StateLive:
		return Verdict{Fate: Protect}
	case StateNone:
		if fallback == FallbackDiscover {
			return Verdict{Pass, Acquire}
		}
		return Verdict{Hold, Acquire}
	case StateNegotiating:
		if fallback == FallbackDiscover {
			return Verdict{Fate: Pass}
		}
		return Verdict{Fate: Hold}
	case StateSilent:
		if soft {
			return Verdict{Pass, Soften}
		}
		return Verdict{Drop, Acquire}
	case StateSoft:
		if soft {
			return Verdict{Fate: Pass}
		}
		return Verdict{Hold, Acquire} // left over from a policy that allowed it
	case StateSecured:
		return Verdict{Hold, Acquire}
	case StateFailed: // fallback is for silence only
	}
	return Verdict{}
}

// Inbound is the table for inbound packets, after decryption if they came protected. protected tells that the packet
// came through an SA whose selectors cover it and that was negotiated for the same rule, or for the default response
// where no rule negotiates; anything else that is not clear was dropped before. The verdict never has an effect: an
// inbound packet starts nothing, the reply to it does.
func Inbound(m Match, s State, protected bool) Verdict {
	switch m.Action {
	case ActionPermit:
		return Verdict{Fate: Pass}
	case ActionNegotiate:
		if m.Rule == nil || m.Group {
			return Verdict{}
		}
		if protected || acceptsClear(m.Rule.Action, s) {
			return Verdict{Fate: Pass}
		}
	case ActionBlock:
	}
	return Verdict{}
}

// acceptsClear tells whether a clear inbound packet may pass a negotiate filter.
func acceptsClear(a FilterAction, s State) bool {
	if a.Fallback.Mode == FallbackDiscover {
		switch s {
		case StateLive, StateSecured: // a flow once secured never goes back, in either direction
			return false
		case StateNegotiating, StateSoft, StateSilent: // the answer to what was sent in clear meanwhile
			return true
		case StateNone, StateFailed:
		}
	}
	return a.Inpass || s == StateSoft && a.Fallback.Mode == FallbackWait
}
