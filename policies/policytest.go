package policies

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// PolicyTest says what must hold between machines. It is kept beside the documents that it is about, and a change of
// documents that breaks it is refused.
type PolicyTest struct {
	Meta
	Assertions []Assertion
}

// Assertion is one sentence of a PolicyTest: what becomes of some traffic that begins at From and goes to To.
type Assertion struct {
	Meta     // the name is optional
	From, To Endpoint
	Traffic  Traffic
	// Is are the outcomes that are right; at least one.
	Is []Outcome
	// Offer, if it is not zero, is the offer that must be chosen. Only with OutcomeIPsec alone.
	Offer proposal.ESP
}

// Endpoint names machines by exactly one of its fields.
type Endpoint struct {
	// Machine is the short name, DNS name, DN or UUID of one machine.
	Machine string
	// Container means every machine in it and below.
	Container directory.DN
	// Group means every member, directly or through other groups.
	Group directory.DN
	// Policy means every machine that the policy of this name applies to; NoneName those without one.
	Policy string
}

// String prints the endpoint as "machine sql1".
func (e Endpoint) String() string {
	switch {
	case e.Machine != "":
		return "machine " + e.Machine
	case !e.Container.IsZero():
		return "container " + e.Container.String()
	case !e.Group.IsZero():
		return "group " + e.Group.String()
	}
	return fmt.Sprintf("policy %q", e.Policy)
}

// Traffic is a protocol and, where it has ports, the destination ports. The zero value is all traffic.
type Traffic struct {
	Protocol uint8
	Ports    spd.PortRange
}

// String prints the traffic as documents write it: "any", "icmp", "tcp/445", "udp/1000-2000".
func (t Traffic) String() string {
	if t.Ports.Any() {
		return protocolText(t.Protocol)
	}
	return protocolText(t.Protocol) + "/" + t.Ports.String()
}

// ParseTraffic reads what String prints.
func ParseTraffic(s string) (Traffic, error) {
	name, ports, cut := strings.Cut(s, "/")
	protocol, err := parseProtocol(name)
	if err != nil {
		return Traffic{}, err
	}
	t := Traffic{Protocol: protocol}
	if !cut {
		return t, nil
	}
	if !spd.HasPorts(protocol) {
		return Traffic{}, fmt.Errorf("%q names a port of protocol %s, which has none", printable(s), protocolText(protocol))
	}
	if t.Ports, err = parsePorts(ports); err != nil {
		return Traffic{}, err
	}
	return t, nil
}

// Outcome is what becomes of traffic between two machines.
type Outcome uint8

// The outcomes. The zero value is none of them.
const (
	OutcomeClear   Outcome = iota + 1 // it flows without protection
	OutcomeIPsec                      // it flows through security associations
	OutcomeBlocked                    // it does not flow
)

var outcomeNames = [...]string{"clear", "ipsec", "blocked"}

// String names the outcome as documents do.
func (o Outcome) String() string {
	if o >= 1 && int(o) <= len(outcomeNames) {
		return outcomeNames[o-1]
	}
	return fmt.Sprintf("outcome(%d)", uint8(o))
}

// ParseOutcome reads the name of an outcome.
func ParseOutcome(s string) (Outcome, error) {
	i := slices.Index(outcomeNames[:], s)
	if i < 0 {
		return 0, fmt.Errorf("%q is not one of %s", printable(s), strings.Join(outcomeNames[:], ", "))
	}
	return Outcome(i + 1), nil
}

// String prints the assertion in one line: "machine ws1 to machine sql1 tcp/445 is: ipsec".
func (a Assertion) String() string {
	names := make([]string, len(a.Is))
	for i, o := range a.Is {
		names[i] = o.String()
	}
	text := fmt.Sprintf("%s to %s %s is: %s", a.From, a.To, a.Traffic, strings.Join(names, " or "))
	if a.Offer != (proposal.ESP{}) {
		text += " with " + a.Offer.String()
	}
	return text
}

// Kind returns KindPolicyTest.
func (PolicyTest) Kind() Kind { return KindPolicyTest }

func (p PolicyTest) add(d *Documents) { d.PolicyTests = append(d.PolicyTests, p) }

func (p PolicyTest) write(w *writer) {
	w.meta(p.Meta)
	if len(p.Assertions) == 0 {
		w.line("assertions: []")
	}
	list(w, "assertions", p.Assertions, func(a Assertion) {
		w.meta(a.Meta)
		w.endpoint("from", a.From)
		w.endpoint("to", a.To)
		w.plain("traffic", a.Traffic)
		if len(a.Is) == 1 {
			w.plain("is", a.Is[0])
		} else {
			scalars(w, "is", a.Is, Outcome.String)
		}
		if a.Offer != (proposal.ESP{}) {
			w.text("offer", a.Offer.String())
		}
	})
}

func (w *writer) endpoint(name string, e Endpoint) {
	w.block(name, func() {
		w.text("machine", e.Machine)
		w.text("container", e.Container.String())
		w.text("group", e.Group.String())
		w.text("policy", e.Policy)
	})
}

func (r *reader) policyTest(n ast.Node) PolicyTest {
	m := r.object(n, &policyTestObject)
	p := PolicyTest{Meta: m.meta()}
	m.list("assertions", func(n ast.Node) { p.Assertions = append(p.Assertions, r.assertion(n)) })
	return p
}

func (r *reader) assertion(n ast.Node) Assertion {
	m := r.object(n, &assertionObject)
	a := Assertion{Meta: m.meta(), Traffic: parsed(m, "traffic", ParseTraffic), Offer: parsed(m, "offer", parseAssertedOffer)}
	if f, ok := m.fields["from"]; ok {
		a.From = r.endpoint(f.value, "from")
	}
	if f, ok := m.fields["to"]; ok {
		a.To = r.endpoint(f.value, "to")
	}
	if f, ok := m.fields["is"]; ok {
		if f.value.Type() == ast.SequenceType {
			a.Is = texts(m, "is", ParseOutcome)
			if len(a.Is) == 0 {
				m.report("is", "is empty; write one or several of %s", strings.Join(outcomeNames[:], ", "))
			}
		} else {
			a.Is = []Outcome{parsed(m, "is", ParseOutcome)}
		}
	}
	return a
}

func (r *reader) endpoint(n ast.Node, what string) Endpoint {
	m, ok := r.mapping(n, &endpointObject)
	if ok && len(m.fields) != 1 {
		r.report(m.at, "%s names %d of machine, container, group and policy; name exactly one", what, len(m.fields))
	}
	return Endpoint{
		Machine: m.reference("machine"), Container: parsed(m, "container", parseDN), Group: parsed(m, "group", parseDN), Policy: m.reference("policy"),
	}
}

func parseAssertedOffer(s string) (proposal.ESP, error) {
	o, life, err := proposal.ParseESP(s)
	if err == nil && life != (proposal.Life{}) {
		err = fmt.Errorf("%q has a lifetime, which is no part of what is chosen", printable(s))
	}
	return o, err
}

// policyTest finds what makes a test say nothing, or what it can never see.
func (v *validator) policyTest(p PolicyTest) {
	if len(p.Assertions) == 0 {
		v.find(Error, CodeEmpty, p.At, p, "has no assertions")
	}
	for i, a := range p.Assertions {
		for _, e := range []Endpoint{a.From, a.To} {
			if e.Policy == "" || e.Policy == NoneName {
				continue
			}
			if _, ok := v.docs.Policy(e.Policy); !ok {
				v.find(Error, CodeDangling, a.At, p, "assertion %d names policy %q, which does not exist%s", i+1, e.Policy, suggestion(e.Policy, v.docs.Policies))
			}
		}
		for j, o := range a.Is {
			if slices.Contains(a.Is[:j], o) {
				v.find(Error, CodeDuplicate, a.At, p, "assertion %d says %s twice", i+1, o)
			}
		}
		if len(a.Is) == len(outcomeNames) {
			v.find(Warning, CodeEmpty, a.At, p, "assertion %d allows every outcome", i+1)
		}
		if a.Offer != (proposal.ESP{}) && !slices.Equal(a.Is, []Outcome{OutcomeIPsec}) {
			v.find(Error, CodeOffers, a.At, p, "assertion %d names an offer, which only traffic that is ipsec has", i+1)
		}
	}
}
