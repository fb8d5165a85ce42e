package analyze

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/resolve"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// The codes of findings, beside those of policies.Validate and resolve.Check.
const (
	FindingShadowed       policies.Code = "shadowed"             // a filter that no packet reaches
	FindingOffer          policies.Code = "offer-never-chosen"   // an offer that no two policies of the fleet agree on
	FindingInfrastructure policies.Code = "infrastructure"       // a service that machines need is protected or blocked
	FindingLockout        policies.Code = "lockout"              // a policy that cuts machines off
	FindingShared         policies.Code = "preshared-key-shared" // a preshared key of many machines
	FindingAuthority      policies.Code = "authority"            // a CA that has expired, soon will, or is not known
	FindingUnused         policies.Code = "unused"               // a document that nothing uses
	FindingLegacy         policies.Code = "legacy"               // nothing in a policy withstands a quantum computer
)

// When a certificate authority begins to matter, before it expires.
const (
	authoritySoon  = 90 * 24 * time.Hour
	authorityShort = 30 * 24 * time.Hour
)

// sharedWidely is how many machines may share a preshared key before it is worth a word: a key is for two.
const sharedWidely = 2

// Authority is a CA that machines believe.
type Authority struct {
	Subject  string // RFC 4514
	NotAfter time.Time
}

// Service is a server that machines cannot do without.
type Service struct {
	Name     string
	Protocol uint8
	Port     uint16
	// Host is its DNS name, Address where it is; either may be unknown.
	Host    string
	Address netip.Addr
	// Exempt tells that the machines of the fleet reach it whatever their policy says.
	Exempt bool
}

// Situation is what Verify looks at. All but the documents may be missing; what needs it is not looked at then.
type Situation struct {
	Documents   policies.Documents
	Directory   *directory.Snapshot
	Locations   resolve.Locations // where machines are, for links to sites; nil when that is not known
	Authorities []Authority
	// Certificates are the latest of all machines, controllers and administrators.
	Certificates []Certificate
	// RootLists are those of roots that are kept off line.
	RootLists []RootList
	Services  []Service
	Now       time.Time
}

// Verify looks for what is wrong, dangerous or without effect in the documents of a fleet: what policies.Validate and
// resolve.Check find, and what takes the policies as a whole. The gravest findings come first, then they are in the order
// of file and line.
func Verify(s Situation) []policies.Finding {
	v := &verifier{Situation: s, findings: policies.Validate(s.Documents)}
	if s.Directory != nil {
		v.findings = append(v.findings, resolve.Check(s.Directory, s.Documents)...)
	}
	v.hosts = v.servers()
	v.policies()
	v.offers()
	v.secrets()
	v.authorities()
	v.certificates()
	v.rootLists()
	v.unused()
	slices.SortStableFunc(v.findings, func(a, b policies.Finding) int {
		return cmp.Or(cmp.Compare(b.Severity, a.Severity), cmp.Compare(a.At.File, b.At.File), cmp.Compare(a.At.Line, b.At.Line),
			cmp.Compare(a.At.Column, b.At.Column), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Message, b.Message))
	})
	return slices.CompactFunc(v.findings, func(a, b policies.Finding) bool { return a == b })
}

type verifier struct {
	Situation
	findings []policies.Finding
	hosts    []host
}

func (v *verifier) find(s policies.Severity, c policies.Code, d policies.Document, at policies.Position, hint, format string, args ...any) {
	v.findings = append(v.findings, policies.Finding{
		Severity: s, Code: c, At: at, Object: fmt.Sprintf("%s %q", d.Kind(), d.Key()), Message: fmt.Sprintf(format, args...), Hint: hint,
	})
}

// Where the machine is for which a policy is expanded to be looked at: addresses that nobody else has (RFC 5737, RFC 3849,
// RFC 2544, RFC 5180).
var (
	sampleOwn     = []netip.Addr{netip.MustParseAddr("198.18.255.1"), netip.MustParseAddr("2001:2::ff01")}
	samplePeer    = []netip.Addr{netip.MustParseAddr("198.18.255.2"), netip.MustParseAddr("2001:2::ff02")}
	sampleDNS     = []netip.Addr{netip.MustParseAddr("198.18.255.3"), netip.MustParseAddr("2001:2::ff03")}
	sampleDHCP    = []netip.Addr{netip.MustParseAddr("198.18.255.4"), netip.MustParseAddr("2001:2::ff04")}
	sampleGateway = []netip.Addr{netip.MustParseAddr("198.18.255.5"), netip.MustParseAddr("2001:2::ff05")}
	sampleService = []netip.Addr{netip.MustParseAddr("198.18.255.6"), netip.MustParseAddr("2001:2::ff06")}
)

// sample are the facts of that machine. Every DNS name that the policy has gets an address of its own.
func sample(p spd.Policy) spd.Facts {
	f := spd.Facts{Addresses: sampleOwn, DNSServers: sampleDNS, DHCPServers: sampleDHCP, DefaultGateways: sampleGateway, Names: map[string][]netip.Addr{}}
	next := netip.MustParseAddr("198.19.0.1")
	for _, name := range p.HostNames() {
		f.Names[name] = []netip.Addr{next}
		next = next.Next()
	}
	return f
}

// policies looks at each policy by itself.
func (v *verifier) policies() {
	for _, doc := range v.Documents.Policies {
		effective, err := v.Documents.Effective(doc.Name)
		if err != nil {
			continue // Validate has said why
		}
		set, err := spd.Expand(effective, sample(effective))
		if err != nil {
			continue
		}
		v.shadowed(doc, set)
		v.infrastructure(doc, set)
		v.lockout(doc, set)
		v.legacy(doc, effective)
	}
}

// shadowed reports filters that no packet reaches, with those that take their packets.
func (v *verifier) shadowed(doc policies.Policy, set spd.Set) {
	for _, s := range shadows(set) {
		at := doc.At
		for _, r := range doc.Rules {
			if r.Name == s.rule {
				at = r.At
			}
		}
		var by []string
		for _, f := range s.by {
			text := fmt.Sprintf("filter %q of rule %q (%s, weight %s)", f.FilterID, f.RuleID, f.Action, f.Weight)
			if f.Exempt != "" {
				text = fmt.Sprintf("the exemption %s", f.Exempt)
			}
			if f.RuleID == s.rule && f.FilterID == s.filter || slices.Contains(by, text) {
				continue
			}
			by = append(by, text)
		}
		if len(by) > 3 {
			by = append(by[:3], fmt.Sprintf("%d others", len(by)-3))
		}
		v.find(policies.Warning, FindingShadowed, doc, at, "Remove it, or make it more specific than those: the order of the rules decides nothing.",
			"no packet reaches filter %q of rule %q: all of them belong to %s, with at least the same weight", s.filter, s.rule, strings.Join(by, ", "))
	}
}

// infrastructure reports services that a machine needs before or without security, and that its policy protects or blocks.
func (v *verifier) infrastructure(doc policies.Policy, set spd.Set) {
	services := []Service{
		{Name: "DNS", Protocol: spd.ProtocolUDP, Port: 53, Address: sampleDNS[0]}, {Name: "DNS", Protocol: spd.ProtocolTCP, Port: 53, Address: sampleDNS[0]},
		{Name: "DHCP renewal", Protocol: spd.ProtocolUDP, Port: 67, Address: sampleDHCP[0]},
	}
	for _, s := range v.Services {
		if s.Exempt {
			continue
		}
		if !s.Address.IsValid() {
			s.Address = sampleService[0]
		}
		services = append(services, s)
	}
	said := map[string]bool{}
	for _, s := range services {
		own := sampleOwn[0]
		if s.Address.Is6() {
			own = sampleOwn[1]
		}
		p := spd.Packet{Source: own, Destination: s.Address, Protocol: s.Protocol, SourcePort: 40000, DestinationPort: s.Port, Opens: s.Protocol == spd.ProtocolTCP}
		if s.Protocol == spd.ProtocolUDP && s.Port == 67 {
			p.SourcePort = 68
		}
		m := set.LookupByAddress(spd.Out, p)
		if m.Rule == nil || said[s.Name+m.Rule.ID] {
			continue
		}
		hint := fmt.Sprintf("Permit it by a rule of its own, from me to %s, or give the action a fallback.", s.Name)
		switch {
		case m.Action == spd.ActionBlock:
			v.find(policies.Warning, FindingInfrastructure, doc, v.ruleAt(doc, m.Rule.ID), hint, "rule %q blocks %s, which machines need", m.Rule.ID, s.Name)
		case m.Action == spd.ActionNegotiate && m.Rule.Action.Fallback.Mode == spd.FallbackNone:
			v.find(policies.Warning, FindingInfrastructure, doc, v.ruleAt(doc, m.Rule.ID), hint,
				"rule %q wants %s protected without a fallback: a machine whose server there answers no IKE, or that cannot negotiate yet, does without it", m.Rule.ID, s.Name)
		default:
			continue
		}
		said[s.Name+m.Rule.ID] = true
	}
}

func (v *verifier) ruleAt(doc policies.Policy, id string) policies.Position {
	for _, r := range doc.Rules {
		if r.Name == id {
			return r.At
		}
	}
	return doc.At
}

// lockout reports policies that cut a machine off from everybody, and policies of the servers that the fleet needs which cut
// the fleet off from them. A node reaches its controller whatever its policy says.
func (v *verifier) lockout(doc policies.Policy, set spd.Set) {
	blocked := func(d spd.Direction, from, to []netip.Addr) bool {
		for i := range from {
			for _, port := range []uint16{22, 80, 443, 40001} {
				p := spd.Packet{Source: from[i], Destination: to[i], Protocol: spd.ProtocolTCP, SourcePort: 40000, DestinationPort: port, Opens: true}
				if set.LookupByAddress(d, p).Action != spd.ActionBlock {
					return false
				}
			}
		}
		return true
	}
	if len(set.Policy().Exemptions.BreakGlassTCP) == 0 && blocked(spd.Out, sampleOwn, samplePeer) && blocked(spd.In, samplePeer, sampleOwn) {
		v.find(policies.Warning, FindingLockout, doc, doc.At, "Permit what administrators need, or list a port such as 22 in exemptions.breakGlassTCP.",
			"the policy blocks all traffic with whom no filter names, in both directions, and leaves no way in: only the controller still reaches a machine that has it")
	}
	for _, h := range v.hosts {
		s, server := h.service, h.machine
		if h.policy != doc.Name {
			continue
		}
		m := set.LookupByAddress(spd.In, spd.Packet{
			Source: samplePeer[0], Destination: sampleOwn[0], Protocol: s.Protocol, SourcePort: 40000, DestinationPort: s.Port, Opens: s.Protocol == spd.ProtocolTCP,
		})
		if m.Rule == nil || spd.Inbound(m, spd.StateNone, false).Fate == spd.Pass && m.Action != spd.ActionNegotiate {
			continue
		}
		hint := fmt.Sprintf("Permit port %d in a rule of the policy of that machine, or list it in exemptions.breakGlassTCP.", s.Port)
		switch {
		case m.Action == spd.ActionBlock:
			v.find(policies.Error, FindingLockout, doc, v.ruleAt(doc, m.Rule.ID), hint, "%s runs the %s, and rule %q blocks what the fleet sends to it", server.Name, s.Name, m.Rule.ID)
		case spd.Inbound(m, spd.StateNone, false).Fate != spd.Pass || m.Rule.Action.Fallback.Mode == spd.FallbackNone:
			v.find(policies.Error, FindingLockout, doc, v.ruleAt(doc, m.Rule.ID), hint,
				"%s runs the %s, and rule %q wants what the fleet sends to it protected; nodes that do not have their policy yet talk to it in clear", server.Name, s.Name, m.Rule.ID)
		}
	}
}

// host is a machine of the directory that a service runs on, with the policy that it has.
type host struct {
	service Service
	machine directory.Machine
	policy  string
}

// servers finds the machines that services run on.
func (v *verifier) servers() []host {
	if v.Directory == nil || len(v.Services) == 0 {
		return nil
	}
	var out []host
	plan := resolve.Prepare(v.Documents).At(v.Locations)
	for m := range v.Directory.Machines() {
		for _, s := range v.Services {
			if (s.Host == "" || !strings.EqualFold(m.DNSName, s.Host)) && (!s.Address.IsValid() || !slices.Contains(m.Addresses, s.Address)) {
				continue
			}
			if outcome, err := plan.Machine(v.Directory, m.UUID); err == nil {
				out = append(out, host{s, m, outcome.Policy})
			}
		}
	}
	return out
}

// legacy reports what is not weak yet, and will be.
func (v *verifier) legacy(doc policies.Policy, p spd.Policy) {
	offers := p.KeyExchange.Offers
	if len(offers) > 0 && !slices.ContainsFunc(offers, func(o proposal.IKE) bool { return o.KeyExchange().PostQuantum() }) {
		v.find(policies.Info, FindingLegacy, doc, doc.At, "Put an offer with x25519+mlkem768 in front.",
			"none of the offers for IKE SAs withstands a quantum computer: what is recorded today can be read then")
	}
	for _, r := range p.Rules {
		for _, o := range r.Action.Offers {
			if o.Group != proposal.GroupNone && o.KeyExchange().Strength() < 128 {
				v.find(policies.Warning, policies.CodeWeak, doc, v.ruleAt(doc, r.ID), "Name x25519 or ecp256 instead.",
					"rule %q offers %s, whose key exchange has a strength of %d bits", r.ID, o, o.KeyExchange().Strength())
			}
		}
	}
}
