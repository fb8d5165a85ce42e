package policies

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Severity says how much a finding matters. Documents with an Error of Validate are never applied.
type Severity uint8

// The severities.
const (
	Info Severity = iota + 1
	Warning
	Error
)

// String names the severity.
func (s Severity) String() string {
	switch s {
	case Info:
		return "info"
	case Warning:
		return "warning"
	case Error:
		return "error"
	}
	return fmt.Sprintf("severity(%d)", uint8(s))
}

// Code names what a finding is about, for programs.
type Code string

// The codes.
const (
	CodeDuplicate Code = "duplicate"      // two documents, rules or filters that cannot be told apart
	CodeDangling  Code = "dangling"       // a name without a document
	CodeEmpty     Code = "empty"          // a list or policy that says nothing
	CodeAction    Code = "action"         // settings that do not go with the action
	CodeOffers    Code = "offers"         // no offer, or offers that contradict each other
	CodeAuth      Code = "authentication" // authentication that cannot work
	CodeTunnel    Code = "tunnel"         // filters or settings that a tunnel cannot have
	CodeGroup     Code = "multicast"      // negotiation with multicast or broadcast
	CodeFilter    Code = "filter"         // a filter that contradicts itself
	CodeScope     Code = "scope"          // a container that cannot have links
	CodePolicy    Code = "policy"         // anything else that a node would refuse
	CodeIntegrity Code = "integrity-only" // protection without encryption
	CodePreshared Code = "preshared-key"  // authentication by a shared secret
	CodeWeak      Code = "weak"           // an offer below 128 bits of strength
	CodeExempt    Code = "exemptions"     // an exemption that lets more pass than somebody may expect
	CodeUnlinked  Code = "unlinked"       // a group filter or link without any effect
)

// Finding is one result of Validate.
type Finding struct {
	Severity Severity
	Code     Code
	At       Position
	Object   string // kind and key, as `Policy "Server"`
	Message  string
	Hint     string // what to do; empty where the message says it
}

// String prints the finding in one line.
func (f Finding) String() string {
	return fmt.Sprintf("%s: %s: %s: %s (%s)", f.At, f.Severity, f.Object, f.Message, f.Code)
}

// ErrInvalid is wrapped by the error of Check.
var ErrInvalid = errors.New("the documents are not valid")

// Check returns an error that lists every finding of severity Error; nil without one.
func Check(findings []Finding) error {
	var lines []string
	for _, f := range findings {
		if f.Severity == Error {
			lines = append(lines, f.String())
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return fmt.Errorf("%w:\n%s", ErrInvalid, strings.Join(lines, "\n"))
}

// Validate looks at all documents together: references, and what no single document can tell. Documents without a
// finding of severity Error give an effective policy for every name. The findings are in the order of file and line.
func Validate(d Documents) []Finding {
	v := &validator{docs: d}
	v.duplicates()
	for _, l := range d.FilterLists {
		v.filterList(l)
	}
	for _, a := range d.FilterActions {
		v.filterAction(a)
	}
	for _, p := range d.Policies {
		v.policy(p)
	}
	v.sites()
	v.links()
	for _, c := range d.Containers {
		v.scope(c, c.DN)
	}
	for _, p := range d.PolicyTests {
		v.policyTest(p)
	}
	slices.SortStableFunc(v.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.At.File, b.At.File), cmp.Compare(a.At.Line, b.At.Line), cmp.Compare(a.At.Column, b.At.Column))
	})
	return v.findings
}

type validator struct {
	docs     Documents
	findings []Finding
}

func (v *validator) find(s Severity, c Code, at Position, d Document, format string, args ...any) {
	v.findings = append(v.findings, Finding{
		Severity: s, Code: c, At: at, Object: fmt.Sprintf("%s %q", d.Kind(), d.Key()), Message: fmt.Sprintf(format, args...),
	})
}

func (v *validator) duplicates() {
	first := map[string]Document{}
	for _, d := range v.docs.All() {
		key := string(d.Kind()) + "\x00" + strings.ToLower(d.Key())
		if f, ok := first[key]; ok {
			v.find(Error, CodeDuplicate, d.Metadata().At, d, "already stands at %s, as %q", f.Metadata().At, f.Key())
			continue
		}
		first[key] = d
	}
}

func (v *validator) filterList(l FilterList) {
	if len(l.Filters) == 0 {
		v.find(Error, CodeEmpty, l.At, l, "has no filters")
	}
	names := map[string]bool{}
	for i, f := range l.Filters {
		name := f.identity()
		if names[name] {
			what := "says the same as another one"
			if f.Name != "" {
				what = "has the name of another one"
			}
			v.find(Error, CodeDuplicate, f.At, l, "filter %d %s", i+1, what)
		}
		names[name] = true
		s, d := familyOf(f.Source), familyOf(f.Destination)
		if s != 0 && d != 0 && s != d {
			v.find(Error, CodeFilter, f.At, l, "source %s and destination %s are of different families", f.Source, f.Destination)
		}
		if (!f.SourcePort.Any() || !f.DestinationPort.Any()) && !spd.HasPorts(f.Protocol) {
			v.find(Error, CodeFilter, f.At, l, "names ports with protocol %s, which has none; name tcp, udp, udp-lite, sctp or dccp", protocolText(f.Protocol))
		}
	}
}

func familyOf(a spd.Address) int {
	probe := a.From
	if a.Kind == spd.AddressPrefix {
		probe = a.Prefix.Addr()
	}
	return probe.BitLen()
}

func (v *validator) filterAction(a FilterAction) {
	if a.Action != spd.ActionNegotiate {
		if a.Inpass || a.Fallback != (spd.Fallback{}) || len(a.offers()) > 0 || a.PFS || a.Associations > 0 {
			v.find(Error, CodeAction, a.At, a, "has action %s with inpass, fallback, level, offers, pfs or associations, which only negotiate has", a.Action)
		}
		return
	}
	if len(a.offers()) == 0 {
		v.find(Error, CodeOffers, a.At, a, "negotiates without a level and without an offer; the usual offers are %s", plain(usualOffers))
	}
	if f := a.Fallback; f.Mode == spd.FallbackNone && f != (spd.Fallback{}) || f.Mode == spd.FallbackDiscover && f.Delay != 0 {
		v.find(Error, CodeAction, a.At, a, "has fallback %s with a delay or ttl that it does not have", f.Mode)
	}
	v.level(a, a.Level, a.Offers)
	v.offers(a, a.offers(), a.PFS)
}

func (v *validator) level(d Document, level proposal.Level, offers []Offer) {
	if level != 0 && len(offers) > 0 {
		v.find(Error, CodeOffers, d.Metadata().At, d, "has level %s and offers; the level stands for offers of its own, write one of the two", level)
	}
}

func (v *validator) offers(d Document, offers []Offer, pfs bool) {
	at, lives := d.Metadata().At, map[proposal.Life]bool{}
	seen := map[proposal.ESP]bool{}
	for _, o := range offers {
		lives[o.Life] = true
		if seen[o.ESP] {
			v.find(Error, CodeOffers, at, d, "offers %s twice", o.ESP)
		}
		seen[o.ESP] = true
		if o.Group != proposal.GroupNone && !pfs {
			v.find(Error, CodeOffers, at, d, "offers %s with a group, but without pfs", o)
		}
		if !o.Encryption.Conceals() {
			v.find(Warning, CodeIntegrity, at, d, "offers %s, which protects against change and hides nothing", o)
		}
	}
	if len(lives) > 1 {
		v.find(Error, CodeOffers, at, d, "has offers of different lifetimes; an action has one")
	}
}

func (v *validator) policy(p Policy) {
	before := len(v.findings)
	if len(p.Rules) == 0 && !p.DefaultResponse.Active {
		v.find(Warning, CodeEmpty, p.At, p, "has no rule and no default response, so it permits everything")
	}
	if strings.EqualFold(p.Name, NoneName) {
		v.find(Error, CodePolicy, p.At, p, "has the name that means that a machine has no policy")
	}
	names := map[string]bool{}
	for _, r := range p.Rules {
		if names[strings.ToLower(r.Name)] {
			v.find(Error, CodeDuplicate, r.At, p, "has two rules named %q", r.Name)
		}
		names[strings.ToLower(r.Name)] = true
		v.rule(p, r)
	}
	v.exemptions(p)
	r := p.DefaultResponse
	if !r.Active && (len(r.offers()) > 0 || len(r.Authentication) > 0 || r.PFS || r.Idle != 0) {
		v.find(Error, CodeAction, p.At, p, "has settings for a default response that is not active")
	}
	v.level(p, r.Level, r.Offers)
	v.offers(p, r.offers(), r.PFS)
	v.authentication(p, p.At, "the default response", r.Authentication)
	for _, o := range p.KeyExchange.Offers {
		if s := o.Strength(); s < 128 {
			v.find(Warning, CodeWeak, p.At, p, "offers %s, which has a strength of %d bits", o, s)
		}
		if o.Group == proposal.GroupMLKEM1024 {
			v.find(Warning, CodeOffers, p.At, p, "offers %s, whose first message is too large for one packet; as x25519+%s it fits",
				o, o.Group)
		}
	}
	if slices.ContainsFunc(v.findings[before:], func(f Finding) bool { return f.Severity == Error }) {
		return
	}
	// Whatever the rules above do not know, a node would refuse.
	if _, err := v.docs.Effective(p.Name); errors.Is(err, spd.ErrPolicy) {
		for _, line := range strings.Split(err.Error(), "\n") {
			v.find(Error, CodePolicy, p.At, p, "%s", line)
		}
	}
}

func (v *validator) rule(p Policy, r Rule) {
	list, haveList := v.docs.FilterList(r.FilterList)
	if !haveList {
		v.find(Error, CodeDangling, r.At, p, "rule %q names filter list %q, which does not exist%s", r.Name, r.FilterList, suggestion(r.FilterList, v.docs.FilterLists))
	}
	action, haveAction := v.docs.FilterAction(r.FilterAction)
	if !haveAction {
		v.find(Error, CodeDangling, r.At, p, "rule %q names filter action %q, which does not exist%s", r.Name, r.FilterAction, suggestion(r.FilterAction, v.docs.FilterActions))
	}
	v.authentication(p, r.At, fmt.Sprintf("rule %q", r.Name), r.Authentication)
	if haveAction && action.Action != spd.ActionNegotiate {
		if len(r.Authentication) > 0 {
			v.find(Error, CodeAuth, r.At, p, "rule %q authenticates, but its action %q does not negotiate", r.Name, action.Name)
		}
		if r.Tunnel.Remote.IsValid() {
			v.find(Error, CodeTunnel, r.At, p, "rule %q is a tunnel, but its action %q does not negotiate", r.Name, action.Name)
		}
	}
	if r.Tunnel.Remote.IsValid() {
		v.tunnel(p, r, list, action)
	}
	if len(r.PeerGroups) > 0 && haveAction {
		v.peerGroups(p, r, action)
	}
	if haveAction && action.Action == spd.ActionNegotiate {
		for _, f := range list.Filters {
			for _, a := range []spd.Address{f.Source, f.Destination} {
				if groupAddress(a) {
					v.find(Error, CodeGroup, r.At, p, "rule %q negotiates with %s of filter list %q; IKE cannot negotiate with multicast or broadcast", r.Name, a, list.Name)
				}
			}
		}
	}
}

func (v *validator) peerGroups(p Policy, r Rule, action FilterAction) {
	switch {
	case action.Action != spd.ActionNegotiate:
		v.find(Error, CodeAuth, r.At, p, "rule %q has groups of peers, but its action %q does not negotiate", r.Name, action.Name)
	case action.Fallback.Mode != spd.FallbackNone:
		v.find(Error, CodeAuth, r.At, p, "rule %q has groups of peers, but its action %q grants clear traffic to silent ones, whoever they are", r.Name, action.Name)
	}
	if slices.ContainsFunc(r.Authentication, func(a spd.Auth) bool { return a.Method != spd.AuthCertificate }) {
		v.find(Error, CodeAuth, r.At, p, "rule %q has groups of peers and authenticates by preshared key; only a certificate says which machine of the directory a peer is", r.Name)
	}
}

func suggestion[D Document](name string, docs []D) string {
	keys := make([]string, len(docs))
	for i, d := range docs {
		keys[i] = d.Key()
	}
	if near := nearest(name, keys); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

func (v *validator) tunnel(p Policy, r Rule, list FilterList, action FilterAction) {
	for i, f := range list.Filters {
		if f.Protocol != 0 || !f.SourcePort.Any() || !f.DestinationPort.Any() {
			v.find(Error, CodeTunnel, r.At, p, "rule %q is a tunnel, but filter %d of %q names a protocol or ports; tunnel filters are of addresses only", r.Name, i+1, list.Name)
		}
	}
	if action.Inpass || action.Fallback.Mode != spd.FallbackNone {
		v.find(Error, CodeTunnel, r.At, p, "rule %q is a tunnel, but its action %q lets clear traffic pass", r.Name, action.Name)
	}
}

func groupAddress(a spd.Address) bool {
	first, last := a.From, a.To
	if a.Kind == spd.AddressPrefix {
		first, last = a.Prefix.Addr(), a.Prefix.Addr()
		if a.Prefix.Bits() < 4 || first.Is6() && a.Prefix.Bits() < 8 {
			return false
		}
	}
	return group(first) && group(last)
}

func group(a netip.Addr) bool {
	return a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func (v *validator) authentication(p Policy, at Position, what string, auth []spd.Auth) {
	for i, a := range auth {
		switch a.Method {
		case spd.AuthCertificate:
			if a.Secret != "" {
				v.find(Error, CodeAuth, at, p, "authentication %d of %s is by certificate, but names a secret", i+1, what)
			}
		case spd.AuthPSK:
			if a.Secret == "" {
				v.find(Error, CodeAuth, at, p, "authentication %d of %s is by preshared key, but has no secretRef", i+1, what)
			}
			if a.CA != "" {
				v.find(Error, CodeAuth, at, p, "authentication %d of %s is by preshared key, but names a CA", i+1, what)
			}
			if a.AccountMapping || a.ExcludeCAName {
				v.find(Error, CodeAuth, at, p, "authentication %d of %s is by preshared key, but has accountMapping or excludeCAName", i+1, what)
			}
			v.find(Warning, CodePreshared, at, p, "%s authenticates with a preshared key, which every holder can use in the name of every other", what)
		}
		switch {
		case a.PPKOptional && a.PPK == "":
			v.find(Error, CodeAuth, at, p, "authentication %d of %s has ppkOptional, but no ppkRef", i+1, what)
		case len(a.PPK) > spd.MaxPPKName:
			v.find(Error, CodeAuth, at, p, "authentication %d of %s names a postquantum preshared key by %d octets, more than %d", i+1, what, len(a.PPK), spd.MaxPPKName)
		}
	}
}

func (v *validator) links() {
	type place struct {
		container string
		order     int
	}
	first := map[place]Link{}
	for _, l := range v.docs.Links {
		v.linked(l)
		if _, ok := v.docs.Policy(l.Policy); !ok {
			v.find(Error, CodeDangling, l.At, l, "links policy %q, which does not exist%s", l.Policy, suggestion(l.Policy, v.docs.Policies))
		}
		at := place{l.Container.Key(), l.Order}
		if f, ok := first[at]; ok {
			v.find(Error, CodeDuplicate, l.At, l, "has order %d at %s, as has %q", l.Order, l.Container, f.Key())
		} else {
			first[at] = l
		}
		for _, dn := range l.Apply {
			if slices.ContainsFunc(l.Deny, dn.Equal) {
				v.find(Warning, CodeUnlinked, l.At, l, "both applies to and denies %s; deny wins", dn)
			}
		}
	}
}

// scope reports a container that is none for links: only OU= and DC= are.
func (v *validator) scope(d Document, dn directory.DN) {
	if k := directory.KindOf(dn); k != directory.Domain && k != directory.OrganizationalUnit {
		v.find(Error, CodeScope, d.Metadata().At, d, "%s is neither an organizational unit (OU=) nor a domain (DC=); only these have links", dn)
	}
}
