package resolver

import (
	"context"
	"net/netip"
	"sync"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies/resolve"
)

// locations are the addresses from which nodes are connected, or were last. The zero value is of no node.
type locations struct {
	sync.RWMutex
	byMachine map[directory.UUID]netip.Addr
}

func (l *locations) of(machine directory.UUID) (netip.Addr, bool) {
	l.RLock()
	defer l.RUnlock()
	a, ok := l.byMachine[machine]
	return a, ok
}

// set returns the address before.
func (l *locations) set(machine directory.UUID, a netip.Addr) (before netip.Addr) {
	l.Lock()
	defer l.Unlock()
	if l.byMachine == nil {
		l.byMachine = map[directory.UUID]netip.Addr{}
	}
	before = l.byMachine[machine]
	l.byMachine[machine] = a
	return before
}

// putBack takes an address back that nobody could be told of, unless there is another one since.
func (l *locations) putBack(machine directory.UUID, a, before netip.Addr) {
	l.Lock()
	defer l.Unlock()
	switch {
	case l.byMachine[machine] != a:
	case before.IsValid():
		l.byMachine[machine] = before
	default:
		delete(l.byMachine, machine)
	}
}

// Locations returns where the nodes of machines are, as it is when it is asked.
func (r *Resolver) Locations() resolve.Locations { return r.locations.of }

// Locate tells from which address a node is connected. Where that brings its machine to another site, it waits until the
// assignments say what applies there, so that no node is told first what holds elsewhere.
func (r *Resolver) Locate(ctx context.Context, machine directory.UUID, address netip.Addr) error {
	address = address.Unmap().WithZone("")
	before := r.locations.set(machine, address)
	t := r.table.Load()
	if before == address || t == nil || before.IsValid() && t.plan.SameSite(before, address) || !t.plan.HasSites() {
		return nil
	}
	done := make(chan struct{})
	select {
	case r.relocate <- done:
	case <-r.ended:
		return ErrNotReady
	case <-ctx.Done():
		// The next attempt from there must not take the machine for one whose place counts already.
		r.locations.putBack(machine, address, before)
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-r.ended:
		return ErrNotReady
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Siting tells at which site a machine is, and why.
func (t *Table) Siting(machine directory.Machine) resolve.Siting { return t.plan.Siting(machine) }
