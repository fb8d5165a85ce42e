package engine

import (
	"slices"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/ikev2"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// renewLimit is when an SA that was authenticated anew takes over in any case.
const renewLimit = ikev2.RetransmitTotal

// recheck has every authenticated peer judged again.
func (e *Engine) recheck() {
	e.count("recheck")
	for _, x := range e.table.order.all() {
		if !x.gone {
			e.run(x, func(s *ikev2.SA) { s.Recheck(e.now) })
		}
	}
}

// reauthenticate makes another IKE SA, with a new authentication, before the present one stops to count (RFC 4478, RFC
// 7296 2.8.3). The old one carries the traffic until the new one has everything. When the attempt fails, the old SA asks
// again while there is time, and ends with its authentication.
func (e *Engine) reauthenticate(x *entry) {
	if e.stopping || x.retiring || !x.sa.Usable() {
		return
	}
	for _, c := range x.sa.Children() {
		if y := e.again(x, c); y != nil {
			e.count("reauthentication")
			y.renews = x
			e.after(y)
			return
		}
	}
	// Without a Child SA that this side may ask for there is nothing to keep.
}

// again begins another IKE SA like x, for what a Child SA of it carries; nil when the policy does not stand for that. Even
// what the default response answered is asked for then: it does so to keep what the peer wanted, never to begin anything.
func (e *Engine) again(x *entry, c sa.Child) *entry {
	rule, ok := e.ruleOf(c)
	if !ok || !slices.Contains(rule.Auth, x.sa.Auth()) || !e.credential(x.sa.Auth()) {
		return nil
	}
	return e.table.add(ikev2.Initiate(e, e.now, e.cfg, flowOf(c), rule, x.sa.Auth()), false)
}

// flowOf is the flow that a Child SA carries.
func flowOf(c sa.Child) ike.Flow {
	return ike.Flow{
		Rule: c.Rule, DefaultResponse: c.DefaultResponse, Local: c.Local.Addr(), Remote: c.Remote.Addr(),
		LocalTS: c.LocalTS[0], RemoteTS: c.RemoteTS[0],
	}
}

// ruleOf finds what made a Child SA.
func (e *Engine) ruleOf(c sa.Child) (ike.Rule, bool) {
	if !c.DefaultResponse {
		return e.rule(c.Rule)
	}
	if e.cfg.DefaultResponse == nil {
		return ike.Rule{}, false
	}
	return *e.cfg.DefaultResponse, true
}

// renewed lets an SA that was authenticated anew take over from the one it was made for.
func (e *Engine) renewed(x *entry) {
	old := x.renews
	x.renews = nil
	for old.sa.Successor() != nil {
		next, ok := e.table.bySPI[old.sa.Successor().SPI()]
		if !ok {
			break
		}
		old = next
	}
	if old.gone || old.retiring || old.sa.State() != ikev2.StateEstablished {
		return
	}
	e.run(old, func(s *ikev2.SA) { s.Renewed() })
	old.retiring = true
	r := &retirement{loser: old, survivor: x, end: e.now.Add(renewLimit), renewal: true}
	e.retired++
	r.due.of, r.due.seq = r, e.retired
	e.retiring.set(&r.due, e.now.Add(retireStep))
}

// succeeds notices an SA that the peer made although there is one already.
func (e *Engine) succeeds(x *entry) {
	if !x.sa.Initiator() && slices.ContainsFunc(e.table.byPeer[x.filed.remote.Addr()], func(y *entry) bool { return twins(x, y) }) {
		x.sa.Successive()
	}
}

// takeOver lets the other SAs with the peer of one that it deleted carry the traffic.
func (e *Engine) takeOver(x *entry) {
	for _, y := range slices.Clone(e.table.byPeer[x.filed.remote.Addr()]) {
		if twins(x, y) && x.sa.EstablishedAt().Before(y.sa.EstablishedAt()) {
			e.run(y, func(s *ikev2.SA) { s.TakeOver(e.now) })
		}
	}
}

// twins reports whether y is another SA in use with the same peer.
func twins(x, y *entry) bool {
	return y != x && !y.gone && !y.forgotten && y.sa.Usable() && y.sa.Peer() == x.sa.Peer() && y.sa.Auth() == x.sa.Auth() && sameAddresses(x, y)
}
