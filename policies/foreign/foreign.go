// Package foreign owns what a policy looks like for machines that run something else than our node: the configuration of
// strongSwan and libreswan, and the commands for Windows.
//
// Its invariant: what the other program cannot say comes out as a Remark and stands in the text as a comment where it
// belongs; a Remark tells whether the machine would protect less than the policy asks for. No secret is in the text: a
// preshared key is named where it has to be put, so that nothing authenticates until that was done. It leaves the meaning
// of a policy to policies/spd and its documents to policies.
package foreign

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// ErrMachine says that the machine is not described well enough.
var ErrMachine = errors.New("the machine is not known well enough")

// Machine is the one that the configuration is for.
type Machine struct {
	// Name is its DNS name, which is its identity where a rule names no other.
	Name string
	// Facts are its addresses and those of its servers.
	Facts spd.Facts
}

func (m Machine) validate() error {
	if m.Name == "" || strings.ContainsFunc(m.Name, func(r rune) bool {
		return !strings.ContainsRune(".-_", r) && (r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r))
	}) {
		return fmt.Errorf("%w: %q is no DNS name", ErrMachine, m.Name)
	}
	if len(m.Facts.Addresses) == 0 {
		return fmt.Errorf("%w: it has no address", ErrMachine)
	}
	return nil
}

// Remark is something that the other program says otherwise than the policy, or not at all.
type Remark struct {
	Rule    string // its name; empty for the policy as a whole
	Weaker  bool   // the machine would protect or refuse less than the policy asks for
	Message string
}

// String prints the remark in one line.
func (r Remark) String() string {
	text := r.Message
	if r.Rule != "" {
		text = fmt.Sprintf("rule %q: %s", r.Rule, text)
	}
	if r.Weaker {
		return "WEAKER: " + text
	}
	return text
}

// Config is the text for the other program.
type Config struct {
	Text    []byte
	Remarks []Remark
}

// Weaker returns the remarks about what would be protected less.
func (c Config) Weaker() []Remark {
	return slices.DeleteFunc(slices.Clone(c.Remarks), func(r Remark) bool { return !r.Weaker })
}

// ErrReverse is wrapped by the errors of Reverse.
var ErrReverse = errors.New("the policy cannot be turned round")

// Reverse turns a policy round for the other end of its tunnels: source and destination of every filter exchanged, the
// own endpoint and the remote one as well, and the identities. Rules without a tunnel are left out, because the
// machines at their other end are described by policies of their own.
func Reverse(p spd.Policy) (spd.Policy, error) {
	out := p
	out.Rules = nil
	for _, r := range p.Rules {
		if !r.Tunnel.IsValid() {
			continue
		}
		if !r.TunnelLocal.IsValid() {
			return spd.Policy{}, fmt.Errorf("%w: rule %q does not name its own endpoint, tunnel.local", ErrReverse, r.Name)
		}
		r.Tunnel, r.TunnelLocal = r.TunnelLocal, r.Tunnel
		r.Filters = slices.Clone(r.Filters)
		for i := range r.Filters {
			f := &r.Filters[i]
			f.Source, f.Destination = f.Destination, f.Source
			f.SourcePort, f.DestinationPort = f.DestinationPort, f.SourcePort
		}
		r.Auth = slices.Clone(r.Auth)
		for i := range r.Auth {
			r.Auth[i].LocalID, r.Auth[i].RemoteID = r.Auth[i].RemoteID, r.Auth[i].LocalID
		}
		out.Rules = append(out.Rules, r)
	}
	if len(out.Rules) == 0 {
		return spd.Policy{}, fmt.Errorf("%w: it has no tunnel, and machines at the other end of a transport have policies of their own", ErrReverse)
	}
	out.DefaultResponse = spd.DefaultResponse{}
	return out, nil
}

// exporter collects text and remarks.
type exporter struct {
	text    strings.Builder
	remarks []Remark
	depth   int
}

// line writes one line, whatever stands in the arguments: names of a policy never begin another one.
func (e *exporter) line(format string, args ...any) {
	e.text.WriteString(strings.Repeat("  ", e.depth))
	e.text.WriteString(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, fmt.Sprintf(format, args...)))
	e.text.WriteByte('\n')
}

// comment writes a comment, broken into lines.
func (e *exporter) comment(format string, args ...any) {
	line := "#"
	for _, word := range strings.Fields(fmt.Sprintf(format, args...)) {
		if len(line)+len(word) > 110 && line != "#" {
			e.line("%s", line)
			line = "#  "
		}
		line += " " + word
	}
	e.line("%s", line)
}

// remark notes and writes a remark.
func (e *exporter) remark(rule string, weaker bool, format string, args ...any) {
	r := Remark{rule, weaker, fmt.Sprintf(format, args...)}
	if !slices.Contains(e.remarks, r) {
		e.remarks = append(e.remarks, r)
		e.comment("%s", r)
	}
}

func (e *exporter) config() Config { return Config{Text: []byte(e.text.String()), Remarks: e.remarks} }

// flow is one filter of a rule as the machine sees it, outbound; the other direction is its mirror.
type flow struct {
	spd.Specific
	place int // among all flows, the heaviest first; from 1
}

// flows returns the filters of every rule, and the exemptions that would else meet a rule, in the order of weight.
func (e *exporter) flows(set spd.Set) (byRule map[string][]flow, exempt []flow) {
	byRule = map[string][]flow{}
	all := set.Filters()
	var inbound []spd.Specific
	place := 0
	for _, f := range all {
		if f.Direction != spd.Out {
			inbound = append(inbound, f)
			continue
		}
		switch {
		case f.Protocol == spd.ProtocolICMP && !f.Source.Is4() || f.Protocol == spd.ProtocolICMPv6 && f.Source.Is4():
			// No packet is of these, and not every program takes them.
		case f.Exempt == "":
			place++
			byRule[f.RuleID] = append(byRule[f.RuleID], flow{f, place})
		case f.Loopback || f.Own || f.Exempt == spd.ExemptIKE || f.Exempt == spd.ExemptESP:
		case slices.ContainsFunc(all, func(o spd.Specific) bool {
			return o.Exempt == "" && o.Direction == spd.Out && ofMachine(o.Source, set) && overlap(o, f)
		}):
			place++
			exempt = append(exempt, flow{f, place})
		}
	}
	for _, f := range inbound {
		if f.Exempt == "" && !slices.ContainsFunc(byRule[f.RuleID], func(o flow) bool { return mirrors(o.Specific, f) }) {
			r, _ := set.Rule(f.RuleID)
			e.remark(r.Name, f.Action != spd.ActionPermit, "the filter %s is for incoming packets alone, which cannot be said: it is left out", f.FilterID)
		}
	}
	for id, list := range byRule {
		for _, f := range list {
			if !slices.ContainsFunc(inbound, func(o spd.Specific) bool { return o.RuleID == id && mirrors(f.Specific, o) }) {
				r, _ := set.Rule(id)
				e.remark(r.Name, f.Action == spd.ActionPermit, "the filter %s is for outgoing packets alone; here it is for both directions", f.FilterID)
			}
		}
	}
	return byRule, exempt
}

// ofMachine reports whether packets of the machine itself, and not only forwarded ones, can come from the range. What is
// exempt is the machine's own; the packets of others that a gateway protects need no exemption.
func ofMachine(r spd.Range, set spd.Set) bool {
	known, _ := set.Addresses()
	return r.From.IsUnspecified() || slices.ContainsFunc(known, r.Contains)
}

func overlap(a, b spd.Specific) bool {
	return rangesMeet(a.Source, b.Source) && rangesMeet(a.Destination, b.Destination) &&
		(a.Protocol == 0 || b.Protocol == 0 || a.Protocol == b.Protocol)
}

func rangesMeet(a, b spd.Range) bool {
	return a.From.BitLen() == b.From.BitLen() && a.From.Compare(b.To) <= 0 && b.From.Compare(a.To) <= 0
}

func mirrors(out, in spd.Specific) bool {
	return out.Source == in.Destination && out.Destination == in.Source && out.Protocol == in.Protocol &&
		out.SourcePort == in.DestinationPort && out.DestinationPort == in.SourcePort
}

// prefixes splits a range into prefixes.
func prefixes(r spd.Range) []netip.Prefix {
	var out []netip.Prefix
	for from := r.From; ; {
		p := netip.PrefixFrom(from, from.BitLen())
		for p.Bits() > 0 {
			wider := netip.PrefixFrom(from, p.Bits()-1)
			if wider.Masked().Addr() != from || spd.RangeOf(wider).To.Compare(r.To) > 0 {
				break
			}
			p = wider
		}
		out = append(out, p)
		end := spd.RangeOf(p).To
		if end.Compare(r.To) >= 0 {
			return out
		}
		from = end.Next()
	}
}

// slug makes a name that every program takes.
func slug(s string) string {
	words := strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') })
	text := strings.Join(words, "-")
	if text == "" {
		return "rule"
	}
	return text[:min(len(text), 40)]
}

// slugs gives every rule of a policy a name of its own.
func slugs(p spd.Policy) map[string]string {
	out, taken := map[string]string{}, map[string]bool{}
	for _, r := range p.Rules {
		name := slug(r.Name)
		for n := 2; taken[name]; n++ {
			name = fmt.Sprintf("%s-%d", slug(r.Name), n)
		}
		taken[name], out[r.ID] = true, name
	}
	return out
}

// identity splits an identity of a document into its kind and value; escape is for the values of a DN.
func identity(id string, escape func(string) string) (kind, value string) {
	kind, value, _ = strings.Cut(id, ":")
	if kind == "dn" {
		value = fromTop(value, escape)
	}
	return kind, value
}

// fromTop turns a DN of RFC 4514 round, as certificates hold it and other programs write it: "C=US, O=Example, CN=Root".
// Programs differ in how they escape what separates.
func fromTop(s string, escape func(string) string) string {
	dn, err := directory.ParseDN(s)
	if err != nil {
		return s
	}
	var parts []string
	for ; !dn.IsZero(); dn = dn.Parent() {
		var level []string
		for _, a := range dn.RDN() {
			level = append(level, a.Type+"="+escape(a.Value))
		}
		parts = append(parts, strings.Join(level, "+"))
	}
	slices.Reverse(parts)
	return strings.Join(parts, ", ")
}
