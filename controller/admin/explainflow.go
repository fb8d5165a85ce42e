package admin

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies/analyze"
	"github.com/bailiwick-net/bailiwick/policies/spd"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// chancePort stands for the source port that a program gets from its system.
const chancePort = 40000

// flowEnd is one end of a flow that is asked about.
type flowEnd struct {
	described *adminv1.FlowEnd
	machine   analyze.Machine
	entry     directory.Machine // zero for a host that is no machine of the directory
	addresses []netip.Addr      // that may be meant
}

// ExplainFlow implements adminv1.AnalysisServiceServer.
func (s *Server) ExplainFlow(ctx context.Context, r *adminv1.ExplainFlowRequest) (*adminv1.ExplainFlowResponse, error) {
	v, err := s.survey(ctx, r.GetSources())
	if err != nil {
		return nil, err
	}
	p, err := flowPacket(r)
	if err != nil {
		return nil, err
	}
	from, err := s.flowEnd(v, r.GetFrom(), r.GetFromAddress(), "from")
	if err != nil {
		return nil, err
	}
	to, err := s.flowEnd(v, r.GetTo(), r.GetToAddress(), "to")
	if err != nil {
		return nil, err
	}
	if p.Source, p.Destination, err = meetingPoint(from, to); err != nil {
		return nil, err
	}
	if p.Protocol == spd.ProtocolICMP && p.Source.Is6() {
		p.Protocol = spd.ProtocolICMPv6
	}
	var ends [2]analyze.End
	for i, e := range []*flowEnd{from, to} {
		own := []netip.Addr{p.Source, p.Destination}[i]
		e.described.Address = own.String()
		ends[i] = e.machine.End
		if e.machine.Rules == nil {
			continue
		}
		if !e.entry.UUID.IsZero() {
			v.admit(e.entry, &ends[i], rulesOf(from, to)...)
		}
		facts := e.machine.Facts
		if !slices.Contains(facts.Addresses, own) {
			facts.Addresses = append(slices.Clone(facts.Addresses), own)
		}
		if ends[i].Set, err = spd.Expand(*e.machine.Rules, facts.Assuming(*e.machine.Rules)); err != nil {
			return nil, status.Errorf(codes.FailedPrecondition, "put policy %q into force with the addresses of %s: %v", e.machine.Policy, ends[i].Name, err)
		}
	}
	o := analyze.Flow(ends[0], ends[1], p)
	response := &adminv1.ExplainFlowResponse{
		From: from.described, To: to.described, Result: o.Result.String(), Code: string(o.Code), Sentence: o.Sentence,
		Negotiation: describeNegotiation(o.Negotiation()),
	}
	names := []string{"request", "reply", "later-request", "later-reply"}
	for i, step := range o.Steps() {
		sender, receiver := o.From, o.To
		if i%2 == 1 {
			sender, receiver = o.To, o.From
		}
		response.Steps = append(response.Steps, &adminv1.FlowStep{
			Name: names[i], Packet: describePacket(step.Packet), Result: step.Result.String(), Code: string(step.Code), Sentence: step.Sentence,
			Sender: describeMatch(sender, step.Sender), Receiver: describeMatch(receiver, step.Receiver), Negotiation: describeNegotiation(step.Negotiation),
		})
	}
	return response, nil
}

func rulesOf(ends ...*flowEnd) []*spd.Policy {
	var out []*spd.Policy
	for _, e := range ends {
		if e.machine.Rules != nil {
			out = append(out, e.machine.Rules)
		}
	}
	return out
}

// flowPacket is the first packet of the flow, without its addresses.
func flowPacket(r *adminv1.ExplainFlowRequest) (spd.Packet, error) {
	if r.GetProtocol() == 0 || r.GetProtocol() > 255 {
		return spd.Packet{}, status.Errorf(codes.InvalidArgument, "IP protocol %d, wanted 1-255", r.GetProtocol())
	}
	p := spd.Packet{Protocol: uint8(r.GetProtocol()), Opens: r.GetProtocol() == spd.ProtocolTCP}
	if !spd.HasPorts(p.Protocol) {
		if r.GetSourcePort() != 0 || r.GetDestinationPort() != 0 {
			return spd.Packet{}, status.Errorf(codes.InvalidArgument, "IP protocol %d has no ports", p.Protocol)
		}
		if r.GetIcmpType() > 255 {
			return spd.Packet{}, status.Errorf(codes.InvalidArgument, "ICMP type %d, wanted 0-255", r.GetIcmpType())
		}
		p.ICMPType = uint8(r.GetIcmpType())
		return p, nil
	}
	if r.GetDestinationPort() == 0 || r.GetDestinationPort() > 65535 || r.GetSourcePort() > 65535 {
		return spd.Packet{}, status.Errorf(codes.InvalidArgument, "port %d to port %d, wanted a destination port of 1-65535", r.GetSourcePort(), r.GetDestinationPort())
	}
	p.SourcePort, p.DestinationPort = uint16(r.GetSourcePort()), uint16(r.GetDestinationPort())
	if p.SourcePort == 0 {
		p.SourcePort = chancePort
	}
	return p, nil
}

// flowEnd finds out what is known of an end. The name of a machine is never resolved by the name service: what the
// controller would get is not what a peer gets.
func (s *Server) flowEnd(v *survey, name, given, side string) (*flowEnd, error) {
	e := &flowEnd{described: &adminv1.FlowEnd{AddressSource: "given"}}
	var address netip.Addr
	if given != "" {
		a, err := netip.ParseAddr(given)
		if err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "address %q of %s: %v", given, name, err)
		}
		address = a.Unmap().WithZone("")
		e.addresses = []netip.Addr{address}
	}
	if a, err := netip.ParseAddr(name); err == nil { // a host without a node, unless a machine has the address
		a = a.Unmap().WithZone("")
		for m := range v.view.Snapshot.Machines() {
			if f, _ := v.facts(m); slices.Contains(f.Addresses, a) {
				name, e.addresses = m.UUID.String(), []netip.Addr{a}
				break
			}
		}
		if len(e.addresses) == 0 || name == a.String() {
			e.addresses = []netip.Addr{a}
			e.described.Name, e.machine.End.Name = a.String(), a.String()
			e.described.Assumed = append(e.described.Assumed, fmt.Sprintf("%s is no machine of the directory: it is taken to be a host that answers no IKE", a))
			return e, nil
		}
	}
	m, err := find(v.view, name)
	if err != nil {
		return nil, err
	}
	known, source, err := v.machine(m)
	if err != nil {
		return nil, status.Errorf(codes.FailedPrecondition, "the policy of %s cannot be worked out: %v", m.Name, err)
	}
	e.machine, e.entry = known, m
	e.described.Name, e.described.Dn, e.described.Policy, e.described.Node = m.Name, m.DN.String(), known.Policy, true
	if len(e.addresses) == 0 {
		e.addresses, e.described.AddressSource = known.Facts.Addresses, source
	}
	if len(e.addresses) == 0 {
		return nil, status.Errorf(codes.FailedPrecondition, "the address of %s is not known: its node has not reported one, and the directory has none; name it with --%s-address", m.Name, side)
	}
	n, connected := v.nodes[m.UUID]
	say := func(format string, args ...any) {
		e.described.Assumed = append(e.described.Assumed, fmt.Sprintf(format, args...))
	}
	if !connected {
		say("no node of %s has ever connected: this is what becomes of it once it has its policy", m.Name)
	} else if n.Record.Error != "" {
		say("the node of %s refused its policy and keeps another one: %s", m.Name, n.Record.Error)
	}
	if source != "reported" && namesSurroundings(known.Rules) {
		say("the DNS servers, gateways and names that the policy of %s may mean are not known: filters about them are left out", m.Name)
	}
	if address.IsValid() && source == "reported" && !slices.Contains(known.Facts.Addresses, address) {
		say("%s has not reported the address %s", m.Name, address)
	}
	if missing := s.lacking(known.Rules); len(missing) > 0 {
		say("the controller does not have secret %s: %s is taken to have it as a file", strings.Join(missing, ", "), m.Name)
	}
	return e, nil
}

// namesSurroundings reports whether a policy has filters about what only the machine knows, its own addresses excepted.
func namesSurroundings(p *spd.Policy) bool {
	return slices.ContainsFunc(p.Rules, func(r spd.Rule) bool {
		return slices.ContainsFunc(r.Filters, func(f spd.Filter) bool {
			return slices.ContainsFunc([]spd.Address{f.Source, f.Destination}, func(a spd.Address) bool {
				_, named := a.Range()
				return !named && a.Kind != spd.AddressAny && a.Kind != spd.AddressMe
			})
		})
	})
}

// meetingPoint chooses an address of each end, of one family; IPv4 before IPv6, the first before others.
func meetingPoint(from, to *flowEnd) (a, b netip.Addr, err error) {
	for _, want4 := range []bool{true, false} {
		for _, a := range from.addresses {
			for _, b := range to.addresses {
				if a.Is4() == want4 && b.Is4() == want4 && a != b {
					return a, b, nil
				}
			}
		}
	}
	return a, b, status.Errorf(codes.FailedPrecondition, "%s (%v) and %s (%v) have no different addresses of one family",
		from.described.GetName(), from.addresses, to.described.GetName(), to.addresses)
}

func describePacket(p spd.Packet) string {
	side := func(a netip.Addr, port uint16) string {
		if !spd.HasPorts(p.Protocol) {
			return a.String()
		}
		return netip.AddrPortFrom(a, port).String()
	}
	return fmt.Sprintf("%s %s -> %s", spd.ProtocolName(p.Protocol), side(p.Source, p.SourcePort), side(p.Destination, p.DestinationPort))
}

func describeMatch(machine string, m spd.Match) *adminv1.FlowMatch {
	out := &adminv1.FlowMatch{Machine: machine, Action: m.Action.String(), Exemption: m.Exempt}
	if f := m.Filter; f != nil {
		out.Rule, out.Filter, out.Weight, out.Text = f.RuleID, f.FilterID, f.Weight.String(), f.String()
	}
	return out
}

func describeNegotiation(n *analyze.Negotiation) *adminv1.FlowNegotiation {
	if n == nil {
		return nil
	}
	out := &adminv1.FlowNegotiation{
		Initiator: n.Initiator, Responder: n.Responder, InitiatorRule: n.InitiatorRule, ResponderRule: n.ResponderRule,
		DefaultResponse: n.DefaultResponse, Mode: "transport", Silent: n.Silent, Elsewhere: n.Elsewhere,
		Mismatch: describeMismatch(n.Mismatch), Later: describeMismatch(n.Later),
	}
	if n.Tunnel {
		out.Mode = "tunnel"
	}
	for _, x := range n.InitiatorSelectors {
		out.InitiatorSelectors = append(out.InitiatorSelectors, x.String())
	}
	for _, x := range n.ResponderSelectors {
		out.ResponderSelectors = append(out.ResponderSelectors, x.String())
	}
	if n.Made() && n.Elsewhere == "" {
		out.Ike, out.Esp = n.IKE.String(), n.ESP.String()
		out.InitiatorAuthentication, out.ResponderAuthentication = analyze.AuthText(n.InitiatorAuth), analyze.AuthText(n.ResponderAuth)
	}
	return out
}

func describeMismatch(m *analyze.Mismatch) *adminv1.Mismatch {
	if m == nil {
		return nil
	}
	return &adminv1.Mismatch{Code: string(m.Code), Sentence: m.Sentence, Initiator: m.Initiator, Responder: m.Responder}
}
