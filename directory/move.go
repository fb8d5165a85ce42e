package directory

import (
	"errors"
	"fmt"
	"slices"
)

// ErrMove is wrapped when an entry cannot be moved as it was asked.
var ErrMove = errors.New("the entry cannot be moved")

// Replant returns the name with everything from old upwards replaced; d itself when it is neither old nor below it.
func (d DN) Replant(old, next DN) (DN, error) {
	switch {
	case d.Equal(old):
		return next, nil
	case !d.IsDescendantOf(old):
		return d, nil
	}
	up, err := d.Parent().Replant(old, next)
	if err != nil {
		return DN{}, err
	}
	return d.under(up)
}

// under returns the leftmost level of d below another name.
func (d DN) under(parent DN) (DN, error) {
	out := DN{text: d.text, key: d.key}
	if i := separator(d.text); i >= 0 {
		out.text = d.text[:i]
	}
	if i := separator(d.key); i >= 0 {
		out.key = d.key[:i]
	}
	if parent.IsZero() {
		return out, nil
	}
	out.text += "," + parent.text
	out.key += "," + parent.key
	if len(out.text) > MaxDNLength {
		return DN{}, fmt.Errorf("%w: the name of %q would be longer than %d bytes", ErrMove, shorten(d.text), MaxDNLength)
	}
	return out, nil
}

// Move returns the directory as it would be if the entry named dn, and all that is below it, were in the container named
// to. The entries keep their identity, and groups follow them: a member that moves stays a member, as in directories that
// keep references intact. Nothing is written anywhere.
//
// The error wraps ErrMove: for an entry or a container that is not there, for the base, and for a container that would
// come to be in itself; or ErrInconsistent when the name is taken there.
func (s *Snapshot) Move(dn, to DN) (*Snapshot, error) {
	entry, ok := s.ObjectByDN(dn)
	if !ok {
		return nil, fmt.Errorf("%w: there is no entry %q in the directory", ErrMove, dn)
	}
	_, dn = entry.Identity() // as the directory spells it
	target, ok := s.ContainerByDN(to)
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: there is no container %q in the directory", ErrMove, to)
	case dn.Equal(s.base):
		return nil, fmt.Errorf("%w: %q is the base of the directory", ErrMove, dn)
	case to.Equal(dn) || to.IsDescendantOf(dn):
		return nil, fmt.Errorf("%w: %q is in %q itself", ErrMove, to, dn)
	case dn.Parent().Equal(to):
		return nil, fmt.Errorf("%w: %q is in %q already", ErrMove, dn, to)
	}
	next, err := dn.under(target.DN)
	if err != nil {
		return nil, err
	}
	edit := s.Edit()
	if err := edit.replant(entry, dn, next); err != nil {
		return nil, err
	}
	for below := range s.Below(dn) {
		if err := edit.replant(below, dn, next); err != nil {
			return nil, err
		}
	}
	for g := range s.groups.byDN.all() {
		moved := g.Group
		if o, ok := edit.entries[g.UUID].(Group); ok {
			moved = o
		}
		if !slices.ContainsFunc(g.Members, func(m DN) bool { return m.Equal(dn) || m.IsDescendantOf(dn) }) {
			continue
		}
		members := make([]DN, len(g.Members))
		for i, m := range g.Members {
			if members[i], err = m.Replant(dn, next); err != nil {
				return nil, err
			}
		}
		moved.Members = members
		edit.Put(moved)
	}
	return edit.Build()
}

// replant puts an entry where it is when what is named old is named next.
func (e *Edit) replant(o Object, old, next DN) error {
	_, dn := o.Identity()
	dn, err := dn.Replant(old, next)
	if err != nil {
		return err
	}
	switch o := o.(type) {
	case Container:
		o.DN = dn
		e.Put(o)
	case Machine:
		o.DN = dn
		e.Put(o)
	case Group:
		o.DN = dn
		e.Put(o)
	}
	return nil
}
