package steering

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/google/nftables"
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

// Counters returns the names under which the rules and elements count.
func (r Ruleset) Counters() map[string]bool {
	names := map[string]bool{}
	for _, c := range r.Chains {
		for _, rule := range c.Rules {
			names[rule.Comment] = true
		}
	}
	for _, m := range r.Maps {
		for _, e := range m.Elements {
			names[e.Comment] = true
		}
	}
	delete(names, "")
	return names
}

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

// Order is when a chain sees a packet at its hook, among the chains of others.
type Order uint8

// The orders. What other programs do to marks and addresses before OrderLast, the rules there see; what they do after
// OrderFirst is too late to keep the rules there from seeing it as it was. OrderAfterNAT is after source NAT.
const (
	OrderMangle Order = iota
	OrderFirst
	OrderLast
	OrderAfterNAT
)

// String is the priority as nft(8) has it.
func (o Order) String() string {
	switch o {
	case OrderFirst:
		return "-1000"
	case OrderLast:
		return "1000"
	case OrderAfterNAT:
		return "srcnat + 1"
	default:
		return "mangle"
	}
}

// Priority is the number that the kernel sorts the chains of a hook by.
func (o Order) Priority() int32 {
	switch o {
	case OrderFirst:
		return -1000
	case OrderLast:
		return 1000
	case OrderAfterNAT:
		return int32(*nftables.ChainPriorityNATSource) + 1
	default:
		return int32(*nftables.ChainPriorityMangle)
	}
}

// Chain is a list of rules. A base chain, one with a Hook, accepts what reaches its end.
type Chain struct {
	Name  string
	Hook  Hook
	Order Order
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
			fmt.Fprintf(&b, "\t\ttype %s hook %s priority %s; policy accept;\n", c.Hook.chainType(), c.Hook, c.Order)
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
