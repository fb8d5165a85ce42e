package directory

import (
	"cmp"
	"net/netip"
	"slices"
)

// Rename returns the object under another name. A container that is named otherwise may be of another kind, and a group
// without name of its own is called after it.
func Rename(o Object, dn DN) Object {
	switch e := o.(type) {
	case Container:
		e.DN, e.Kind = dn, KindOf(dn)
		return e
	case Machine:
		e.DN = dn
		return e
	case Group:
		e.DN = dn
		return e
	}
	return o
}

// Normalise brings the lists of an object into the order that they have in a Snapshot, in place, so that it can be added
// to several Builders.
func Normalise(o Object) Object {
	switch e := o.(type) {
	case Machine:
		e.normalise()
		return e
	case Group:
		e.normalise()
		return e
	}
	return o
}

func (m *Machine) normalise() {
	if !slices.IsSortedFunc(m.Addresses, netip.Addr.Compare) {
		slices.SortFunc(m.Addresses, netip.Addr.Compare)
	}
	m.Addresses = slices.Compact(m.Addresses)
}

func (g *Group) normalise() {
	order := func(a, b DN) int { return cmp.Or(a.Compare(b), cmp.Compare(a.text, b.text)) }
	if !slices.IsSortedFunc(g.Members, order) {
		slices.SortFunc(g.Members, order)
	}
	g.Members = slices.CompactFunc(g.Members, DN.Equal)
}
