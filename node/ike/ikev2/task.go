package ikev2

import (
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

// task is an own exchange: it builds a request and finishes with the response. Only one runs at a time.
type task interface {
	// rank orders waiting tasks, the lowest first: what ends something comes before what keeps it alive.
	rank() int
	// begin sends the request, or starts the job that it needs, and returns true; false means that there is nothing to do
	// any more.
	begin(s *SA) bool
	// finish handles the response. The task is over when it has called s.done.
	finish(s *SA, m message)
}

// The ranks of the tasks.
const (
	rankDeleteIKE = iota
	rankUpdate
	// What lost a collision goes before what it was to replace: the delete of the old Child SA is the sign to use the new one.
	rankDeleteUnwanted
	rankDeleteChild
	rankRekeyIKE
	rankRekeyChild
	rankNewChild
	rankLiveness
)

// queued is a task that waits for its turn, or for a time.
type queued struct {
	task      task
	notBefore time.Time // zero: as soon as possible
	again     bool      // it met a temporary failure before
}

// tasks are all own exchanges, the running one first.
func (s *SA) tasks() []task {
	var list []task
	if s.current != nil {
		list = append(list, s.current)
	}
	for _, q := range s.queue {
		list = append(list, q.task)
	}
	return list
}

func (s *SA) enqueue(t task, notBefore time.Time) {
	s.queue = append(s.queue, queued{task: t, notBefore: notBefore})
}

// ready reports whether an own exchange may begin. While a request of the peer is being served none is begun: that
// would only provoke a collision.
func (s *SA) ready() bool {
	return s.state.established() && s.current == nil && s.win.pending == nil && s.win.serving == nil
}

// advance begins what is next in the queue.
func (s *SA) advance() {
	s.checkMessageIDs()
	for s.ready() {
		s.freshen()
		best := -1
		for i, q := range s.queue {
			if s.now.Before(q.notBefore) || s.waits(q.task) || s.closing() && q.task.rank() != rankDeleteIKE ||
				makesChild(q.task) && s.spent() {
				continue
			}
			if best < 0 || q.task.rank() < s.queue[best].task.rank() {
				best = i
			}
		}
		if best < 0 {
			return
		}
		t := s.queue[best].task
		s.current, s.retrying = t, s.queue[best].again
		s.queue = append(s.queue[:best:best], s.queue[best+1:]...)
		if !t.begin(s) && s.current == t {
			s.current = nil
		}
	}
}

// done ends the running task.
func (s *SA) done(t task) {
	if s.current == t {
		s.current = nil
	}
}

// later puts a task back that met a temporary failure: with jitter, growing, but well before the limit that it must
// keep (RFC 7296 2.25).
func (s *SA) later(t task, attempt int, limit time.Time) {
	s.done(t)
	if !s.retrying && !slices.ContainsFunc(s.queue, func(q queued) bool { return q.again }) {
		s.troubled = timeZero // what was in trouble before is over, without a success to say so
	}
	if s.troubled.IsZero() {
		s.troubled = s.now
	} else if s.now.Sub(s.troubled) > troubledLimit {
		s.closeIKE(ike.ReasonTemporaryFailure)
		return
	}
	wait := time.Second << min(attempt, 4)
	if left := limit.Sub(s.now); !limit.IsZero() && wait > left/3 {
		wait = max(left/3, 200*time.Millisecond)
	}
	wait = time.Duration(float64(wait) * (0.5 + s.fraction()))
	s.trace("temporary failure, next try in %s", wait.Round(time.Millisecond))
	s.queue = append(s.queue, queued{task: t, notBefore: s.now.Add(wait), again: true})
}

// closing reports whether the delete of the IKE SA waits or is under way.
func (s *SA) closing() bool {
	for _, t := range s.tasks() {
		if t.rank() == rankDeleteIKE {
			return true
		}
	}
	return false
}

// closingFor tells why the delete of the IKE SA waits or is under way; ReasonNone when it does not.
func (s *SA) closingFor() ike.Reason {
	for _, t := range s.tasks() {
		if d, ok := t.(*deleteIKE); ok {
			return d.reason
		}
	}
	return ike.ReasonNone
}

// rekeyingIKE reports whether an own rekey of the IKE SA waits or is under way.
func (s *SA) rekeyingIKE() bool {
	for _, t := range s.tasks() {
		if t.rank() == rankRekeyIKE {
			return true
		}
	}
	return false
}

// liveness is an empty INFORMATIONAL request (RFC 7296 2.4).
type liveness struct{}

func (*liveness) rank() int { return rankLiveness }

func (*liveness) begin(s *SA) bool {
	var payloads []wire.Payload
	if s.asksMapping() { // finds out about the NAT as well
		s.mapped = s.now
		payloads = s.natPayloads(s.local, s.remote)
	}
	if len(s.token) > 0 { // leaves room for the peer's in an answer that is no longer (RFC 6290 4.1)
		payloads = append(payloads, s.ownToken()...)
	}
	s.request(wire.Informational, payloads...)
	return true
}

func (t *liveness) finish(s *SA, m message) {
	s.done(t)
	s.checkMapping(m.payloads)
}

// deleteIKE closes the IKE SA in order (RFC 7296 1.4.1).
type deleteIKE struct{ reason ike.Reason }

func (*deleteIKE) rank() int { return rankDeleteIKE }

func (t *deleteIKE) begin(s *SA) bool {
	if s.state == StateEstablished {
		s.state = StateDeleting
	}
	s.request(wire.Informational, wire.Delete{Protocol: wire.ProtocolIKE})
	return true
}

func (t *deleteIKE) finish(s *SA, _ message) {
	s.done(t)
	s.end(t.reason, t.reason.Fault(), "")
}

// closeIKE queues the delete of the IKE SA and removes the Child SAs at once, except where others carry their traffic on.
func (s *SA) closeIKE(reason ike.Reason) {
	if !s.state.established() {
		s.end(reason, ike.FaultLocal, "")
		return
	}
	if s.closing() {
		return
	}
	s.enqueue(&deleteIKE{reason}, time.Time{})
	if reason == ike.ReasonRedundant { // the peer may use them until the delete arrives
		return
	}
	for _, c := range s.children {
		s.uninstall(c, reason)
	}
}

// Close deletes the IKE SA.
func (s *SA) Close(now time.Time, reason ike.Reason) {
	s.now = now
	if s.state == StateClosed {
		return
	}
	s.adoptedByPeer() // what the predecessor has not handed over yet goes as well
	s.closeIKE(reason)
	s.advance()
}

// Drop forgets the SA without telling the peer, who has forgotten it as well.
func (s *SA) Drop(now time.Time, reason ike.Reason, detail string) {
	s.now = now
	s.end(reason, ike.FaultPeer, detail)
}

// Rekey rekeys the IKE SA now.
func (s *SA) Rekey(now time.Time) {
	s.now = now
	if s.Usable() && !s.rekeyingIKE() {
		s.enqueue(&rekeyIKE{}, time.Time{})
		s.advance()
	}
}
