package engine

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

// flows are the flows that wait for an association, found by everything that a step looks for.
type flows struct {
	byKey   map[flowKey]*flow
	byOwner map[wire.SPI]map[*flow]struct{} // not of those that no SA is responsible for
	byPeer  map[netip.Addr]map[*flow]struct{}
	order   chain[*flow]
	due     agenda[*flow]
	made    uint64
}

func newFlows() flows {
	return flows{
		byKey: make(map[flowKey]*flow), byOwner: make(map[wire.SPI]map[*flow]struct{}),
		byPeer: make(map[netip.Addr]map[*flow]struct{}),
	}
}

func (f *flows) add(w *flow) {
	f.made++
	w.link.of, w.due.of, w.due.seq = w, w, f.made
	f.byKey[w.key] = w
	f.order.add(&w.link)
	put(f.byPeer, w.flow.Remote, w)
	f.schedule(w)
}

func (f *flows) remove(w *flow) {
	if !w.link.in {
		return
	}
	delete(f.byKey, w.key)
	f.order.remove(&w.link)
	take(f.byPeer, w.flow.Remote, w)
	if w.owner != 0 {
		take(f.byOwner, w.owner, w)
	}
	f.due.set(&w.due, time.Time{})
}

// own makes an SA responsible for a flow; 0 is nobody.
func (f *flows) own(w *flow, owner wire.SPI) {
	if !w.link.in || w.owner == owner {
		return
	}
	if w.owner != 0 {
		take(f.byOwner, w.owner, w)
	}
	if w.owner = owner; owner != 0 {
		put(f.byOwner, owner, w)
	}
}

// startAt sets when the negotiation for a flow begins; zero: it has begun.
func (f *flows) startAt(w *flow, at time.Time) {
	w.start = at
	f.schedule(w)
}

// clearAt sets when silence grants clear traffic to a flow; zero: never.
func (f *flows) clearAt(w *flow, at time.Time) {
	w.fallbackAt = at
	f.schedule(w)
}

func (f *flows) schedule(w *flow) {
	at := w.fallbackAt
	if !w.start.IsZero() && (at.IsZero() || w.start.Before(at)) {
		at = w.start
	}
	if w.link.in {
		f.due.set(&w.due, at)
	}
}

// owned are the flows that an SA is responsible for, in the order of their making.
func (f *flows) owned(owner wire.SPI) []*flow { return inOrder(f.byOwner[owner]) }

// to are the flows to a peer, in the order of their making.
func (f *flows) to(peer netip.Addr) []*flow { return inOrder(f.byPeer[peer]) }

func inOrder(set map[*flow]struct{}) []*flow {
	if len(set) <= 1 { // nearly always
		for w := range set {
			return []*flow{w}
		}
		return nil
	}
	return slices.SortedFunc(maps.Keys(set), func(a, b *flow) int { return cmp.Compare(a.due.seq, b.due.seq) })
}

func put[K comparable](m map[K]map[*flow]struct{}, key K, w *flow) {
	set, ok := m[key]
	if !ok {
		set = make(map[*flow]struct{})
		m[key] = set
	}
	set[w] = struct{}{}
}

func take[K comparable](m map[K]map[*flow]struct{}, key K, w *flow) {
	delete(m[key], w)
	if len(m[key]) == 0 {
		delete(m, key)
	}
}

// checkFlows returns what is wrong with the tables of the flows.
func (e *Engine) checkFlows() error {
	f := &e.flows
	owned, owners, to, due := 0, 0, 0, 0
	for _, set := range f.byOwner {
		owned += len(set)
	}
	for _, set := range f.byPeer {
		to += len(set)
	}
	for _, w := range f.order.all() {
		_, mine := f.byOwner[w.owner][w]
		if w.owner != 0 {
			owners++
		}
		_, his := f.byPeer[w.flow.Remote][w]
		want := w.fallbackAt
		if !w.start.IsZero() && (want.IsZero() || w.start.Before(want)) {
			want = w.start
		}
		if !want.IsZero() {
			due++
		}
		if f.byKey[w.key] != w || mine != (w.owner != 0) || !his || !w.due.at.Equal(want) || (w.due.place == 0) != want.IsZero() {
			return fmt.Errorf("flow of rule %q to %s is not found by all that it has: owner %v, peer %v, due %s at place %d, want %s",
				w.flow.Rule, w.flow.Remote, mine, his, w.due.at, w.due.place, want)
		}
	}
	if n := f.order.length; len(f.byKey) != n || owned != owners || to != n || len(f.due.heap) != due {
		return fmt.Errorf("%d flows, %d by key, %d by owner, %d by peer, %d of %d due", n, len(f.byKey), owned, to, len(f.due.heap), due)
	}
	return nil
}
