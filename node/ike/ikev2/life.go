package ikev2

import (
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/impair"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

const (
	// HalfOpen bounds the time from IKE_SA_INIT to the end of IKE_AUTH at the responder.
	HalfOpen = 20 * time.Second
	// jobTimeout bounds the time between IKE_SA_INIT and IKE_AUTH at the initiator, where no request is outstanding.
	jobTimeout         = 60 * time.Second
	defaultIKELifetime = 8 * time.Hour
	defaultChildTime   = time.Hour
	defaultLiveness    = 30 * time.Second
	keepaliveInterval  = 20 * time.Second // RFC 3948 4
	// rekeyedWait is how long the peer gets to delete what its own rekey made redundant: longer than all its tries.
	rekeyedWait = RetransmitTotal + 10*time.Second
	// childlessWait ends IKE SAs that carry nothing.
	childlessWait = 10 * time.Minute
	// confirmWait is how long a responder leaves a new outbound SA unused when nothing tells that the initiator has
	// installed its inbound half.
	confirmWait = 250 * time.Millisecond
	// troubledLimit closes an IKE SA whose peer has nothing but temporary failures (RFC 7296 2.25).
	troubledLimit = 3 * time.Minute
	idleDefault   = 5 * time.Minute
)

func (s *SA) startLife() {
	soft := s.cfg.IKELifetime
	if soft <= 0 {
		soft = defaultIKELifetime
	}
	// The hard limit leaves room for the retries of a rekey that collides and for one full retransmission.
	s.hard = s.now.Add(soft + max(soft/4, RetransmitTotal+30*time.Second))
	// The original initiator comes first, so that simultaneous rekeys are rare.
	share := 0.90 + 0.05*s.fraction()
	if s.initiator {
		share = 0.80 + 0.08*s.fraction()
	}
	s.soft = s.now.Add(time.Duration(float64(soft) * share))
	s.lastHeard = s.now
	s.childless = s.now.Add(childlessWait)
}

// Deadline is when Tick must be called; zero means never.
func (s *SA) Deadline() time.Time {
	var d time.Time
	first := func(t time.Time) {
		if !t.IsZero() && (d.IsZero() || t.Before(d)) {
			d = t
		}
	}
	if s.state == StateClosed {
		return s.linger
	}
	if s.win.pending != nil {
		first(s.win.pending.at)
	}
	first(s.giveUp)
	first(s.hard)
	for _, u := range s.unfinished {
		first(u.until)
	}
	first(s.requests.deadline())
	first(s.responses.deadline())
	if s.state == StateEstablished {
		if s.mayRekey() {
			first(s.soft)
		}
		if !s.closing() {
			first(s.until)
			first(s.renew)
		}
		if !s.Busy() {
			first(s.livenessAt())
		}
		if s.natLocal {
			first(s.lastSent.Add(keepaliveInterval))
		}
		if !s.anyChild() && !s.Busy() {
			first(s.childless)
		}
	}
	for _, c := range s.children {
		if c.waits() {
			first(c.confirm)
		}
	}
	if s.ready() {
		for _, q := range s.queue {
			if s.waits(q.task) {
				continue
			}
			if q.notBefore.IsZero() {
				first(s.now)
			}
			first(q.notBefore)
		}
	}
	return d
}

// mayRekey reports whether a rekey of the IKE SA can begin. One that lost a collision waits for its delete, and one that
// the peer has rekeyed waits for the decision: their soft limit means nothing.
func (s *SA) mayRekey() bool {
	return (!s.redundant || impair.On(impair.SpinRedundant)) && s.peerRekey == nil && !s.closing() && !s.rekeyingIKE()
}

// Heard notes that authentic ESP of the peer has come: a fresh message of any Child SA is a sign of life as good as one of
// the IKE SA (RFC 7296 2.4).
func (s *SA) Heard(now time.Time) {
	s.now = now
	s.lastHeard = now
}

func (s *SA) livenessAt() time.Time {
	every := s.cfg.Liveness
	if every <= 0 {
		every = defaultLiveness
	}
	at := s.lastHeard.Add(every)
	// A peer that always has something to say shows no change of the mapping, and sends all it begins to the old one.
	if m := s.mapped.Add(2 * every); s.asksMapping() && m.Before(at) {
		return m
	}
	return at
}

// Tick does what is due at now.
func (s *SA) Tick(now time.Time) {
	s.now = now
	due := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	if s.state == StateClosed {
		return
	}
	s.expireUnfinished()
	s.requests.expire(now)
	s.responses.expire(now)
	s.retransmit()
	switch {
	case s.state == StateClosed:
		return
	case due(s.giveUp):
		s.gaveUp()
		return
	case due(s.hard):
		s.hard = time.Time{}
		s.closeIKE(ike.ReasonExpired)
	}
	if s.state == StateEstablished && !s.closing() {
		s.tickStanding()
	}
	if s.state == StateEstablished {
		if due(s.soft) && s.mayRekey() {
			s.enqueue(&rekeyIKE{}, time.Time{})
		}
		if s.natLocal && due(s.lastSent.Add(keepaliveInterval)) {
			s.lastSent = now
			s.host.Emit(ike.Keepalive{Local: s.local, Remote: s.remote})
		}
		if !s.Busy() && due(s.livenessAt()) {
			s.enqueue(&liveness{}, time.Time{})
		}
		if !s.anyChild() && !s.Busy() && due(s.childless) {
			s.closeIKE(ike.ReasonIdle)
		}
	}
	for _, c := range slices.Clone(s.children) {
		switch {
		case !c.waits() || !due(c.confirm):
		case c.fromAuth && s.state == StateEstablished:
			// The initiator answers requests only when it has installed everything: a liveness check brings the sign.
			c.confirm = s.now.Add(RetransmitTotal)
			s.enqueue(&liveness{}, timeZero)
		default:
			s.switchOut(c)
		}
	}
	s.advance()
}

// gaveUp ends what never became established, and an old SA that the peer forgot to delete.
func (s *SA) gaveUp() {
	switch {
	case s.state == StateRekeyed || s.redundant:
		s.end(ike.ReasonRekeyed, ike.FaultPeer, "the peer did not delete it")
	case s.initiator:
		s.end(ike.ReasonJobTimeout, ike.FaultLocal, "a job did not end in time")
	default:
		s.end(ike.ReasonHalfOpen, ike.FaultNetwork, "the peer did not finish IKE_AUTH")
	}
}

// heard notes that the peer is alive, and finds what that confirms. New Child SAs that waited for a sign that the
// initiator installed them are used from now on (RFC 7296 2.8): a new request shows that it has seen the response to the
// one before, and any message after IKE_AUTH that it has seen that response.
func (s *SA) heard(request bool) (confirmed []*child) {
	s.lastHeard = s.now
	for _, c := range s.children {
		if c.waits() && (request || c.fromAuth) {
			confirmed = append(confirmed, c)
		}
	}
	return confirmed
}

// confirm uses what heard found, unless the message was about its end.
func (s *SA) confirm(confirmed []*child) {
	for _, c := range confirmed {
		s.switchOut(c)
	}
}

// bounds are the limits of a Child SA. The initiator's soft limit comes before the responder's.
func (s *SA) bounds(l spd.Lifetime, chosen proposal.ESP, initiator bool) (soft, hard sa.Limits) {
	hard.Time, hard.Bytes = l.Time, l.Bytes
	if hard.Time <= 0 {
		hard.Time = defaultChildTime
	}
	if !chosen.ESN {
		hard.Packets = 1<<32 - 1<<20 // RFC 4303 3.3.3: the sequence number must not cycle
	}
	share := 0.90 + 0.05*s.fraction()
	if initiator {
		share = 0.75 + 0.08*s.fraction()
	}
	soft.Time = time.Duration(float64(hard.Time) * share)
	soft.Bytes = uint64(float64(hard.Bytes) * share)
	soft.Packets = uint64(float64(hard.Packets) * share)
	return soft, hard
}
