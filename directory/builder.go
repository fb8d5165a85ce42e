package directory

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"
)

// maxBuildErrors bounds what one failed Build reports: enough to see the pattern, not the whole tree.
const maxBuildErrors = 10

// A Builder collects the entries of one complete read. The zero Builder is not ready: use NewBuilder. It is used by one
// goroutine and once.
type Builder struct {
	base     DN
	s        Snapshot
	problems []Problem
}

// NewBuilder starts a snapshot of the tree below base. An empty base means the one entry that all others are below.
func NewBuilder(base DN) *Builder { return &Builder{base: base} }

// Add takes an entry over; its slices must not be changed afterwards. They are brought into order in place: an object that
// is added to several Builders has to be Normalised before.
func (b *Builder) Add(o Object) {
	switch e := o.(type) {
	case Container:
		b.s.containers = append(b.s.containers, e)
	case Machine:
		b.s.machines = append(b.s.machines, e)
	case Group:
		b.s.groups = append(b.s.groups, e)
	}
}

// AddProblem records something that was read and could not be used.
func (b *Builder) AddProblem(p ...Problem) { b.problems = append(b.problems, p...) }

// Len returns the number of entries so far.
func (b *Builder) Len() int { return len(b.s.containers) + len(b.s.machines) + len(b.s.groups) }

// Build checks that the entries are one tree without duplicates and returns it. The error joins at most ten
// *DuplicateError and *OrphanError. A tree without any entry is no tree: it is refused.
func (b *Builder) Build() (*Snapshot, error) {
	s := &b.s
	if len(s.containers) == 0 {
		return nil, fmt.Errorf("%w: no container was read, not even the base %q", ErrInconsistent, b.base)
	}
	b.normalise()
	s.base = b.base
	if s.base.IsZero() {
		s.base = s.containers[0].DN
	}
	if errs := b.index(); len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if errs := b.arrange(); len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	s.digestContent()
	return s, nil
}

// normalise brings the entries and their lists into the one order that they have whatever the reading order was.
func (b *Builder) normalise() {
	s := &b.s
	slices.SortFunc(s.containers, compareContainers)
	for i := range s.machines {
		m := &s.machines[i]
		m.DNSName = strings.TrimSuffix(fold(m.DNSName), ".")
		m.normalise()
	}
	b.sortMachines()
	for i := range s.groups {
		s.groups[i].normalise()
	}
	slices.SortFunc(s.groups, func(a, b Group) int { return a.DN.Compare(b.DN) })
	slices.SortFunc(b.problems, func(x, y Problem) int {
		return cmp.Or(cmp.Compare(x.DN, y.DN), cmp.Compare(x.Attribute, y.Attribute), cmp.Compare(x.Reason, y.Reason))
	})
	s.problems = b.problems
}

// sortMachines orders by folded name, which is computed once for each.
func (b *Builder) sortMachines() {
	type keyed struct {
		key   string
		index int32
	}
	order := make([]keyed, len(b.s.machines))
	for i, m := range b.s.machines {
		order[i] = keyed{fold(m.Name), int32(i)}
	}
	slices.SortFunc(order, func(x, y keyed) int {
		return cmp.Or(strings.Compare(x.key, y.key), b.s.machines[x.index].DN.Compare(b.s.machines[y.index].DN))
	})
	sorted := make([]Machine, len(order))
	for i, k := range order {
		sorted[i] = b.s.machines[k.index]
	}
	b.s.machines = sorted
}

// index fills the look-up tables and finds duplicates.
func (b *Builder) index() []error {
	s := &b.s
	n := b.Len()
	s.byUUID = make(map[UUID]ref, n)
	s.byDN = make(map[string]ref, n)
	s.byName = make(map[string]int32, len(s.machines))
	s.byDNSName = make(map[string]int32, len(s.machines))
	s.byRID = map[uint32]int32{}
	s.memberOf = map[string][]int32{}
	var errs []error
	duplicate := func(what, value string, a, b DN) {
		if len(errs) < maxBuildErrors {
			errs = append(errs, &DuplicateError{What: what, Value: value, A: a, B: b})
		}
	}
	add := func(u UUID, dn DN, r ref) {
		if u.IsZero() && len(errs) < maxBuildErrors {
			errs = append(errs, fmt.Errorf("%w: entry %q has no UUID", ErrInconsistent, dn))
		}
		if other, ok := s.object(s.byUUID[u]); ok {
			_, otherDN := other.Identity()
			duplicate("UUID", u.String(), otherDN, dn)
		}
		if other, ok := s.object(s.byDN[dn.key]); ok {
			_, otherDN := other.Identity()
			duplicate("distinguished name", dn.String(), otherDN, dn)
		}
		s.byUUID[u] = r
		s.byDN[dn.key] = r
	}
	for i, c := range s.containers {
		add(c.UUID, c.DN, ref{refContainer, int32(i)})
	}
	for i, m := range s.machines {
		add(m.UUID, m.DN, ref{refMachine, int32(i)})
		if j, ok := s.byName[fold(m.Name)]; ok {
			duplicate("machine name", m.Name, s.machines[j].DN, m.DN)
		}
		s.byName[fold(m.Name)] = int32(i)
		if m.DNSName == "" {
			continue
		}
		// The DNS name stands in the machine's certificate: two bearers would be one identity.
		if j, ok := s.byDNSName[m.DNSName]; ok {
			duplicate("DNS name", m.DNSName, s.machines[j].DN, m.DN)
		}
		s.byDNSName[m.DNSName] = int32(i)
	}
	for i, g := range s.groups {
		add(g.UUID, g.DN, ref{refGroup, int32(i)})
		if g.RID != 0 {
			if j, ok := s.byRID[g.RID]; ok {
				duplicate("group RID", fmt.Sprint(g.RID), s.groups[j].DN, g.DN)
			}
			s.byRID[g.RID] = int32(i)
		}
		for _, m := range g.Members {
			s.memberOf[m.key] = append(s.memberOf[m.key], int32(i))
		}
	}
	return errs
}

// arrange puts every entry into its container and finds orphans.
func (b *Builder) arrange() []error {
	s := &b.s
	var errs []error
	parent := func(dn DN) int32 {
		if dn.Equal(s.base) {
			return -1
		}
		p := dn.Parent()
		r := s.byDN[p.key]
		if r.kind != refContainer || !dn.IsDescendantOf(s.base) {
			if len(errs) < maxBuildErrors {
				errs = append(errs, &OrphanError{DN: dn, Parent: p, Base: s.base})
			}
			return -1
		}
		return r.index
	}
	if s.byDN[s.base.key].kind != refContainer {
		errs = append(errs, fmt.Errorf("%w: the base %q is not a container that was read", ErrInconsistent, s.base))
		return errs
	}
	s.parents = make([]int32, len(s.containers))
	s.scopes = make([]scope, len(s.containers))
	for i, c := range s.containers {
		s.parents[i] = parent(c.DN)
		s.scopes[i] = extendScope(s, s.parents[i], c)
	}
	s.children, s.childIndex = spans(len(s.containers), s.parents)
	s.machineIn = make([]int32, len(s.machines))
	for i, m := range s.machines {
		s.machineIn[i] = parent(m.DN)
	}
	s.members, s.memberIdx = spans(len(s.containers), s.machineIn)
	for _, g := range s.groups {
		parent(g.DN)
	}
	return errs
}

// spans groups the items 0..len(in)-1 by the container that each is in, keeping their order.
func spans(containers int, in []int32) (span [][2]int32, items []int32) {
	span = make([][2]int32, containers)
	for _, c := range in {
		if c >= 0 {
			span[c][1]++
		}
	}
	at := int32(0)
	for i := range span {
		n := span[i][1]
		span[i] = [2]int32{at, at}
		at += n
	}
	items = make([]int32, at)
	for i, c := range in {
		if c >= 0 {
			items[span[c][1]] = int32(i)
			span[c][1]++
		}
	}
	return span, items
}

// A scope names the chain of containers that can link policy to what is below them, by identity and by name: links may
// be kept by either, so that a change of one is a change.
type scope [16]byte

func extendScope(s *Snapshot, parent int32, c Container) scope {
	var up scope
	if parent >= 0 {
		up = s.scopes[parent]
	}
	if !c.LinksPolicy() {
		return up
	}
	h := sha256.New()
	h.Write(up[:])
	h.Write(c.UUID[:])
	h.Write([]byte(c.DN.key))
	return scope(h.Sum(nil)[:16])
}

// digestContent hashes every entry in the canonical order, each field with its length before it.
func (s *Snapshot) digestContent() {
	groups := sha256.New()
	w := digestWriter{h: groups}
	for _, g := range s.groups {
		w.entry(g.UUID, g.DN)
		w.text(g.Name)
		w.number(uint64(g.RID))
		w.number(uint64(len(g.Members)))
		for _, m := range g.Members {
			w.text(m.key)
		}
		w.flush()
	}
	groups.Sum(s.groupsDigest[:0])

	all := sha256.New()
	w = digestWriter{h: all}
	w.text(s.base.text)
	w.number(uint64(len(s.containers)))
	for _, c := range s.containers {
		w.entry(c.UUID, c.DN)
		w.number(uint64(c.Kind))
		w.flush()
	}
	w.number(uint64(len(s.machines)))
	for _, m := range s.machines {
		w.entry(m.UUID, m.DN)
		w.text(m.Name)
		w.text(m.DNSName)
		w.number(uint64(len(m.Addresses)))
		for _, a := range m.Addresses {
			w.text(a.String())
		}
		if m.Disabled {
			w.number(1)
		} else {
			w.number(0)
		}
		w.number(uint64(m.PrimaryGroup))
		w.flush()
	}
	w.flush()
	all.Write(s.groupsDigest[:])
	all.Sum(s.digest[:0])
}

// digestWriter gathers the bytes of one entry before it hashes them.
type digestWriter struct {
	h   hash.Hash
	buf []byte
}

func (w *digestWriter) entry(u UUID, dn DN) {
	w.buf = append(w.buf, u[:]...)
	w.text(dn.text)
}

func (w *digestWriter) text(s string) {
	w.number(uint64(len(s)))
	w.buf = append(w.buf, s...)
}

func (w *digestWriter) number(n uint64) { w.buf = binary.AppendUvarint(w.buf, n) }

func (w *digestWriter) flush() {
	w.h.Write(w.buf)
	w.buf = w.buf[:0]
}
