package ike

import (
	"fmt"
	"net/netip"
)

// Trace is one line of what happened, without secrets. Its text is made only when somebody reads it, so that a trace
// costs little when nobody does. The engine emits pointers, which whoever keeps lines keeps as well: nobody changes one.
type Trace struct {
	IKE    IKESPI         // 0 when no SA is concerned
	Peer   string         // authenticated identity, printable; empty before
	Remote netip.AddrPort // of the peer
	Text   fmt.Stringer
	Reason Reason // of TraceDropped and TraceFailed
	Rule   string // of TraceFailed: of the flow that asked; empty for a peer's request
	Kind   TraceKind
	Fault  Fault // of TraceFailed
	Child  bool  // of TraceFailed: a Child SA failed, not the IKE SA
	// Known tells that this side asked for the SA, or that the peer is authenticated: it is no stranger.
	Known   bool
	Routine bool // of interest only to who watches: a liveness check
}

// TraceKind tells what a line is about.
type TraceKind uint8

// The kinds.
const (
	TraceDecided  TraceKind = iota // a decision of this side, and what it is about
	TraceSent                      // a message of this side
	TraceReceived                  // a message of the peer, whose integrity was proved where it is protected
	TraceRepeated                  // a message of this side again
	TraceDropped                   // a message that has no effect
	TraceState                     // a new state of the IKE SA
	TraceFailed                    // a failure, with reason and fault
	TraceGuard                     // strangers are asked for cookies from now on, or no longer
	TraceLost                      // not of the engine: lines that a reader missed
)

var traceKinds = [...]string{"decided", "sent", "received", "repeated", "dropped", "state", "failed", "guard", "lost"}

// String names the kind.
func (k TraceKind) String() string {
	if int(k) < len(traceKinds) {
		return traceKinds[k]
	}
	return fmt.Sprintf("trace(%d)", uint8(k))
}

// String is the line without the names of SA and peer.
func (t Trace) String() string {
	switch t.Kind {
	case TraceDecided:
		return t.Text.String()
	case TraceRepeated:
		return "retransmit " + t.Text.String()
	case TraceSent:
		return "send " + t.Text.String()
	case TraceDropped:
		return fmt.Sprintf("drop: %s: %s", t.Reason, t.Text)
	case TraceFailed:
		return fmt.Sprintf("failed: %s (fault: %s) %s", t.Reason, t.Fault, t.Text)
	default:
		return t.Kind.String() + " " + t.Text.String()
	}
}

// Sentence is a text that is put together only when it is read. Its arguments must not change any more.
type Sentence struct {
	Format string
	Args   []any
}

// String puts the text together.
func (s Sentence) String() string {
	if len(s.Args) == 0 {
		return s.Format
	}
	return fmt.Sprintf(s.Format, s.Args...)
}

func (*Trace) action() {}
