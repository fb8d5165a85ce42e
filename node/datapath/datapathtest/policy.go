package datapathtest

import (
	"net/netip"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// The rule that most cases use.
const ruleID = "rule"

var (
	me          = spd.Address{Kind: spd.AddressMe}
	anyone      = spd.Address{Kind: spd.AddressAny}
	offers      = []proposal.ESP{{Encryption: proposal.EncrAESGCM16, KeyBits: 128}}
	blockAction = spd.FilterAction{Action: spd.ActionBlock}
	methods     = []spd.Auth{{Method: spd.AuthPSK, Secret: "test"}}
)

func prefix(p netip.Prefix) spd.Address {
	return spd.Address{Kind: spd.AddressPrefix, Prefix: p.Masked()}
}

// negotiate is the action of a rule that wants security.
func negotiate(change ...func(*spd.FilterAction)) spd.FilterAction {
	a := spd.FilterAction{Name: "test", Action: spd.ActionNegotiate, Offers: offers}
	for _, c := range change {
		c(&a)
	}
	return a
}

func inpass(a *spd.FilterAction) { a.Inpass = true }

func soft(a *spd.FilterAction) { a.Fallback = spd.Fallback{Mode: spd.FallbackWait} }

func discover(a *spd.FilterAction) { a.Fallback = spd.Fallback{Mode: spd.FallbackDiscover} }

// rule joins filters with an action. All filters are mirrored.
func rule(id string, action spd.FilterAction, filters ...spd.Filter) spd.Rule {
	r := spd.Rule{ID: id, Name: id, Action: action}
	if action.Action == spd.ActionNegotiate {
		r.Auth = methods
	}
	for i, f := range filters {
		f.ID = id + "." + string(rune('a'+i))
		f.Mirrored = true
		r.Filters = append(r.Filters, f)
	}
	return r
}

// everything is the filter of all traffic of the machine.
func everything() spd.Filter { return spd.Filter{Source: me, Destination: anyone} }

func port(protocol uint8, number uint16) spd.Filter {
	return spd.Filter{Source: me, Destination: anyone, Protocol: protocol, DestinationPort: spd.PortRange{From: number, To: number}}
}

func localPort(protocol uint8, number uint16) spd.Filter {
	return spd.Filter{Source: anyone, Destination: me, Protocol: protocol, DestinationPort: spd.PortRange{From: number, To: number}}
}

func policy(rules ...spd.Rule) spd.Policy {
	return spd.Policy{Name: "test", Rules: rules, KeyExchange: spd.KeyExchange{Offers: []proposal.IKE{{
		Encryption: proposal.EncrAESGCM16, KeyBits: 128, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupX25519,
	}}}}
}

// respondOnly is a policy with nothing but the default response.
func respondOnly() spd.Policy {
	p := policy()
	p.DefaultResponse = spd.DefaultResponse{Active: true, Offers: offers, Auth: methods}
	return p
}

// requireAll wants everything negotiated.
func requireAll(change ...func(*spd.FilterAction)) spd.Policy {
	return policy(rule(ruleID, negotiate(change...), everything()))
}
