package steering

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Ruleset is the content of the table. It is a value: the same policy gives the same Ruleset.
type Ruleset struct {
	Sets   []Set
	Maps   []Map
	Chains []Chain
}

// Field is one part of the key of a Set.
type Field uint8

// The fields. Local and Remote are addresses of the family of the Set.
const (
	Local Field = iota + 1
	Remote
	Protocol
	LocalPort
	RemotePort
)

// Set is a named set of the table. Its elements are put in by the backend while it runs; a Set of the same name keeps
// them when the Ruleset is replaced.
type Set struct {
	Name     string
	IPv6     bool
	Key      []Field
	Timeout  bool // elements may have one
	Interval bool // elements are ranges
}

// Map is a verdict map. It never changes: its name is a digest of what it holds.
type Map struct {
	Name     string
	Key      Key
	Interval bool // elements are ranges, none of which overlap
	Counted  bool // elements count packets
	Elements []Element
}

// Element is the verdict for the values From to To of a Key.
type Element struct {
	From, To []byte
	Verdict  Verdict
	Target   string
	Comment  string
}

func (e Element) outcome() outcome { return outcome{e.Verdict, e.Target, e.Comment} }

// Hook is where a chain sees packets.
type Hook uint8

// The hooks. HookNone is of a chain that only others jump to.
const (
	HookNone Hook = iota
	HookPrerouting
	HookInput
	HookForward
	HookOutput
	HookPostrouting
)

// Chain is a list of rules. A base chain, one with a Hook, accepts what reaches its end.
type Chain struct {
	Name  string
	Hook  Hook
	Late  bool // after source NAT
	Rules []Rule
	// Digest tells that the name is a digest of the rules and of all that they lead to by a name of that kind.
	Digest bool
}

// Verdict ends a rule.
type Verdict uint8

// The verdicts.
const (
	Accept Verdict = iota + 1
	Drop
	Return
	Jump
	Goto
	// Queue holds the packet until a process decides; where none reads the queue, it is dropped. Maps do not have it.
	Queue
)

// Rule marks the packets that all its matches describe, if it has to, and gives the verdict. With a comment it counts them.
type Rule struct {
	Matches []Match
	Map     *Map   // gives the verdict, if it has one for the packet
	Mark    uint32 // bits of Params.Mask to set; 0 leaves the mark alone
	Mask    uint32
	Verdict Verdict
	Target  string // chain of Jump and Goto
	Number  uint16 // of Queue
	Comment string // stable: counters are reported under it
}

// Text prints the ruleset in the language of nft(8), for tests and people.
func (r Ruleset) Text(table string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %s {\n", table)
	for _, s := range r.Sets {
		fmt.Fprintf(&b, "\tset %s {\n\t\ttype %s\n", s.Name, strings.Join(s.types(), " . "))
		var flags []string
		if s.Interval {
			flags = append(flags, "interval")
		}
		if s.Timeout {
			flags = append(flags, "timeout")
		}
		if len(flags) > 0 {
			fmt.Fprintf(&b, "\t\tflags %s\n", strings.Join(flags, ","))
		}
		b.WriteString("\t}\n")
	}
	for i := range r.Maps {
		r.Maps[i].write(&b)
	}
	for _, c := range r.Chains {
		fmt.Fprintf(&b, "\tchain %s {\n", c.Name)
		if c.Hook != HookNone {
			priority := "mangle"
			if c.Late {
				priority = "srcnat + 1"
			}
			fmt.Fprintf(&b, "\t\ttype %s hook %s priority %s; policy accept;\n", c.Hook.chainType(), c.Hook, priority)
		}
		for _, rule := range c.Rules {
			fmt.Fprintf(&b, "\t\t%s\n", rule.text())
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

func (m *Map) write(b *strings.Builder) {
	fmt.Fprintf(b, "\tmap %s {\n\t\t%s : verdict\n", m.Name, m.Key.typeText())
	if m.Interval {
		b.WriteString("\t\tflags interval\n")
	}
	if m.Counted {
		b.WriteString("\t\tcounter\n")
	}
	b.WriteString("\t\telements = {\n")
	for _, e := range m.Elements {
		fmt.Fprintf(b, "\t\t\t%s", m.Key.valueText(e.From))
		if !bytes.Equal(e.From, e.To) {
			b.WriteString("-" + m.Key.valueText(e.To))
		}
		if e.Comment != "" {
			fmt.Fprintf(b, " comment %q", e.Comment)
		}
		fmt.Fprintf(b, " : %s,\n", e.Verdict.text(e.Target))
	}
	b.WriteString("\t\t}\n\t}\n")
}

func (s Set) types() []string {
	address := "ipv4_addr"
	if s.IPv6 {
		address = "ipv6_addr"
	}
	var out []string
	for _, f := range s.Key {
		switch f {
		case Local, Remote:
			out = append(out, address)
		case Protocol:
			out = append(out, "inet_proto")
		case LocalPort, RemotePort:
			out = append(out, "inet_service")
		}
	}
	return out
}

// String names the hook as nft(8) does.
func (h Hook) String() string {
	switch h {
	case HookNone:
		return "none"
	case HookPrerouting:
		return "prerouting"
	case HookInput:
		return "input"
	case HookForward:
		return "forward"
	case HookOutput:
		return "output"
	case HookPostrouting:
		return "postrouting"
	}
	return fmt.Sprintf("hook(%d)", uint8(h))
}

// chainType is "route" where a changed mark has to find another route.
func (h Hook) chainType() string {
	if h == HookOutput {
		return "route"
	}
	return "filter"
}

func (v Verdict) text(target string) string {
	switch v {
	case Accept:
		return "accept"
	case Drop:
		return "drop"
	case Return:
		return "return"
	case Jump:
		return "jump " + target
	case Goto:
		return "goto " + target
	case Queue: // has a number
	}
	return fmt.Sprintf("verdict(%d)", uint8(v))
}

func (r Rule) text() string {
	var parts []string
	for _, m := range r.Matches {
		parts = append(parts, m.text())
	}
	if r.Comment != "" {
		parts = append(parts, "counter")
	}
	if r.Mark != 0 {
		parts = append(parts, fmt.Sprintf("meta mark set meta mark & 0x%08x | 0x%08x", ^r.Mask, r.Mark))
	}
	if r.Map != nil {
		parts = append(parts, r.Map.Key.text()+" vmap @"+r.Map.Name)
	}
	switch r.Verdict {
	case 0:
	case Queue:
		parts = append(parts, fmt.Sprintf("queue to %d", r.Number))
	default:
		parts = append(parts, r.Verdict.text(r.Target))
	}
	if r.Comment != "" {
		parts = append(parts, fmt.Sprintf("comment %q", r.Comment))
	}
	return strings.Join(parts, " ")
}

// Match is one condition on a packet. The set is closed.
type Match interface {
	text() string
}

// Interface compares the name of the incoming or, with Out, the outgoing interface.
type Interface struct {
	Out  bool
	Not  bool
	Name string
}

// MarkIs compares the bits of Mask.
type MarkIs struct{ Value, Mask uint32 }

// Family is true for packets of one IP version.
type Family struct{ IPv6 bool }

// Address is true for packets with a source or, with Destination, a destination in the range. It is preceded by a
// Family.
type Address struct {
	Destination bool
	Range       spd.Range
}

// Proto compares the protocol of the upper layer, after extension headers.
type Proto uint8

// Ports compares a port, inclusive. It is preceded by a Proto.
type Ports struct {
	Destination bool
	From, To    uint16
}

// ICMPCode compares the code. It is preceded by a Proto.
type ICMPCode struct {
	IPv6 bool
	Code uint8
}

// ICMPTypes compares the type, inclusive. It is preceded by a Proto.
type ICMPTypes struct {
	IPv6     bool
	From, To uint8
}

// Opening is true for the first packet of a TCP connection, or with Not for all others. It is preceded by Proto 6.
type Opening struct{ Not bool }

// LocalAddress is true for packets from or, with Destination, to an address of this machine.
type LocalAddress struct{ Destination bool }

// NoOptions is true for IPv4 headers without options.
type NoOptions struct{ Not bool }

// Quoted compares the packet inside an ICMP error: an Address, Proto, Ports or NoOptions. Ports mean what they say behind
// an IPv4 header without options or an IPv6 header without extensions.
type Quoted struct {
	IPv6 bool
	Of   Match
}

// InSet looks the packet up in a Set. An outbound packet has its local side in the source, an inbound one in the
// destination. It is preceded by a Family.
type InSet struct {
	Set     Set
	Inbound bool
}

// LocalDestination is true for packets to an address of this machine; with Not, for those to be forwarded to a single
// host.
type LocalDestination struct{ Not bool }

// LaterFragment is true for fragments but the first, which have no ports.
type LaterFragment struct{ IPv6 bool }

// Reassembly has the kernel reassemble fragments; as a match it is never evaluated.
type Reassembly struct{ Conntrack bool }

func (m Reassembly) text() string {
	if m.Conntrack {
		return "ct state invalid"
	}
	return "tproxy to :1"
}

func (m Interface) text() string {
	key, op := "iifname", ""
	if m.Out {
		key = "oifname"
	}
	if m.Not {
		op = "!= "
	}
	return fmt.Sprintf("%s %s%q", key, op, m.Name)
}

func (m MarkIs) text() string { return fmt.Sprintf("meta mark & 0x%08x == 0x%08x", m.Mask, m.Value) }

func (m Family) text() string {
	if m.IPv6 {
		return "meta nfproto ipv6"
	}
	return "meta nfproto ipv4"
}

func (m Address) text() string {
	return ipName(!m.Range.Is4()) + " " + side(m.Destination) + "addr " + addressText(m.Range)
}

func (m Proto) text() string { return fmt.Sprintf("meta l4proto %d", uint8(m)) }

func (m Ports) text() string {
	if m.From == m.To {
		return fmt.Sprintf("th %sport %d", side(m.Destination), m.From)
	}
	return fmt.Sprintf("th %sport %d-%d", side(m.Destination), m.From, m.To)
}

func (m ICMPCode) text() string { return fmt.Sprintf("%s code %d", icmpName(m.IPv6), m.Code) }

func (m ICMPTypes) text() string {
	if m.From == m.To {
		return fmt.Sprintf("%s type %d", icmpName(m.IPv6), m.From)
	}
	return fmt.Sprintf("%s type %d-%d", icmpName(m.IPv6), m.From, m.To)
}

func (m Opening) text() string {
	if m.Not {
		return "tcp flags & (syn | ack) != syn"
	}
	return "tcp flags & (syn | ack) == syn"
}

func (m LocalAddress) text() string { return "fib " + side(m.Destination) + "addr type local" }

func (m NoOptions) text() string {
	if m.Not {
		return "ip hdrlength != 5"
	}
	return "ip hdrlength 5"
}

func (m Quoted) text() string {
	offset, from, to := m.field()
	s := fmt.Sprintf("@th,%d,%d ", 8*offset, 8*len(from))
	switch {
	case m.not():
		s += "!= "
	case !bytes.Equal(from, to):
		return s + fmt.Sprintf("0x%x-0x%x", from, to)
	}
	return s + fmt.Sprintf("0x%x", from)
}

func (m Quoted) not() bool {
	o, ok := m.Of.(NoOptions)
	return ok && o.Not
}

// field returns where the compared part of the quoted packet lies in the ICMP error, and its bounds.
func (m Quoted) field() (offset uint32, from, to []byte) {
	const at = 8 // the ICMP header (RFC 792, RFC 4443 3)
	source, destination, protocol, transport := uint32(12), uint32(16), uint32(9), uint32(20)
	if m.IPv6 {
		source, destination, protocol, transport = 8, 24, 6, 40
	}
	switch of := m.Of.(type) {
	case Address:
		offset = source
		if of.Destination {
			offset = destination
		}
		return at + offset, of.Range.From.AsSlice(), of.Range.To.AsSlice()
	case Proto:
		return at + protocol, []byte{byte(of)}, []byte{byte(of)}
	case Ports:
		if offset = transport; of.Destination {
			offset += 2
		}
		return at + offset, binary.BigEndian.AppendUint16(nil, of.From), binary.BigEndian.AppendUint16(nil, of.To)
	case NoOptions:
		return at, []byte{0x45}, []byte{0x45}
	}
	panic("steering: match that a quoted packet does not have") // guards.go uses no other
}

func (m InSet) text() string {
	var parts []string
	for _, f := range m.Set.Key {
		switch f {
		case Local, Remote:
			parts = append(parts, ipName(m.Set.IPv6)+" "+side((f == Remote) != m.Inbound)+"addr")
		case Protocol:
			parts = append(parts, "meta l4proto")
		case LocalPort, RemotePort:
			parts = append(parts, "th "+side((f == RemotePort) != m.Inbound)+"port")
		}
	}
	return strings.Join(parts, " . ") + " @" + m.Set.Name
}

func (m LocalDestination) text() string {
	if m.Not {
		return "fib daddr type unicast"
	}
	return "fib daddr type local"
}

func (m LaterFragment) text() string {
	if m.IPv6 {
		return "frag frag-off != 0"
	}
	return "ip frag-off & 0x1fff != 0"
}

func side(destination bool) string {
	if destination {
		return "d"
	}
	return "s"
}

func ipName(v6 bool) string {
	if v6 {
		return "ip6"
	}
	return "ip"
}

func addressText(r spd.Range) string {
	if p, ok := r.Prefix(); ok && !r.Single() {
		return p.String()
	}
	return r.String()
}

// whole reports whether a range is every address of its family.
func whole(r spd.Range) bool {
	return r.From.IsUnspecified() && !netip.AddrFrom16(r.To.As16()).Next().IsValid() ||
		r.Is4() && r.From.IsUnspecified() && r.To == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
