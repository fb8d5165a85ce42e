package wire

import (
	"slices"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// combination is one offer, of an IKE SA or of a Child SA (which has no PRF).
type combination struct {
	encryption proposal.Encryption
	bits       uint16
	integrity  proposal.Integrity
	prf        proposal.PRF
	group      proposal.Group
	additional proposal.Additional
}

func (c combination) ike() proposal.IKE {
	return proposal.IKE{Encryption: c.encryption, KeyBits: c.bits, Integrity: c.integrity, PRF: c.prf, Group: c.group, Additional: c.additional}
}

func (c combination) esp() proposal.ESP {
	return proposal.ESP{Encryption: c.encryption, KeyBits: c.bits, Integrity: c.integrity, Group: c.group, Additional: c.additional}
}

type cipherKey struct {
	encryption proposal.Encryption
	bits       uint16
}

// product is what one proposal expresses: any cipher with any integrity with any PRF with any group. The additional key
// exchanges are the same in all of it, so that a responder cannot take some of them only.
type product struct {
	additional proposal.Additional
	ciphers    []cipherKey
	integrity  []proposal.Integrity
	prfs       []proposal.PRF
	groups     []proposal.Group
}

func mergeIKE(own []proposal.IKE) []product {
	all := make([]combination, len(own))
	for i, o := range own {
		all[i] = combination{o.Encryption, o.KeyBits, o.Integrity, o.PRF, o.Group, o.Additional}
	}
	return merge(all)
}

func mergeESP(own []proposal.ESP, withGroup bool) []product {
	all := make([]combination, len(own))
	for i, o := range own {
		all[i] = combination{o.Encryption, o.KeyBits, o.Integrity, 0, o.Group, o.Additional}
		if !withGroup {
			all[i].group, all[i].additional = proposal.GroupNone, proposal.Additional{}
		}
	}
	return merge(all)
}

// merge groups neighbouring combinations into products that contain nothing but members of all. The responder chooses
// freely within a product, therefore nothing may be in it that was not offered on its own.
func merge(all []combination) []product {
	var products []product
	for _, c := range all {
		if slices.ContainsFunc(products, func(p product) bool { return p.contains(c) }) {
			continue
		}
		if n := len(products); n > 0 {
			if wider, ok := products[n-1].with(c, all); ok {
				products[n-1] = wider
				continue
			}
		}
		products = append(products, product{}.add(c))
	}
	return products
}

// with returns the product that also expresses c, unless that would express something outside all, or mix what one
// proposal cannot hold: AEAD and plain ciphers (RFC 7296 3.3), a group and no group.
func (p product) with(c combination, all []combination) (product, bool) {
	if p.additional != c.additional || p.ciphers[0].encryption.AEAD() != c.encryption.AEAD() ||
		(p.groups[0] == proposal.GroupNone) != (c.group == proposal.GroupNone) {
		return p, false
	}
	wider := p.add(c)
	if len(wider.ciphers)+len(wider.integrity)+len(wider.prfs)+len(wider.groups) > LimitTransforms-2-len(p.additional) {
		return p, false
	}
	for o := range wider.each {
		if !slices.Contains(all, o) {
			return p, false
		}
	}
	return wider, true
}

func (p product) add(c combination) product {
	return product{
		additional: c.additional,
		ciphers:    addOnce(p.ciphers, cipherKey{c.encryption, c.bits}),
		integrity:  addOnce(p.integrity, c.integrity),
		prfs:       addOnce(p.prfs, c.prf),
		groups:     addOnce(p.groups, c.group),
	}
}

func addOnce[T comparable](list []T, v T) []T {
	if slices.Contains(list, v) {
		return list
	}
	return append(slices.Clip(list), v)
}

func (p product) contains(c combination) bool {
	return slices.Contains(p.ciphers, cipherKey{c.encryption, c.bits}) && slices.Contains(p.integrity, c.integrity) &&
		slices.Contains(p.prfs, c.prf) && slices.Contains(p.groups, c.group) && p.additional == c.additional
}

// each yields every combination of the product.
func (p product) each(yield func(combination) bool) {
	for _, k := range p.ciphers {
		for _, i := range p.integrity {
			for _, f := range p.prfs {
				for _, g := range p.groups {
					if !yield(combination{k.encryption, k.bits, i, f, g, p.additional}) {
						return
					}
				}
			}
		}
	}
}

// transforms lists the product; NONE is written by leaving the type out.
func (p product) transforms(withPRF bool) []Transform {
	var list []Transform
	for _, k := range p.ciphers {
		list = append(list, Transform{Type: TransformEncryption, ID: uint16(k.encryption), KeyBits: k.bits})
	}
	for _, i := range p.integrity {
		if i != proposal.IntegNone {
			list = append(list, Transform{Type: TransformIntegrity, ID: uint16(i)})
		}
	}
	if withPRF {
		for _, f := range p.prfs {
			list = append(list, Transform{Type: TransformPRF, ID: uint16(f)})
		}
	}
	for _, g := range p.groups {
		if g != proposal.GroupNone {
			list = append(list, Transform{Type: TransformGroup, ID: uint16(g)})
		}
	}
	return append(list, additionalTransforms(p.additional)...)
}
