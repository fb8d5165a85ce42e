package policies

import (
	"fmt"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// object reads a node as a mapping, which has no fields where it is none.
func (r *reader) object(n ast.Node, o *object) mapping {
	m, _ := r.mapping(n, o)
	return m
}

// meta reads name and description, as far as the mapping has them.
func (m mapping) meta() Meta {
	out := Meta{At: m.at}
	if name, ok := m.text("name"); ok {
		if err := checkName(name); err != nil {
			m.report("name", "%v", err)
		}
		out.Name = name
	}
	if description, ok := m.text("description"); ok {
		if err := checkDescription(description); err != nil {
			m.report("description", "%v", err)
		}
		out.Description = description
	}
	return out
}

// parsed reads a field of text with a parser of its own.
func parsed[T any](m mapping, name string, parse func(string) (T, error)) T {
	var none T
	s, ok := m.scalar(name)
	if !ok {
		return none
	}
	v, err := parse(s)
	if err != nil {
		m.report(name, "is wrong: %v", err)
		return none
	}
	return v
}

// choice reads a field that is one of few words.
func choice[T fmt.Stringer](m mapping, name string, otherwise T, choices ...T) T {
	s, ok := m.text(name)
	if !ok {
		return otherwise
	}
	known := make([]string, len(choices))
	for i, c := range choices {
		if known[i] = c.String(); known[i] == s {
			return c
		}
	}
	m.report(name, "is %q; known are %s", printable(s), strings.Join(known, ", "))
	return otherwise
}

// texts reads a list of texts with a parser.
func texts[T any](m mapping, name string, parse func(string) (T, error)) []T {
	var out []T
	m.list(name, func(n ast.Node) {
		var s string
		switch v := n.(type) {
		case *ast.StringNode:
			s = v.Value
		case *ast.IntegerNode:
			s = v.Token.Value
		default:
			m.r.report(m.r.position(n), "an element of %q of %s is %s, not text", name, m.what, describe(n))
			return
		}
		v, err := parse(s)
		if err != nil {
			m.r.report(m.r.position(n), "an element of %q of %s is wrong: %v", name, m.what, err)
			return
		}
		out = append(out, v)
	})
	return out
}

func parseOffer(s string) (Offer, error) {
	o, life, err := proposal.ParseESP(s)
	return Offer{o, life}, err
}

func parsePort(s string) (uint16, error) {
	p, err := decimal(s, 65535)
	if err != nil || p == 0 {
		return 0, fmt.Errorf("%q is not a port of 1-65535", printable(s))
	}
	return uint16(p), nil
}

func parseDN(s string) (directory.DN, error) {
	dn, err := directory.ParseDN(s)
	if err != nil {
		return directory.DN{}, err
	}
	if dn.IsZero() {
		return directory.DN{}, fmt.Errorf("the DN is empty")
	}
	return dn, nil
}

func parseCA(s string) (string, error) {
	_, err := parseDN(s)
	return s, err
}

func parseID(s string) (string, error) { return s, checkID(s) }

// reference reads the name of another document.
func (m mapping) reference(name string) string {
	s, ok := m.text(name)
	if !ok {
		return ""
	}
	if err := checkName(s); err != nil {
		m.report(name, "%v", err)
	}
	return s
}

func (r *reader) policy(n ast.Node) Policy {
	m := r.object(n, &policyObject)
	p := Policy{Meta: m.meta()}
	m.list("rules", func(n ast.Node) { p.Rules = append(p.Rules, r.rule(n)) })
	if f, ok := m.fields["defaultResponse"]; ok {
		p.DefaultResponse = r.defaultResponse(f.value)
	}
	if f, ok := m.fields["keyExchange"]; ok {
		k := r.object(f.value, &keyExchangeObject)
		p.KeyExchange = KeyExchange{
			Offers: texts(k, "offers", proposal.ParseIKE), Lifetime: parsed(k, "lifetime", parseDuration),
			Childless: parsed(k, "childless", spd.ParseChildless), Mobility: parsed(k, "mobility", spd.ParseMobility),
			Revocation: parsed(k, "revocation", spd.ParseRevocation), Reauthentication: parsed(k, "reauthentication", parseDuration),
			Transcript:             parsed(k, "transcript", spd.ParseTranscript),
			AnnounceAuthentication: k.flag("announceAuthentication", false),
			ChildLimit:             parsed(k, "childLimit", parseChildLimit),
		}
	}
	if f, ok := m.fields["exemptions"]; ok {
		e := r.object(f.value, &exemptionsObject)
		p.Exemptions = Exemptions{
			Multicast: e.flag("multicast", false), Broadcast: e.flag("broadcast", false), Kerberos: e.flag("kerberos", false),
			RSVP: e.flag("rsvp", false), ICMP: e.flag("icmp", false), Level: parsed(e, "level", parseLevel), BreakGlassTCP: texts(e, "breakGlassTCP", parsePort),
		}
	}
	return p
}

func (r *reader) rule(n ast.Node) Rule {
	m := r.object(n, &ruleObject)
	out := Rule{
		Meta: m.meta(), Disabled: !m.flag("active", true),
		FilterList: m.reference("filterList"), FilterAction: m.reference("filterAction"),
		Authentication: r.authentication(m),
		Interfaces:     choice(m, "interfaces", spd.InterfacesAll, spd.InterfacesAll, spd.InterfacesLAN, spd.InterfacesRemoteAccess),
		PeerGroups:     texts(m, "peerGroups", parseDN),
	}
	if m.has("peerGroups") && len(out.PeerGroups) == 0 {
		m.report("peerGroups", "is empty; leave it away to accept every machine that authenticates")
	}
	if f, ok := m.fields["tunnel"]; ok {
		t := r.object(f.value, &tunnelObject)
		out.Tunnel = Tunnel{Remote: parsed(t, "remote", parseEndpoint), Local: parsed(t, "local", parseEndpoint)}
	}
	return out
}

func (r *reader) authentication(m mapping) []spd.Auth {
	var out []spd.Auth
	m.list("authentication", func(n ast.Node) {
		a, ok := r.mapping(n, &authenticationObject)
		if !ok {
			return
		}
		out = append(out, spd.Auth{
			Method: choice(a, "method", spd.AuthCertificate, spd.AuthCertificate, spd.AuthPSK),
			CA:     parsed(a, "ca", parseCA), Secret: a.reference("secretRef"),
			LocalID: parsed(a, "localID", parseID), RemoteID: parsed(a, "remoteID", parseID),
			PPK: a.reference("ppkRef"), PPKOptional: a.flag("ppkOptional", false),
			AccountMapping: a.flag("accountMapping", false), ExcludeCAName: a.flag("excludeCAName", false),
		})
	})
	return out
}

func (r *reader) defaultResponse(n ast.Node) DefaultResponse {
	m := r.object(n, &defaultResponseObject)
	return DefaultResponse{
		Active: m.flag("active", false), Offers: texts(m, "offers", parseOffer), Authentication: r.authentication(m),
		Level: parsed(m, "level", proposal.ParseLevel),
		PFS:   m.flag("pfs", false), Idle: parsed(m, "idle", parseDuration),
	}
}

func (r *reader) filterList(n ast.Node) FilterList {
	m := r.object(n, &filterListObject)
	l := FilterList{Meta: m.meta()}
	m.list("filters", func(n ast.Node) { l.Filters = append(l.Filters, r.filter(n)) })
	return l
}

func (r *reader) filter(n ast.Node) Filter {
	m := r.object(n, &filterObject)
	return Filter{
		Meta: m.meta(), Source: parsed(m, "source", parseAddress), Destination: parsed(m, "destination", parseAddress),
		Protocol: parsed(m, "protocol", parseProtocol), SourcePort: parsed(m, "sourcePort", parsePorts),
		DestinationPort: parsed(m, "destinationPort", parsePorts), Mirrored: m.flag("mirrored", true),
	}
}

func (r *reader) filterAction(n ast.Node) FilterAction {
	m := r.object(n, &filterActionObject)
	return FilterAction{
		Meta: m.meta(), Inpass: m.flag("inpass", false), Fallback: r.fallback(m), Offers: texts(m, "offers", parseOffer), Level: parsed(m, "level", proposal.ParseLevel),
		Action: choice(m, "action", spd.Action(0), spd.ActionPermit, spd.ActionBlock, spd.ActionNegotiate), PFS: m.flag("pfs", false),
		Associations: parsed(m, "associations", parseAssociations),
	}
}

func parseAssociations(s string) (uint8, error) {
	n, err := decimal(s, spd.MaxAssociations)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a number of 1-%d", printable(s), spd.MaxAssociations)
	}
	return uint8(n), nil
}

func parseChildLimit(s string) (int, error) {
	n, err := decimal(s, spd.MaxChildLimit)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a number of 1-%d", printable(s), spd.MaxChildLimit)
	}
	return int(n), nil
}

// fallback reads one word, or a mapping with delay and life.
func (r *reader) fallback(m mapping) spd.Fallback {
	modes := []spd.FallbackMode{spd.FallbackNone, spd.FallbackWait, spd.FallbackDiscover}
	f, ok := m.fields["fallback"]
	if !ok {
		return spd.Fallback{}
	}
	if t := f.value.Type(); t != ast.MappingType && t != ast.MappingValueType {
		return spd.Fallback{Mode: choice(m, "fallback", spd.FallbackNone, modes...)}
	}
	b := r.object(f.value, &fallbackObject)
	return spd.Fallback{
		Mode:  choice(b, "mode", spd.FallbackNone, modes...),
		Delay: parsed(b, "delay", parseDuration), TTL: parsed(b, "ttl", parseDuration),
	}
}

func (r *reader) link(n ast.Node) Link {
	m := r.object(n, &linkObject)
	l := Link{
		Meta: m.meta(), Policy: m.reference("policy"), Container: parsed(m, "container", parseDN),
		Order: parsed(m, "order", parseOrder), Enforced: m.flag("enforced", false), Disabled: m.flag("disabled", false),
	}
	if f, ok := m.fields["groups"]; ok {
		g := r.object(f.value, &groupsObject)
		l.Apply, l.Deny = texts(g, "apply", parseDN), texts(g, "deny", parseDN)
		if g.has("apply") && len(l.Apply) == 0 {
			g.report("apply", "is empty; leave it away to apply the link to every machine, or disable the link")
		}
	}
	return l
}

// maxOrder bounds Link.Order.
const maxOrder = 1 << 20

func parseOrder(s string) (int, error) {
	n, err := decimal(s, maxOrder)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a place of 1 or more; 1 wins", printable(s))
	}
	return int(n), nil
}

func (r *reader) container(n ast.Node) Container {
	m := r.object(n, &containerObject)
	return Container{Meta: m.meta(), DN: parsed(m, "container", parseDN), BlockInheritance: m.flag("blockInheritance", false)}
}

func (r *reader) settings(n ast.Node) Settings {
	m := r.object(n, &settingsObject)
	return Settings{Meta: m.meta(), BreakGlassTCP: texts(m, "breakGlassTCP", parsePort), BlockApply: parsed(m, "blockApply", parseBlockApply)}
}
