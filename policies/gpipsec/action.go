package gpipsec

import (
	"slices"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// What the attributes of an ipsecNegotiationPolicy say (MS-GPIPSEC 2.2.1.4.1).
const (
	typeDefaultResponse = "{62F49E13-6C37-11D1-864C-14A300000000}"

	actionBlock       = "{3F91A819-7647-11D1-864D-D46A00000000}"
	actionInboundPass = "{3F91A81A-7647-11D1-864D-D46A00000000}"
	actionPermit      = "{8A171DD2-77E3-11D1-8659-A04F00000000}"
	actionNegotiate   = "{8A171DD3-77E3-11D1-8659-A04F00000000}"
)

// keepAction adds the action to the documents unless it is there.
func (c *converter) keepAction(a policies.FilterAction) {
	if _, ok := c.result.Documents.FilterAction(a.Name); !ok {
		c.result.Documents.FilterActions = append(c.result.Documents.FilterActions, a)
	}
}

// filterAction converts the action once, however many rules use it.
func (c *converter) filterAction(o object) policies.FilterAction {
	if a, ok := c.actions[o.dn.Key()]; ok {
		return a
	}
	a := policies.FilterAction{Meta: policies.Meta{Name: c.title(policies.KindFilterAction, o, "Windows filter action"), Description: o.description}}
	doc := named(policies.KindFilterAction, a.Name)
	switch id := strings.ToUpper(o.value("iPSECNegotiationPolicyAction")); id {
	case actionPermit:
		a.Action = spd.ActionPermit
	case actionBlock:
		a.Action = spd.ActionBlock
	case actionNegotiate, actionInboundPass:
		a.Action, a.Inpass = spd.ActionNegotiate, id == actionInboundPass
		offers, soft := c.offers(doc, o, &a.PFS)
		a.Offers = offers
		if soft {
			a.Fallback.Mode = spd.FallbackWait
		}
		if len(a.Offers) == 0 {
			a.Offers = protecting(proposal.Life{})
			c.note(doc, "has no offer that is understood: the usual ones take their place")
		}
	default:
		// Block is what keeps the promise of every action but permit.
		a.Action = spd.ActionBlock
		c.note(doc, "has the unknown action %.100q: it blocks", id)
	}
	c.keepAction(a)
	c.actions[o.dn.Key()] = a
	return a
}

// tunnelAction returns the action without what lets packets of a tunnel pass in clear.
func (c *converter) tunnelAction(a policies.FilterAction) policies.FilterAction {
	if !a.Inpass && a.Fallback == (spd.Fallback{}) {
		return a
	}
	strict := a
	strict.Inpass, strict.Fallback = false, spd.Fallback{}
	// One strict action serves every tunnel that uses the same one.
	name := shorten(a.Name+" in a tunnel", maxName)
	if known, ok := c.result.Documents.FilterAction(name); ok && slices.Equal(known.Offers, a.Offers) && !known.Inpass && known.PFS == a.PFS {
		return known
	}
	strict.Name = c.unique(policies.KindFilterAction, name)
	c.note(named(policies.KindFilterAction, strict.Name), "is %q without clear traffic: what belongs into a tunnel never travels in clear", a.Name)
	return strict
}

// offers turns the offers of an action into modern ones that protect as much, in the order of the first of each kind,
// and tells whether clear traffic with silent peers is permitted.
func (c *converter) offers(doc string, o object, pfs *bool) (out []policies.Offer, soft bool) {
	v, err := ParseNegotiation(o.data())
	if err != nil {
		c.note(doc, "its offers cannot be read: %v", err)
		return nil, false
	}
	c.noteUnknown(doc, "offers", v.Unknown)
	var conceal, integrity []string // offers of each kind as they were
	var life proposal.Life
	lives := map[proposal.Life]bool{}
	for i, q := range v.Offers {
		if len(q.Algorithms) == 0 {
			soft = true
			continue
		}
		l := proposal.Life{Kilobytes: uint64(q.Kilobytes), Time: time.Duration(q.Seconds) * time.Second}
		if lives[l] = true; i == 0 {
			// Only the flag of the first offer counts.
			life, *pfs = l, q.PFS
		}
		switch {
		case q.conceals():
			conceal = append(conceal, q.String())
		case q.protects():
			integrity = append(integrity, q.String())
		default:
			c.note(doc, "the offer %s protects nothing and is left out", q)
		}
	}
	if len(lives) > 1 {
		c.note(doc, "its offers had different lifetimes; that of the first one holds for all")
	}
	if len(conceal) > 0 {
		out = protecting(life)
		c.note(doc, "offered %s, which are never negotiated: offers with AES take their place", strings.Join(conceal, ", "))
	}
	switch {
	case len(integrity) > 0 && len(conceal) > 0:
		c.note(doc, "also offered %s, which hide nothing: left out, because the action has offers that encrypt", strings.Join(integrity, ", "))
	case len(integrity) > 0:
		out = []policies.Offer{{
			ESP: proposal.ESP{Encryption: proposal.EncrNULL, Integrity: proposal.IntegHMACSHA256128}, Life: life,
		}}
		c.note(doc, "offered %s, which hide nothing: so does the offer in their place; consider ESP[AES-GCM-256]", strings.Join(integrity, ", "))
	}
	return out, soft
}

// protecting returns the usual offers with a lifetime.
func protecting(life proposal.Life) []policies.Offer {
	var out []policies.Offer
	for _, e := range proposal.DefaultESP() {
		out = append(out, policies.Offer{ESP: e, Life: life})
	}
	return out
}

// conceals reports whether the offer encrypts.
func (o QuickOffer) conceals() bool {
	return slices.ContainsFunc(o.Algorithms, func(a Algorithm) bool { return a.Kind == kindESP && a.Algorithm > 0 })
}

// protects reports whether the offer keeps packets from being changed.
func (o QuickOffer) protects() bool {
	return slices.ContainsFunc(o.Algorithms, func(a Algorithm) bool {
		return a.Kind == kindAH && a.Algorithm > 0 || a.Kind == kindESP && a.Integrity > 0
	})
}

func (b *policyBuilder) defaultResponse(o object, v RuleValue, negotiation object) {
	if !v.Active {
		return
	}
	if b.policy.DefaultResponse.Active {
		b.note(b.doc, "has a second default response, %s: left out", o.called())
		return
	}
	d := policies.DefaultResponse{Active: true, Authentication: b.authentication("default response", v.Methods)}
	var soft bool
	d.Offers, soft = b.offers(b.doc, negotiation, &d.PFS)
	if soft {
		b.note(b.doc, "its default response permits clear traffic with silent peers, which says nothing: it never asks")
	}
	if len(d.Offers) == 0 {
		d.Offers = protecting(proposal.Life{})
	}
	b.policy.DefaultResponse = d
}

// authentication converts the methods of a rule in their order.
func (b *policyBuilder) authentication(rule string, methods []AuthMethod) []spd.Auth {
	var out []spd.Auth
	add := func(a spd.Auth) {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	for _, m := range methods {
		switch m.Type {
		case authKerberos:
			b.note(b.doc, "Kerberos becomes the certificate that the fleet gives to the account of a machine")
			add(spd.Auth{Method: spd.AuthCertificate})
		case authCertificate:
			ca, ok := authorityName(m.CA)
			if !ok {
				b.note(b.doc, "rule %q accepts certificates of %q, which is no name of an authority: that method is left out", rule, cleanName(m.CA))
				continue
			}
			flags := m.Flags | b.options
			add(spd.Auth{
				Method: spd.AuthCertificate, CA: ca, AccountMapping: flags&optionMapAccount != 0, ExcludeCAName: flags&optionHideCA != 0,
			})
		case authPSK:
			secret := b.secret(m.Key, b.policy.Name, rule)
			b.note(b.doc, "rule %q used a preshared key, which stood in the directory for everybody to read; it is not here. "+
				"Make a new one: bailiwick secret set %s", rule, secret)
			add(spd.Auth{Method: spd.AuthPSK, Secret: secret})
		default:
			b.note(b.doc, "rule %q has an authentication method of the unknown type %d: left out", rule, m.Type)
		}
	}
	if len(out) == 0 {
		b.note(b.doc, "rule %q is left with no authentication method: a certificate of the fleet takes its place", rule)
		out = []spd.Auth{{Method: spd.AuthCertificate}}
	}
	return out
}

// windowsTypes are attribute types that Windows names in its own way.
var windowsTypes = map[string]string{"S": "ST", "E": "emailAddress", "G": "givenName", "T": "title"}

// authorityName turns the name of an authority as Windows writes it, mostly from the country down ("C=US, O=Example, CN=Root")
// and with values in quotes, into a DN of RFC 4514.
func authorityName(s string) (string, bool) {
	var types, values []string
	for _, part := range splitName(s) {
		typ, value, ok := strings.Cut(part, "=")
		if typ = strings.TrimSpace(typ); !ok || typ == "" {
			return "", false
		}
		if standard, ok := windowsTypes[strings.ToUpper(typ)]; ok {
			typ = standard
		}
		if value = strings.TrimSpace(value); len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
			value = strings.ReplaceAll(value[1:len(value)-1], `""`, `"`)
		}
		types, values = append(types, typ), append(values, value)
	}
	if len(types) == 0 {
		return "", false
	}
	// A DN is built from its top, which stands first in what Windows writes and last in what others do.
	top := func(typ string) bool { return slices.Contains([]string{"C", "DC", "O"}, strings.ToUpper(typ)) }
	if top(types[len(types)-1]) && !top(types[0]) {
		slices.Reverse(types)
		slices.Reverse(values)
	}
	var dn directory.DN
	for i := range types {
		var err error
		if dn, err = dn.Child(types[i], values[i]); err != nil {
			return "", false
		}
	}
	return dn.String(), true
}

// splitName cuts at commas and semicolons outside quotes.
func splitName(s string) []string {
	quoted := false
	return strings.FieldsFunc(s, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && (r == ',' || r == ';')
	})
}
