package directory

import (
	"errors"
	"fmt"
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
	b := NewBuilder(s.base)
	for _, c := range s.containers {
		if c.DN, err = c.DN.Replant(dn, next); err != nil {
			return nil, err
		}
		b.Add(c)
	}
	for _, m := range s.machines {
		if m.DN, err = m.DN.Replant(dn, next); err != nil {
			return nil, err
		}
		b.Add(m)
	}
	for _, g := range s.groups {
		if g.DN, err = g.DN.Replant(dn, next); err != nil {
			return nil, err
		}
		members := make([]DN, len(g.Members))
		for i, m := range g.Members {
			if members[i], err = m.Replant(dn, next); err != nil {
				return nil, err
			}
		}
		g.Members = members
		b.Add(g)
	}
	b.AddProblem(s.problems...)
	return b.Build()
}
