package analyze

import (
	"fmt"
	"slices"

	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Flow tells what becomes of a packet that one end sends to the other, of the answer to it, and of the packets of the
// flow after that. No other traffic between the two is assumed to have been there before.
func Flow(from, to End, p spd.Packet) Outcome {
	x := exchange{ends: [2]*End{&from, &to}}
	o := Outcome{From: from.Name, To: to.Name}
	later := p
	later.Opens = false
	reply := later.Reverse()
	o.Request = x.packet(0, p)
	o.Reply = x.answer(o.Request, reply)
	o.LaterRequest = x.packet(0, later)
	o.LaterReply = x.answer(o.LaterRequest, reply)
	o.conclude()
	return o
}

// conclude takes the worst of the later packets. A flow whose packets get through once and never again is blocked.
func (o *Outcome) conclude() {
	worst := &o.LaterRequest
	if o.LaterReply.Result < worst.Result {
		worst = &o.LaterReply
	}
	o.Result, o.Code, o.Sentence = worst.Result, worst.Code, worst.Sentence
	if worst.Code == CodeNoRequest {
		o.Code, o.Sentence = o.LaterRequest.Code, o.LaterRequest.Sentence
	}
	if a, b := o.LaterRequest.Result, o.LaterReply.Result; o.Result != Blocked && a != b && (a == IPsec || b == IPsec) {
		o.Code = CodeOneWay
		o.Sentence = fmt.Sprintf("%s to %s is %s, and the way back is %s: %s", o.From, o.To, a, b, o.Sentence)
	}
}

// exchange is what the two ends know of each other while a flow goes on.
type exchange struct {
	ends   [2]*End
	sas    []*association
	failed [2]result // the other end answered, and they did not agree
	soft   [2]result // clear traffic was granted to the other end
}

// result is what a negotiation of an end came to that made no association.
type result struct {
	rule string
	*Negotiation
}

// of reports whether it is about a rule.
func (r result) of(rule *spd.Rule) bool { return r.Negotiation != nil && r.rule == rule.ID }

// find returns the association of a rule, or of the default response, for a packet that an end sends.
func (x *exchange) find(sender, end int, rule string, p spd.Packet) *association {
	for _, a := range x.sas {
		if a.rules[end] == rule && a.covers(sender, p) {
			return a
		}
	}
	return nil
}

// association is a pair of SAs as both ends see it.
type association struct {
	rules [2]string // empty for the default response
	local [2][]spd.Selector
	made  *Negotiation
}

// covers reports whether a packet that an end sends belongs to the association.
func (a *association) covers(sender int, p spd.Packet) bool {
	return contains(a.local[sender], p.Protocol, spd.HostSelector(p.Source), p.SourcePort) &&
		contains(a.local[1-sender], p.Protocol, spd.HostSelector(p.Destination), p.DestinationPort)
}

func contains(list []spd.Selector, protocol uint8, host spd.Selector, port uint16) bool {
	host.Protocol = protocol
	if spd.HasPorts(protocol) {
		host.PortFrom, host.PortTo = port, port
	}
	return slices.ContainsFunc(list, func(s spd.Selector) bool { return s.Contains(host) })
}

// answer is the packet that answers a step.
func (x *exchange) answer(to Step, p spd.Packet) Step {
	if to.Result == Blocked {
		return Step{
			Packet: p, Result: Blocked, Code: CodeNoRequest,
			Sender: x.ends[1].Set.LookupByAddress(spd.Out, p), Receiver: x.ends[0].Set.LookupByAddress(spd.In, p),
			Sentence: fmt.Sprintf("%s has nothing to answer", x.ends[1].Name),
		}
	}
	return x.packet(1, p)
}

// packet sends a packet from one end to the other.
func (x *exchange) packet(sender int, p spd.Packet) Step {
	from, to := x.ends[sender], x.ends[1-sender]
	s := Step{Packet: p, Sender: from.Set.LookupByAddress(spd.Out, p), Receiver: to.Set.LookupByAddress(spd.In, p)}
	x.send(sender, &s)
	if s.Result != Blocked {
		x.receive(1-sender, &s)
	}
	return s
}

// send decides whether a packet leaves, and how.
func (x *exchange) send(sender int, s *Step) {
	from, to, m := x.ends[sender], x.ends[1-sender], s.Sender
	end := func(r Result, c Code, format string, args ...any) {
		s.Result, s.Code, s.Sentence = r, c, fmt.Sprintf(format, args...)
	}
	if a := x.find(sender, sender, "", s.Packet); m.Filter == nil && a != nil {
		// Nothing but an SA of the default response asks for protection here.
		s.via = a
		end(IPsec, CodeProtected, "%s protects it with the association that %s asked for", from.Name, to.Name)
		return
	}
	if m.Action != spd.ActionNegotiate || m.Rule == nil || m.Group {
		x.plain(sender, s)
		return
	}
	state := x.state(sender, sender, m.Rule, s.Packet)
	v := spd.Outbound(m, state)
	if v.Effect != spd.Acquire {
		x.settled(sender, s, state, v.Fate)
		return
	}
	n := x.negotiate(sender, m, s.Packet)
	s.Negotiation = n
	switch {
	case v.Fate == spd.Pass: // discovery: this one is gone already
		end(Fallback, CodeDiscover, "%s sends it in clear while it asks %s for security (rule %q)", from.Name, to.Name, m.Rule.ID)
		if !n.Made() {
			x.soft[sender] = result{m.Rule.ID, n}
		}
	case n.Made() && n.Elsewhere != "":
		s.via = x.sas[len(x.sas)-1]
		end(IPsec, CodeElsewhere, "%s protects it to the gateway %s (rule %q)", from.Name, n.Elsewhere, m.Rule.ID)
	case n.Made():
		s.via = x.sas[len(x.sas)-1]
		end(IPsec, CodeProtected, "%s protects it with %s, authenticated by %s (rule %q)", from.Name, n.ESP, n.InitiatorAuth.Method, m.Rule.ID)
	case n.Silent && spd.Outbound(m, spd.StateSilent).Fate == spd.Pass:
		x.soft[sender] = result{m.Rule.ID, n}
		end(Fallback, CodeSoft, "%s answers no IKE, so %s falls back to clear (rule %q)", to.Name, from.Name, m.Rule.ID)
	case n.Silent:
		end(Blocked, CodeSilent, "%s answers no IKE, and rule %q of %s grants no clear traffic", to.Name, m.Rule.ID, from.Name)
	default:
		x.failed[sender] = result{m.Rule.ID, n}
		end(Blocked, CodeNotMade, "%s cannot agree with %s: %s", from.Name, to.Name, n.Mismatch.Sentence)
	}
}

// settled is the fate of a packet about which nothing has to be asked any more.
func (x *exchange) settled(sender int, s *Step, state spd.State, fate spd.Fate) {
	from, to := x.ends[sender], x.ends[1-sender]
	a := x.find(sender, sender, s.Sender.Rule.ID, s.Packet)
	switch {
	case fate == spd.Protect && a.made.Elsewhere != "":
		s.Result, s.Code, s.via = IPsec, CodeElsewhere, a
		s.Sentence = fmt.Sprintf("%s protects it to the gateway %s", from.Name, a.made.Elsewhere)
	case fate == spd.Protect:
		s.Result, s.Code, s.via = IPsec, CodeProtected, a
		s.Sentence = fmt.Sprintf("%s protects it with %s", from.Name, a.made.ESP)
	case fate == spd.Pass && !x.soft[sender].Silent:
		s.Result, s.Code = Fallback, CodeDiscover
		s.Sentence = fmt.Sprintf("%s sends it in clear, because it does not agree with %s: %s", from.Name, to.Name, x.soft[sender].Mismatch.Sentence)
	case fate == spd.Pass:
		s.Result, s.Code, s.Sentence = Fallback, CodeSoft, fmt.Sprintf("%s talks in clear with %s, which answers no IKE", from.Name, to.Name)
	case state == spd.StateFailed:
		s.Result, s.Code, s.Negotiation = Blocked, CodeNotMade, x.failed[sender].Negotiation
		s.Sentence = fmt.Sprintf("%s cannot agree with %s: %s", from.Name, to.Name, x.failed[sender].Mismatch.Sentence)
	default:
		s.Result, s.Code, s.Sentence = Blocked, CodeSilent, fmt.Sprintf("%s drops it in state %s", from.Name, state)
	}
}

// plain is the fate of a packet about which nobody negotiates.
func (x *exchange) plain(sender int, s *Step) {
	from, m := x.ends[sender], s.Sender
	switch spd.Outbound(m, spd.StateNone).Fate {
	case spd.Pass:
		s.Result = Clear
		s.Code, s.Sentence = permitted(from, m, "sends it in clear")
	default:
		s.Result = Blocked
		s.Code, s.Sentence = dropped(from, m)
	}
}

// permitted says why a policy lets a packet pass in clear.
func permitted(e *End, m spd.Match, what string) (Code, string) {
	switch {
	case m.Exempt != "":
		return CodeExempt, fmt.Sprintf("%s %s, because it is exempt from every rule (%s)", e.Name, what, m.Exempt)
	case m.Rule != nil:
		return CodePermitted, fmt.Sprintf("%s %s, as rule %q says", e.Name, what, m.Rule.ID)
	case !e.Node:
		return CodeNoFilter, fmt.Sprintf("%s %s, because it has no policy", e.Name, what)
	}
	return CodeNoFilter, fmt.Sprintf("%s %s, because no filter of its policy describes it", e.Name, what)
}

// dropped says why a policy drops a packet that nobody can negotiate about.
func dropped(e *End, m spd.Match) (Code, string) {
	switch {
	case m.Rule == nil:
		return CodeUnknown, fmt.Sprintf("%s drops it, because the packet is about an address that its policy does not know yet", e.Name)
	case m.Action == spd.ActionNegotiate:
		return CodeMulticast, fmt.Sprintf("%s drops it, because rule %q wants it protected and nobody can negotiate with a multicast or broadcast address", e.Name, m.Rule.ID)
	}
	return CodeRule, fmt.Sprintf("%s drops it, as rule %q says", e.Name, m.Rule.ID)
}

// receive decides whether a packet that has left is accepted.
func (x *exchange) receive(receiver int, s *Step) {
	from, to, m := x.ends[1-receiver], x.ends[receiver], s.Receiver
	protected := s.Result == IPsec && s.Code != CodeElsewhere // a gateway takes the tunnel off
	negotiates := m.Action == spd.ActionNegotiate
	drop := func(c Code, format string, args ...any) {
		s.Result, s.Code, s.Sentence = Blocked, c, fmt.Sprintf(format, args...)
	}
	if protected {
		if negotiates && (m.Rule == nil || m.Rule.ID != s.via.rules[receiver]) {
			drop(CodeWrongSA, "%s drops it: it wants the association of rule %q for it, and this one was made for %s", to.Name, ruleID(m), s.via.name(receiver))
			return
		}
		if spd.Inbound(m, spd.StateLive, true).Fate != spd.Pass {
			s.Result = Blocked
			s.Code, s.Sentence = dropped(to, m)
		}
		return
	}
	state := spd.StateNone
	if m.Rule != nil {
		state = x.state(1-receiver, receiver, m.Rule, s.Packet)
	}
	if spd.Inbound(m, state, false).Fate == spd.Pass {
		x.accepted(to, s)
		return
	}
	if negotiates && m.Rule != nil && !m.Group {
		drop(CodeClearRefused, "%s sends it in clear, and rule %q of %s does not accept that", from.Name, m.Rule.ID, to.Name)
		return
	}
	s.Result = Blocked
	s.Code, s.Sentence = dropped(to, m)
}

// accepted completes the sentence of a packet that was accepted in clear.
func (x *exchange) accepted(to *End, s *Step) {
	if s.Receiver.Action == spd.ActionNegotiate && s.Result != IPsec {
		if s.Result == Clear {
			s.Code = CodeInpass
		}
		s.Sentence += fmt.Sprintf("; %s accepts it, as rule %q allows", to.Name, ruleID(s.Receiver))
	}
}

// state is what an end knows about security for a packet of its rule that either of the two sends.
func (x *exchange) state(sender, end int, rule *spd.Rule, p spd.Packet) spd.State {
	switch {
	case x.find(sender, end, rule.ID, p) != nil:
		return spd.StateLive
	case x.soft[end].of(rule):
		return spd.StateSoft
	case x.failed[end].of(rule):
		return spd.StateFailed
	}
	return spd.StateNone
}

func ruleID(m spd.Match) string {
	if m.Rule == nil {
		return ""
	}
	return m.Rule.ID
}

func (a *association) name(end int) string {
	if a.rules[end] == "" {
		return "the default response"
	}
	return fmt.Sprintf("rule %q", a.rules[end])
}
