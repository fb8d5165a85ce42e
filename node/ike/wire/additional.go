package wire

import "github.com/bailiwick-net/bailiwick/policies/proposal"

// The additional key exchanges of a proposal: transform types 6 to 12 (RFC 9370 2.2.1). A type that is absent, or of
// which NONE is offered, may stay unused; every other one has to be chosen.

// additional reports whether the type is one of ADDKE1 to ADDKE7.
func (t TransformType) additional() bool {
	return t >= TransformAdditional1 && t < TransformAdditional1+TransformType(len(proposal.Additional{}))
}

func additionalTransforms(a proposal.Additional) []Transform {
	var list []Transform
	for i, g := range a {
		if g != proposal.GroupNone {
			list = append(list, Transform{Type: TransformAdditional1 + TransformType(i), ID: uint16(g)})
		}
	}
	return list
}

// hasAdditional reports whether the proposal offers exactly these methods, each in its place.
func (p Proposal) hasAdditional(a proposal.Additional) bool {
	for i, g := range a {
		if !p.hasOrNone(TransformAdditional1+TransformType(i), uint16(g)) {
			return false
		}
	}
	return true
}

// answerAdditional repeats the chosen methods, and NONE where it was offered (RFC 7296 2.7).
func answerAdditional(a proposal.Additional, offered Proposal) []Transform {
	var list []Transform
	for i, g := range a {
		t := TransformAdditional1 + TransformType(i)
		if g != proposal.GroupNone || offered.hasType(t) {
			list = append(list, Transform{Type: t, ID: uint16(g)})
		}
	}
	return list
}
