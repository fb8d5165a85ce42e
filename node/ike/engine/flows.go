package engine

import (
	"net/netip"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/ikev2"
	"github.com/bailiwick-net/bailiwick/node/ike/impair"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

const (
	// LimitFailures bounds the failures that are remembered for status.
	LimitFailures = 256
	// limitFlows bounds the flows that wait at a time.
	limitFlows = 4096
	// limitRestarts bounds how often a flow is tried anew because an established SA went away under it.
	limitRestarts = 3
	// A flow that failed is tried again after this wait, plus up to as much, when it asks.
	backoffWait     = time.Second
	defaultDelay    = 3 * time.Second
	defaultTTL      = 5 * time.Minute
	limitRemembered = 65536
)

// flowKey is what two packets of one flow share.
type flowKey struct {
	rule              string
	local, remote     netip.Addr
	localTS, remoteTS sa.Selector
}

// securedKey names traffic that had an association once: FallbackDiscover never lets it go in clear again.
type securedKey struct {
	rule          string
	local, remote netip.Addr
}

// flow waits for an association.
type flow struct {
	key        flowKey
	flow       ike.Flow
	rule       ike.Rule
	since      time.Time
	start      time.Time // when to begin, after a failure; zero once begun
	fallbackAt time.Time // when silence grants clear traffic; zero: never
	cleared    time.Time // when clear traffic was granted
	auth       int       // entry of the rule's list that is being tried
	restarts   int
	owner      wire.SPI // the SA that is to make it; 0: none yet
	attached   bool     // the owner knows the flow
	link       link[*flow]
	due        appointment[*flow]
}

func (f *flow) ttl() time.Duration {
	if f.rule.Fallback.TTL > 0 {
		return f.rule.Fallback.TTL
	}
	return defaultTTL
}

func keyOf(f ike.Flow) flowKey { return flowKey{f.Rule, f.Local, f.Remote, f.LocalTS, f.RemoteTS} }

// acquire begins a negotiation for a flow, unless one is under way.
func (e *Engine) acquire(f ike.Flow) {
	if e.stopping {
		e.Emit(ike.Refuse{Flow: f, Reason: ike.ReasonShutdown})
		return
	}
	key := keyOf(f)
	if w, ok := e.flows.byKey[key]; ok {
		// What waits was let go in clear, and that has ended: silence grants it again at once.
		if !w.cleared.IsZero() && !e.now.Before(w.cleared.Add(w.ttl())) {
			w.cleared = time.Time{}
			w.flow = f
			e.armFallback(w)
		}
		return
	}
	rule, known := e.rule(f.Rule)
	switch {
	case !known:
		e.Emit(ike.Refuse{Flow: f, Reason: ike.ReasonNoPolicy, Detail: "the policy has no such rule"})
		return
	case e.flows.order.length >= limitFlows && !e.yield():
		e.Emit(ike.Refuse{Flow: f, Reason: ike.ReasonFlowLimit, Detail: "too many flows wait for an association"})
		return
	}
	w := &flow{key: key, flow: f, rule: rule, since: e.now}
	e.flows.add(w)
	if w.rule.Fallback.Mode == spd.FallbackDiscover && !e.wasSecured(f) {
		e.clear(w)
	}
	if until, ok := e.backoff[key]; ok && e.now.Before(until) {
		e.flows.startAt(w, until)
		return
	}
	delete(e.backoff, key)
	e.negotiate(w)
}

// yield ends the oldest negotiation whose flow talks in clear meanwhile, and reports whether there was one. Its peer has
// been silent for long, and a flow that is new may have one that answers: packets with invented sources, which make this
// side ask for security where clear ones are accepted, must not keep the others out.
func (e *Engine) yield() bool {
	for l := e.flows.order.first; l != nil; l = l.next {
		w := l.of
		x, ok := e.table.bySPI[w.owner]
		if w.cleared.IsZero() || !ok || x.answered {
			continue
		}
		e.run(x, func(s *ikev2.SA) { s.Drop(e.now, ike.ReasonFlowLimit, "too many flows wait for an association") })
		return !w.link.in
	}
	return false
}

func (e *Engine) wasSecured(f ike.Flow) bool {
	_, ok := e.secured[securedKey{f.Rule, f.Local, f.Remote}]
	return ok
}

// negotiate finds or makes the SA for a flow.
func (e *Engine) negotiate(w *flow) {
	w.attached = false
	e.flows.startAt(w, time.Time{})
	e.flows.own(w, 0)
	peers := e.table.byPeer[w.flow.Remote]
	for _, x := range peers {
		if e.serves(x, w) && x.sa.Usable() {
			e.attach(w, x)
			return
		}
	}
	for _, x := range peers {
		if e.reprieve(x) && e.serves(x, w) {
			e.attach(w, x)
			return
		}
	}
	for ; w.auth < len(w.rule.Auth); w.auth++ {
		entry := w.rule.Auth[w.auth]
		if !e.credential(entry) {
			continue
		}
		for _, x := range peers { // one attempt for all flows to the peer
			if x.sa.Initiator() && x.sa.State() < ikev2.StateEstablished && x.sa.Auth() == entry && e.serves(x, w) {
				e.flows.own(w, x.sa.SPI())
				e.armFallback(w)
				return
			}
		}
		s := ikev2.Initiate(e, e.now, e.cfg, w.flow, w.rule, entry)
		x := e.table.add(s, false)
		w.attached = true
		e.flows.own(w, s.SPI())
		e.count("init_sent")
		e.armFallback(w)
		e.after(x)
		return
	}
	e.countMainFailure(ike.ReasonNoCredential)
	e.giveUp(w, false, ike.ReasonNoCredential, ike.FaultLocal, "this machine has no credential that the rule allows")
}

// credential reports whether this side can authenticate by an entry.
func (e *Engine) credential(a spd.Auth) bool {
	if a.PPK != "" && !a.PPKOptional && e.cfg.Secrets[a.PPK].Len() == 0 {
		return false
	}
	if a.Method == spd.AuthPSK {
		s, ok := e.cfg.Secrets[a.Secret]
		return ok && s.Len() > 0
	}
	return len(e.cfg.Chain) > 0
}

// serves reports whether an SA is with the peer of a flow and authenticated, or to be, as its rule allows.
func (e *Engine) serves(x *entry, w *flow) bool {
	local, remote := x.sa.Addresses()
	// The peer of a tunnel may have moved; rules know it by where it was.
	there := remote.Addr() == w.flow.Remote || w.rule.Mode == sa.Tunnel && x.sa.Home() == w.flow.Remote
	return !x.retiring && !x.forgotten && there && local.Addr() == w.flow.Local && slices.Contains(w.rule.Auth, x.sa.Auth())
}

func (e *Engine) attach(w *flow, x *entry) {
	w.attached = true
	e.flows.own(w, x.sa.SPI())
	e.flows.clearAt(w, time.Time{})
	e.run(x, func(s *ikev2.SA) { s.Acquire(e.now, w.flow, w.rule) })
}

// armFallback sets the time at which the silence of the peer grants clear traffic.
func (e *Engine) armFallback(w *flow) {
	x, ok := e.table.bySPI[w.owner]
	if w.rule.Fallback.Mode != spd.FallbackWait && !impair.On(impair.FallbackAnyway) || !ok || x.answered || !w.cleared.IsZero() || x.sa.State() >= ikev2.StateEstablished {
		return
	}
	delay := w.rule.Fallback.Delay
	if delay <= 0 {
		delay = defaultDelay
	}
	at := x.sa.Created().Add(delay)
	if at.Before(e.now) {
		at = e.now
	}
	e.flows.clearAt(w, at)
}

// clear grants clear traffic. The negotiation goes on.
func (e *Engine) clear(w *flow) {
	w.cleared = e.now
	e.flows.clearAt(w, time.Time{})
	e.count("fallback")
	e.Emit(ike.Fallback{Flow: w.flow, TTL: w.ttl()})
}

// speaks reports whether the peer of a flow has an IKE SA with another address of this machine: it is not silent, whatever
// happens to the messages of this path.
func (e *Engine) speaks(w *flow) bool {
	return slices.ContainsFunc(e.table.byPeer[w.flow.Remote], func(x *entry) bool {
		return x.sa.Usable() && slices.Contains(w.rule.Auth, x.sa.Auth())
	})
}

// tickFlows does what is due.
func (e *Engine) tickFlows() bool {
	again := false
	for _, a := range e.flows.due.take(e.now, nil) {
		w := a.of
		if !w.link.in {
			continue
		}
		if !w.fallbackAt.IsZero() && !e.now.Before(w.fallbackAt) {
			if e.speaks(w) {
				e.flows.clearAt(w, time.Time{})
			} else {
				e.clear(w)
			}
			again = true
		}
		if !w.start.IsZero() && !e.now.Before(w.start) {
			delete(e.backoff, w.key)
			e.negotiate(w)
			again = true
		}
		e.flows.schedule(w)
	}
	return again
}

// answered: a peer that answers gets no clear traffic, whatever it answered.
func (e *Engine) answered(x *entry) {
	if x.answered {
		return
	}
	x.answered = true
	for _, w := range e.flows.owned(x.sa.SPI()) {
		e.flows.clearAt(w, time.Time{})
	}
}

// childUp ends the waiting of the flows that a new Child SA carries.
func (e *Engine) childUp(x *entry, c sa.Child) {
	waiting := e.flows.to(c.Remote.Addr())
	if home := x.sa.Home(); home.IsValid() && home != c.Remote.Addr() {
		waiting = append(waiting, e.flows.to(home)...)
	}
	for _, w := range waiting {
		if w.flow.Rule == c.Rule && !c.DefaultResponse && ikev2.CoversFlow(c, w.flow) {
			e.flows.remove(w)
		}
	}
	if len(e.secured) < limitRemembered {
		e.secured[securedKey{c.Rule, c.Local.Addr(), c.Remote.Addr()}] = struct{}{}
	}
}

// flowFailed handles a Child SA that an SA could not make.
func (e *Engine) flowFailed(n ikev2.FlowFailed) {
	if w, ok := e.flows.byKey[keyOf(n.Flow)]; ok {
		e.giveUp(w, true, n.Reason, n.Fault, n.Detail)
	}
}

// giveUp ends a negotiation without result. A peer that answered is never talked to in clear because of that.
func (e *Engine) giveUp(w *flow, child bool, reason ike.Reason, fault ike.Fault, detail string) {
	e.flows.remove(w)
	x, peer := e.table.bySPI[w.owner], ""
	if x != nil {
		peer = x.sa.Peer()
	}
	e.failed(x, Failure{
		Remote: w.flow.Remote, Peer: peer, Rule: w.flow.Rule, Child: child, Reason: reason, Fault: fault, Detail: detail,
	})
	if len(e.backoff) >= limitRemembered {
		clear(e.backoff)
	}
	jitter := time.Duration(e.Random(1)[0]) * backoffWait / 256
	e.backoff[w.key] = e.now.Add(backoffWait + jitter)
	if w.cleared.IsZero() {
		e.Emit(ike.Refuse{Flow: w.flow, Reason: reason, Detail: detail})
	}
}

// closed goes on with the flows of an SA that is over.
func (e *Engine) closed(x *entry, n ikev2.Closed) {
	e.count("ike_closed")
	e.linger(x)
	wasUp := !x.sa.EstablishedAt().IsZero()
	if wasUp && n.Reason == ike.ReasonDeletedByPeer {
		e.takeOver(x)
	}
	// A peer that rejects this side's authentication does so after its own was accepted (RFC 7296 2.21.2).
	if !wasUp {
		e.countMainFailure(n.Reason)
	}
	if !wasUp && (!x.sa.Initiator() || x.renews != nil) || wasUp && n.Reason.Class() == ike.ClassFailure {
		_, remote := x.sa.Addresses()
		e.failed(x, Failure{Remote: remote.Addr(), Peer: x.sa.Peer(), Reason: n.Reason, Fault: n.Fault, Detail: n.Detail})
	}
	e.orphans(x.sa.SPI(), n.Reason, n.Fault, n.Detail, wasUp)
}

// orphans finds another way for the flows of an SA that is over.
func (e *Engine) orphans(owner wire.SPI, reason ike.Reason, fault ike.Fault, detail string, wasUp bool) {
	for _, w := range e.flows.owned(owner) {
		if w.owner != owner || !w.link.in {
			continue
		}
		switch {
		case e.stopping:
			e.flows.remove(w)
		case wasUp && w.restarts < limitRestarts:
			w.restarts++
			e.negotiate(w)
		case !wasUp && aboutAuthentication(reason) && w.auth+1 < len(w.rule.Auth):
			// The list is ordered: the next way to authenticate gets its turn.
			e.failed(e.table.bySPI[owner], Failure{Remote: w.flow.Remote, Rule: w.flow.Rule, Reason: reason, Fault: fault, Detail: detail})
			w.auth++
			e.negotiate(w)
		default:
			e.giveUp(w, false, reason, fault, detail)
		}
	}
}

func aboutAuthentication(r ike.Reason) bool {
	switch r {
	case ike.ReasonAuthFailed, ike.ReasonUnknownIssuer, ike.ReasonCertExpired, ike.ReasonCertNotYetValid,
		ike.ReasonCertRevoked, ike.ReasonPeerDenied, ike.ReasonNoPPK, ike.ReasonStandingUnknown, ike.ReasonCertInvalid,
		ike.ReasonIssuerNotAllowed, ike.ReasonIDMismatch, ike.ReasonNoCredential, ike.ReasonSignFailed, ike.ReasonAuthRefused, ike.ReasonAuthNotAllowed:
		return true
	default:
		return false
	}
}

// follow lets the flows of a rekeyed SA wait for its successor.
func (e *Engine) follow(old, successor wire.SPI) {
	for _, w := range e.flows.owned(old) {
		e.flows.own(w, successor)
	}
}

// attachWaiting gives an SA that has just become established the flows that waited for it.
func (e *Engine) attachWaiting(x *entry) {
	for _, w := range e.flows.owned(x.sa.SPI()) {
		if w.owner == x.sa.SPI() && !w.attached && w.link.in {
			e.attach(w, x)
		}
	}
}

func (e *Engine) reconfigureFlows() {
	for _, w := range e.flows.order.all() {
		rule, ok := e.rule(w.flow.Rule)
		if !ok {
			e.flows.remove(w)
			e.Emit(ike.Refuse{Flow: w.flow, Reason: ike.ReasonPolicyChanged})
			continue
		}
		w.rule = rule
		if w.rule.Fallback.Mode != spd.FallbackWait {
			e.flows.clearAt(w, time.Time{})
		}
	}
}
