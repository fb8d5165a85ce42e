package proposal

import "slices"

// First is how a responder chooses (RFC 7296 2.7): the first of the own offers, in the own order, that the other side
// offers as well.
func First[O any](own []O, offered func(O) bool) (O, bool) {
	for _, o := range own {
		if offered(o) {
			return o, true
		}
	}
	var none O
	return none, false
}

// ChooseIKE chooses among the offers of a responder those of an initiator.
func ChooseIKE(own, offered []IKE) (IKE, bool) {
	return First(own, func(o IKE) bool { return slices.Contains(offered, o) })
}

// ChooseESP chooses among the offers of a responder those of an initiator, both as ForRule gives them. Without withGroup,
// as in IKE_AUTH, the groups are not compared and the chosen offer has none (RFC 7296 1.2).
func ChooseESP(own, offered []ESP, withGroup bool) (ESP, bool) {
	plain := func(o ESP) ESP {
		o.ESN = false
		if !withGroup {
			o.Group, o.Additional = GroupNone, Additional{}
		}
		return o
	}
	o, ok := First(own, func(o ESP) bool {
		return slices.ContainsFunc(offered, func(p ESP) bool { return plain(p) == plain(o) })
	})
	return plain(o), ok
}

// ForRule adapts the offers of a rule to its setting of perfect forward secrecy: without it they have no group, with it
// those without a group take that of the IKE SA.
func ForRule(offers []ESP, pfs bool, ike KeyExchange) []ESP {
	out := slices.Clone(offers)
	for i := range out {
		out[i].ESN = false
		switch {
		case !pfs:
			out[i].Group, out[i].Additional = GroupNone, Additional{}
		case out[i].Group == GroupNone:
			out[i].Group, out[i].Additional = ike.Group, ike.Additional
		}
	}
	return out
}

// WithGroups are the offers with each of the key exchanges in place of their own: what a responder without perfect
// forward secrecy accepts of a peer that insists on it. Fresh keys that only the peer insists on are no weaker.
func WithGroups(offers []ESP, ike []IKE) []ESP {
	var list []ESP
	for _, o := range offers {
		for _, g := range ike {
			o.Group, o.Additional = g.Group, g.Additional
			if !slices.Contains(list, o) {
				list = append(list, o)
			}
		}
	}
	return list
}
