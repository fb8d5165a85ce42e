package guard

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
)

// ContainerLimits say how many of the machines below one container a change may affect. They hold beside the limits of
// the whole directory, never instead of them, and count over the same window. A change that leaves the container without
// any machine is always held.
type ContainerLimits struct {
	Container directory.DN
	// Share, Floor and Ceiling are those of Limits, of the machines below the container.
	Share          float64
	Floor, Ceiling int
}

func (c ContainerLimits) limits() Limits {
	return Limits{Share: c.Share, Floor: c.Floor, Ceiling: c.Ceiling}
}

// ValidateContainers returns an error that wraps ErrLimits when the limits make no sense or a container has two.
func ValidateContainers(all []ContainerLimits) error {
	var errs []error
	for i, c := range all {
		if c.Container.IsZero() {
			errs = append(errs, fmt.Errorf("%w: a container is needed", ErrLimits))
			continue
		}
		if err := c.limits().Validate(); err != nil {
			errs = append(errs, fmt.Errorf("container %q: %w", c.Container, err))
		}
		if slices.ContainsFunc(all[:i], func(o ContainerLimits) bool { return o.Container.Equal(c.Container) }) {
			errs = append(errs, fmt.Errorf("%w: container %q has limits twice", ErrLimits, c.Container))
		}
	}
	return errors.Join(errs...)
}

// An Excess is one container whose limits a change exceeds.
type Excess struct {
	Container directory.DN
	// Affected machines of Machines below the container, Recent others within the window; Allowed would have passed.
	Affected, Machines, Recent, Allowed int
	// Emptied says that no machine would be left below the container.
	Emptied bool
}

func (e Excess) String() string {
	if e.Emptied {
		return fmt.Sprintf("no machine would be left below %q (%d before)", e.Container, e.Machines)
	}
	return fmt.Sprintf("%d of %d machines below %q are affected%s; %d are allowed at once", e.Affected, e.Machines, e.Container, others(e.Recent), e.Allowed)
}

// others is the part of a sentence that tells of machines affected before.
func others(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", after %d others a short while ago", n)
}

// moment is when a machine was affected last, and under which name.
type moment struct {
	at time.Time
	dn directory.DN
}

// excesses lists the containers whose limits h exceeds, in the order of the configuration.
func (g *Guard) excesses(h Held, next *directory.Snapshot) []Excess {
	if len(g.containers) == 0 || g.applied == nil || h.Affected() == 0 {
		return nil
	}
	var out []Excess
	for _, c := range g.containers {
		below := func(dn directory.DN) bool { return dn.IsDescendantOf(c.Container) }
		e := Excess{Container: c.Container}
		touched := map[directory.UUID]bool{}
		for u, dn := range h.affectedNames() {
			if below(dn) {
				touched[u] = true
			}
		}
		e.Affected = len(touched)
		if e.Affected == 0 {
			continue
		}
		for m := range g.applied.Machines() {
			if below(m.DN) {
				e.Machines++
			}
		}
		for u, r := range g.recent {
			if below(r.dn) && !touched[u] {
				e.Recent++
			}
		}
		e.Allowed = c.limits().Allowed(e.Machines)
		e.Emptied = !anyBelow(next, c.Container)
		if e.Emptied || e.Affected+e.Recent > e.Allowed {
			out = append(out, e)
		}
	}
	return out
}

func anyBelow(s *directory.Snapshot, container directory.DN) bool {
	for m := range s.Machines() {
		if m.DN.IsDescendantOf(container) {
			return true
		}
	}
	return false
}

// affectedNames yields the affected machines with the names that they had.
func (h Held) affectedNames() iter.Seq2[directory.UUID, directory.DN] {
	return func(yield func(directory.UUID, directory.DN) bool) {
		for _, m := range h.Removed {
			if !yield(m.UUID, m.DN) {
				return
			}
		}
		for _, c := range h.Changed {
			if !yield(c.New.UUID, c.Old.DN) {
				return
			}
		}
		for _, r := range h.Reassigned {
			if !yield(r.Machine.UUID, r.Machine.DN) {
				return
			}
		}
	}
}

// Missing lists the containers with limits that the applied directory does not have: their limits guard nothing.
func (g *Guard) Missing() []directory.DN {
	var out []directory.DN
	for _, c := range g.containers {
		if g.applied == nil {
			continue
		}
		if _, ok := g.applied.ContainerByDN(c.Container); !ok {
			out = append(out, c.Container)
		}
	}
	return out
}
