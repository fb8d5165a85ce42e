package policies

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Effective returns the policy of a name with the filter lists and filter actions that its rules name, the fleet's
// settings, and the defaults of what it leaves open. Rules that are not active are not in it. The error wraps
// ErrReference for a name that is not there, or spd.ErrPolicy.
//
// The ID of a rule is its name. The ID of a filter is "rule/filter", where a filter without a name is called by a digest
// of what it says, so that neither depends on the order in a document.
func (d Documents) Effective(name string) (spd.Policy, error) {
	doc, ok := d.Policy(name)
	if !ok {
		return spd.Policy{}, fmt.Errorf("policy %q: %w", name, ErrReference)
	}
	out := spd.Policy{
		Name: doc.Name, Exemptions: doc.Exemptions.effective(d.breakGlass(doc)),
	}
	ike := doc.KeyExchange.Offers
	if len(ike) == 0 {
		ike = proposal.DefaultIKE()
	}
	for _, r := range doc.Rules {
		if r.Disabled {
			continue
		}
		rule, err := d.effectiveRule(r, ike)
		if err != nil {
			return spd.Policy{}, fmt.Errorf("policy %q, rule %q: %w", name, r.Name, err)
		}
		out.Rules = append(out.Rules, rule)
	}
	if r := doc.DefaultResponse; r.Active {
		out.DefaultResponse = spd.DefaultResponse{
			Active: true, Offers: effectiveOffers(r.offers(), r.PFS, ike), Auth: effectiveAuth(r.Authentication), PFS: r.PFS,
			Lifetime: effectiveLifetime(r.offers()), Idle: r.Idle,
		}
	}
	if out.DefaultResponse.Active || slices.ContainsFunc(out.Rules, func(r spd.Rule) bool { return r.Action.Action == spd.ActionNegotiate }) {
		out.KeyExchange = doc.KeyExchange
		out.KeyExchange.Offers = ike
	}
	if err := out.Validate(); err != nil {
		return spd.Policy{}, err
	}
	return out, nil
}

// breakGlass joins the ports of the policy with those of the fleet, in order, so that the same ports give the same
// bundle.
func (d Documents) breakGlass(p Policy) []uint16 {
	ports := slices.Clone(p.Exemptions.BreakGlassTCP)
	for _, s := range d.Settings {
		ports = append(ports, s.BreakGlassTCP...)
	}
	if len(ports) == 0 {
		return nil
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

func (d Documents) effectiveRule(r Rule, ike []proposal.IKE) (spd.Rule, error) {
	list, ok := d.FilterList(r.FilterList)
	if !ok {
		return spd.Rule{}, fmt.Errorf("filter list %q: %w", r.FilterList, ErrReference)
	}
	action, ok := d.FilterAction(r.FilterAction)
	if !ok {
		return spd.Rule{}, fmt.Errorf("filter action %q: %w", r.FilterAction, ErrReference)
	}
	out := spd.Rule{
		ID: r.Name, Name: r.Name, Interfaces: r.Interfaces, Tunnel: r.Tunnel.Remote, TunnelLocal: r.Tunnel.Local, Auth: r.Authentication,
		Action: spd.FilterAction{Name: action.Name, Action: action.Action, Inpass: action.Inpass, Fallback: action.Fallback, PFS: action.PFS, Associations: action.Associations},
	}
	if action.Action == spd.ActionNegotiate {
		out.Auth = effectiveAuth(r.Authentication)
		out.Action.Offers = effectiveOffers(action.offers(), action.PFS, ike)
		out.Action.Lifetime = effectiveLifetime(action.offers())
	}
	for _, dn := range r.PeerGroups {
		out.PeerGroups = append(out.PeerGroups, dn.String())
	}
	for _, f := range list.Filters {
		out.Filters = append(out.Filters, spd.Filter{
			ID: r.Name + "/" + f.identity(), Description: f.Description, Source: f.Source, Destination: f.Destination,
			Protocol: f.Protocol, SourcePort: f.SourcePort, DestinationPort: f.DestinationPort, Mirrored: f.Mirrored,
		})
	}
	return out, nil
}

// identity names the filter in its list.
func (f Filter) identity() string {
	if f.Name != "" {
		return f.Name
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %d %s %s %t",
		f.Source, f.Destination, f.Protocol, f.SourcePort, f.DestinationPort, f.Mirrored))
	return hex.EncodeToString(sum[:6])
}

// effectiveAuth defaults to a certificate of the fleet, as the machine account is the default of a Windows rule.
func effectiveAuth(auth []spd.Auth) []spd.Auth {
	if len(auth) == 0 {
		return []spd.Auth{{Method: spd.AuthCertificate}}
	}
	return auth
}

// offers are those that are written, or those that the level stands for.
func (a FilterAction) offers() []Offer { return offersOf(a.Level, a.Offers) }

func (d DefaultResponse) offers() []Offer { return offersOf(d.Level, d.Offers) }

func offersOf(level proposal.Level, written []Offer) []Offer {
	out := slices.Clone(written)
	for _, o := range level.Offers() {
		out = append(out, Offer{o, level.Life()})
	}
	return out
}

// effectiveOffers gives every offer its group. With perfect forward secrecy an offer that names none stands for one with
// each group of the key exchange, because a Child SA may be made under an IKE SA with any of them.
func effectiveOffers(offers []Offer, pfs bool, ike []proposal.IKE) []proposal.ESP {
	var plain []proposal.ESP
	for _, o := range offers {
		plain = append(plain, o.ESP)
	}
	if len(plain) == 0 {
		plain = proposal.DefaultESP()
	}
	if !pfs {
		return plain
	}
	var out []proposal.ESP
	add := func(o proposal.ESP) {
		if !slices.Contains(out, o) {
			out = append(out, o)
		}
	}
	for _, o := range plain {
		if o.Group != proposal.GroupNone {
			add(o)
			continue
		}
		for _, k := range proposal.KeyExchanges(ike) {
			o.Group, o.Additional = k.Group, k.Additional
			add(o)
		}
	}
	return out
}

// effectiveLifetime is that of the offers, which Validate holds to be one.
func effectiveLifetime(offers []Offer) spd.Lifetime {
	for _, o := range offers {
		if o.Life != (proposal.Life{}) {
			return spd.Lifetime{Time: o.Life.Time, Bytes: o.Life.Bytes()}
		}
	}
	return spd.Lifetime{}
}
