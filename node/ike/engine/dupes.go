package engine

import (
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/ikev2"
	"github.com/bailiwick-net/bailiwick/node/ike/impair"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Two nodes that initiate at the same moment get two IKE SAs; RFC 7296 2.25 does not cover that. As with rekeys, the one
// whose IKE_SA_INIT holds the lowest of the four nonces is redundant. Its initiator closes it, once the survivor carries
// everything that it carried. A foreign peer that does not do the same is left with one more SA, which harms nobody.

const (
	// retireStep is how often a duplicate is looked at, retireLimit when it is closed in any case.
	retireStep  = 100 * time.Millisecond
	retireLimit = 10 * time.Second
	// crossing is how late an attempt can come that began before the other was established. Both sides must judge alike,
	// although their clocks saw the messages at different times: so it is longer than any attempt.
	crossing = 2 * ikev2.RetransmitTotal
)

// retirement is a duplicate that this side has to close, or, passive, that the peer is expected to close.
type retirement struct {
	loser, survivor *entry
	due             appointment[*retirement] // when it is looked at
	end             time.Time
	passive, moved  bool
	// renewal is that the survivor was made to take over, and proved that the peer knows that all of it is installed.
	renewal, proved bool
}

// established is called when an SA has become established.
func (e *Engine) established(x *entry, initialContact bool) {
	x.answered = true
	if x.renews != nil {
		e.renewed(x)
	}
	for _, y := range slices.Clone(e.table.byPeer[x.filed.remote.Addr()]) {
		if y == x || y.gone || y.retiring || !y.sa.Usable() || y.sa.Peer() != x.sa.Peer() || y.sa.Auth() != x.sa.Auth() ||
			!sameAddresses(x, y) {
			continue
		}
		switch {
		case initialContact && impair.On(impair.IgnoreFirstContact):
		case initialContact && e.firstContact(x, y):
		case y.sa.Origin().Initiator != x.sa.Initiator() && x.sa.Created().Before(y.sa.Origin().Established.Add(crossing)):
			e.duplicates(x, y)
		}
	}
	if initialContact && !impair.On(impair.IgnoreFirstContact) {
		e.startedElsewhere(x)
	}
	e.succeeds(x)
	for _, w := range e.flows.to(x.filed.remote.Addr()) { // the peer is not silent, whoever of the two has come through
		if e.serves(x, w) {
			e.flows.clearAt(w, time.Time{})
		}
	}
	e.attachWaiting(x)
}

// compare looks for duplicates of an SA that was no candidate when they were established.
func (e *Engine) compare(x *entry) {
	for _, y := range slices.Clone(e.table.byPeer[x.filed.remote.Addr()]) {
		if y == x || y.gone || y.retiring || !y.sa.Usable() || y.sa.Peer() != x.sa.Peer() || y.sa.Auth() != x.sa.Auth() ||
			!sameAddresses(x, y) {
			continue
		}
		a, b := x.sa.Origin(), y.sa.Origin()
		if a.Initiator != b.Initiator && a.Created.Before(b.Established.Add(crossing)) && b.Created.Before(a.Established.Add(crossing)) {
			e.duplicates(x, y)
			return
		}
	}
}

// sameAddresses tells whether two SAs are between the same two addresses. A peer that has several, of IPv4 and of IPv6,
// has an SA for each: they are no duplicates, and a first contact by one of them says nothing of the others.
func sameAddresses(x, y *entry) bool {
	local, remote := x.sa.Addresses()
	otherLocal, otherRemote := y.sa.Addresses()
	return local.Addr() == otherLocal.Addr() && remote.Addr() == otherRemote.Addr()
}

func (e *Engine) duplicates(x, y *entry) {
	if impair.On(impair.KeepDuplicates) {
		return
	}
	loser, survivor := x, y
	if y.sa.Origin().Exchange.Loses(x.sa.Origin().Exchange) {
		loser, survivor = y, x
	}
	loser.retiring = true
	e.count("duplicate_ike")
	r := &retirement{loser: loser, survivor: survivor, end: e.now.Add(retireLimit)}
	if !loser.sa.Origin().Initiator {
		r.passive, r.end = true, e.now.Add(crossing)
	}
	e.retired++
	r.due.of, r.due.seq = r, e.retired
	e.retiring.set(&r.due, e.now.Add(retireStep))
}

// retire closes the duplicates whose survivor is ready.
func (e *Engine) retire() bool {
	due := e.retiring.take(e.now, nil)
	for _, a := range due { // at once, so that none is forgotten when the code of an SA panics
		step := retireStep
		if a.of.passive {
			step = time.Second
		}
		e.retiring.set(a, e.now.Add(step))
	}
	for _, a := range due {
		if e.retireOne(a.of) {
			e.retiring.set(a, time.Time{})
		}
	}
	return len(due) > 0
}

// retireOne reports whether nothing is left to do.
func (e *Engine) retireOne(r *retirement) bool {
	late := !e.now.Before(r.end)
	e.followRetirement(r)
	switch {
	case r.loser.gone || r.loser.sa.State() != ikev2.StateEstablished:
		return true
	case r.survivor.gone || !r.survivor.sa.Usable():
		r.loser.retiring = false // it is the only one again, or a duplicate of one that came meanwhile
		e.compare(r.loser)
		return true
	case r.passive:
		if late { // the peer does not follow this rule: both stay
			r.loser.retiring = false
		}
		return late
	case late:
	case r.loser.sa.Busy() || r.survivor.sa.Busy():
		return false
	case !r.moved:
		// What only the duplicate carries is made again at the survivor.
		r.moved = true
		for _, c := range r.loser.sa.Children() {
			rule, ok := e.ruleOf(c)
			if f := flowOf(c); ok && !r.survivor.sa.Covers(f) {
				e.run(r.survivor, func(s *ikev2.SA) { s.Acquire(e.now, f, rule) })
			}
		}
		return false
	case !r.survivor.sa.Settled():
		return false
	case r.renewal && !r.proved:
		r.proved = true
		e.run(r.survivor, func(s *ikev2.SA) { s.Prove(e.now) })
		return false
	}
	e.run(r.survivor, func(s *ikev2.SA) { s.Prefer(e.now) })
	e.run(r.loser, func(s *ikev2.SA) { s.Close(e.now, ike.ReasonRedundant) })
	return true
}

// followRetirement goes on to what the two have been rekeyed to.
func (e *Engine) followRetirement(r *retirement) {
	for _, x := range []**entry{&r.loser, &r.survivor} {
		for s := (*x).sa.Successor(); s != nil; s = s.Successor() {
			if next, ok := e.table.bySPI[s.SPI()]; ok { // those in between may be forgotten already
				*x = next
			}
		}
	}
}

// reprieve takes back the retirement of an SA whose survivor is over, because a flow needs it now, and reports whether it
// can be used again.
func (e *Engine) reprieve(x *entry) bool {
	if !x.retiring || !x.sa.Usable() {
		return false
	}
	for _, a := range e.retiring.heap {
		r := a.of
		if e.followRetirement(r); r.loser != x {
			continue
		}
		if !r.survivor.gone && r.survivor.sa.Usable() {
			return false
		}
		e.retiring.set(a, time.Time{})
		x.retiring = false
		return true
	}
	return false
}

// Snapshot returns the state as values.
func (e *Engine) Snapshot() Snapshot {
	v := Snapshot{Counters: make(map[string]uint64), Failures: slices.Clone(e.failures)}
	for name, n := range e.counters {
		v.Counters[name] = n
	}
	e.front.addTo(v.Counters)
	v.Counters["jobs"] = uint64(len(e.jobs))
	for _, x := range e.table.order.all() {
		s := x.sa
		if s.State() == ikev2.StateClosed {
			continue
		}
		local, remote := s.Addresses()
		natLocal, natRemote, encap := s.NAT()
		one := SA{
			SPI: uint64(s.SPI()), PeerSPI: uint64(s.PeerSPI()), Initiator: s.Initiator(), State: s.State().String(), Busy: s.Busy(),
			Peer: s.Peer(), Local: local, Remote: remote, Suite: s.Suite(), NATLocal: natLocal, NATRemote: natRemote,
			Encap: encap, Created: s.Created(), Established: s.EstablishedAt(), Rekey: s.RekeyAt(), Children: s.Children(),
		}
		if s.Peer() != "" {
			one.Auth = authName(s.Auth().Method)
		}
		v.SAs = append(v.SAs, one)
	}
	for _, w := range e.flows.order.all() {
		v.Waiting = append(v.Waiting, Waiting{Flow: w.flow, Since: w.since, Cleared: !w.cleared.IsZero()})
	}
	return v
}

func authName(m spd.AuthMethod) string {
	if m == spd.AuthPSK {
		return "preshared key"
	}
	return "certificate"
}
