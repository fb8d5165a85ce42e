package analyze

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/resolve"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// offers reports offers that an administrator has written and that no two policies of the fleet would agree on, whichever
// of the two begins: once for each list. Peers that are not of the fleet may still choose them. Lists that stand for a level, or
// are those that everybody starts with, are for peers of all kinds and say nothing of what somebody meant.
func (v *verifier) offers() {
	type list struct {
		doc  policies.Document
		own  []proposal.ESP
		what string
	}
	var children []list
	var mains []policies.Policy
	for _, a := range v.Documents.FilterActions {
		if a.Action == spd.ActionNegotiate {
			children = append(children, list{a, plainOffers(a.Offers, a.Level), "negotiations"})
		}
	}
	for _, p := range v.Documents.Policies {
		if d := p.DefaultResponse; d.Active {
			children = append(children, list{p, plainOffers(d.Offers, d.Level), "the default response"})
		}
		mains = append(mains, p)
	}
	for _, l := range children {
		if standardESP(l.own) {
			continue
		}
		var others [][]proposal.ESP
		for _, o := range children {
			others = append(others, o.own)
		}
		neverChosen(v, l.doc, l.what, l.own, others)
	}
	standard := [][]proposal.IKE{nil, proposal.DefaultIKE()}
	for _, p := range predefined.Documents().Policies {
		standard = append(standard, p.KeyExchange.Offers)
	}
	for _, p := range mains {
		if slices.ContainsFunc(standard, func(list []proposal.IKE) bool { return slices.Equal(list, p.KeyExchange.Offers) }) {
			continue
		}
		var others [][]proposal.IKE
		for _, o := range mains {
			others = append(others, ikeOffers(o))
		}
		neverChosen(v, p, "IKE SAs", p.KeyExchange.Offers, others)
	}
}

func standardESP(own []proposal.ESP) bool {
	return slices.Equal(own, proposal.DefaultESP()) || slices.ContainsFunc([]proposal.Level{proposal.LevelLow, proposal.LevelMedium, proposal.LevelHigh},
		func(l proposal.Level) bool { return slices.Equal(own, l.Offers()) })
}

func ikeOffers(p policies.Policy) []proposal.IKE {
	if len(p.KeyExchange.Offers) == 0 {
		return proposal.DefaultIKE()
	}
	return p.KeyExchange.Offers
}

func plainOffers(offers []policies.Offer, level proposal.Level) []proposal.ESP {
	var out []proposal.ESP
	for _, o := range offers {
		out = append(out, o.ESP)
	}
	switch {
	case len(out) > 0:
		return out
	case level != 0:
		return level.Offers()
	}
	return proposal.DefaultESP()
}

// neverChosen reports the offers of a list that are the choice of no negotiation with the owner of any list.
func neverChosen[O interface {
	comparable
	fmt.Stringer
}](v *verifier, doc policies.Document, what string, own []O, lists [][]O) {
	chosen := map[O]bool{}
	for _, other := range lists {
		for _, pair := range [][2][]O{{own, other}, {other, own}} {
			if o, ok := proposal.First(pair[0], func(o O) bool { return slices.Contains(pair[1], o) }); ok {
				chosen[o] = true
			}
		}
	}
	var never []string
	for _, o := range own {
		if text := o.String(); !chosen[o] && !slices.Contains(never, text) {
			never = append(never, text)
		}
	}
	if len(never) == 0 {
		return
	}
	hint, verb := "Remove it unless peers outside of the fleet need it, or put it before the others.", "is"
	if len(never) > 1 {
		hint, verb = "Remove them unless peers outside of the fleet need them, or put them before the others.", "are"
	}
	v.find(policies.Info, FindingOffer, doc, doc.Metadata().At, hint,
		"%s, offered for %s, %s never chosen between machines of the fleet: what stands before always is", strings.Join(never, ", "), what, verb)
}

// secrets reports preshared keys that many machines have. Without a directory it cannot count them.
func (v *verifier) secrets() {
	if v.Directory == nil {
		return
	}
	machines := resolve.Prepare(v.Documents).At(v.Locations).All(v.Directory).Policies()
	type use struct {
		doc   policies.Policy
		at    policies.Position
		count int
		named []string
	}
	uses, order := map[string]*use{}, []string(nil)
	for _, p := range v.Documents.Policies {
		counted := map[string]bool{}
		note := func(at policies.Position, list []spd.Auth) {
			for _, a := range list {
				if a.Method != spd.AuthPSK || counted[a.Secret] || machines[p.Name] == 0 {
					continue
				}
				counted[a.Secret] = true
				u, ok := uses[a.Secret]
				if !ok {
					u = &use{doc: p, at: at}
					uses[a.Secret], order = u, append(order, a.Secret)
				}
				u.count += machines[p.Name]
				u.named = append(u.named, fmt.Sprintf("%q", p.Name))
			}
		}
		for _, r := range p.Rules {
			if !r.Disabled {
				note(r.At, r.Authentication)
			}
		}
		if p.DefaultResponse.Active {
			note(p.At, p.DefaultResponse.Authentication)
		}
	}
	for _, name := range order {
		if u := uses[name]; u.count > sharedWidely {
			v.find(policies.Warning, FindingShared, u.doc, u.at, "Use certificates, or a key for each pair of machines.",
				"preshared key %q is shared by %d machines (policy %s): each of them can claim to be any other", name, u.count, strings.Join(u.named, ", "))
		}
	}
}

// authorities reports CAs that are believed and about to end, and CAs that rules name and nobody believes.
func (v *verifier) authorities() {
	if len(v.Authorities) == 0 {
		return
	}
	report := func(d policies.Document, at policies.Position, a Authority) {
		left, severity := a.NotAfter.Sub(v.Now), policies.Info
		switch {
		case v.Now.IsZero() || a.NotAfter.IsZero() || left > authoritySoon:
			return
		case left <= 0:
			severity = policies.Error
		case left <= authorityShort:
			severity = policies.Warning
		}
		when := fmt.Sprintf("expires in %d days", int(left.Hours()/24))
		if left <= 0 {
			when = "has expired"
		}
		v.find(severity, FindingAuthority, d, at, "Renew the CA, and let every machine have the new one before.",
			"CA %q, which peers must be of, %s, on %s", a.Subject, when, a.NotAfter.UTC().Format("2006-01-02"))
	}
	var names []string
	for _, a := range v.Authorities {
		names = append(names, a.Subject)
	}
	for _, p := range v.Documents.Policies {
		look := func(at policies.Position, what string, list []spd.Auth) {
			for _, e := range list {
				if e.Method != spd.AuthCertificate {
					continue
				}
				if e.CA != "" && !e.AcceptsIssuer(names) {
					v.find(policies.Warning, FindingAuthority, p, at, "Add the CA to the trust bundle, or correct its name.",
						"%s wants peers of CA %q, which is not among those that machines believe: nobody can authenticate by it", what, e.CA)
				}
				for _, a := range v.Authorities {
					if e.AcceptsIssuer([]string{a.Subject}) {
						report(p, at, a)
					}
				}
			}
		}
		for _, r := range p.Rules {
			if action, ok := v.Documents.FilterAction(r.FilterAction); ok && action.Action == spd.ActionNegotiate && !r.Disabled {
				list := r.Authentication
				if len(list) == 0 {
					list = []spd.Auth{{Method: spd.AuthCertificate}}
				}
				look(r.At, fmt.Sprintf("rule %q", r.Name), list)
			}
		}
	}
}

// unused reports documents that nothing uses.
func (v *verifier) unused() {
	lists, actions, linked := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, p := range v.Documents.Policies {
		for _, r := range p.Rules {
			lists[r.FilterList], actions[r.FilterAction] = true, true
		}
	}
	for _, l := range v.Documents.Links {
		linked[l.Policy] = linked[l.Policy] || !l.Disabled
	}
	unused := func(d policies.Document, used map[string]bool, by string) {
		if !used[d.Key()] {
			v.find(policies.Info, FindingUnused, d, d.Metadata().At, "", "is used by no %s", by)
		}
	}
	for _, l := range v.Documents.FilterLists {
		unused(l, lists, "rule")
	}
	for _, a := range v.Documents.FilterActions {
		unused(a, actions, "rule")
	}
	for _, p := range v.Documents.Policies {
		unused(p, linked, "link that is not disabled")
	}
}
