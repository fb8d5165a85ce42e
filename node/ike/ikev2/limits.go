package ikev2

import (
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
)

// The limits on what an authenticated peer may make this side do. A peer is trusted to be itself, not to be right.
const (
	// createBurst and createRate bound the CREATE_CHILD_SA requests that are served: that many at once, and that many a
	// second for ever. A thousand Child SAs are up in eight seconds, and a peer gone wild takes a twentieth of one core.
	createBurst = 256
	createRate  = 100
	// rekeyMessageID is where an IKE SA is rekeyed whatever its age (RFC 7296 2.2: message IDs MUST NOT wrap).
	rekeyMessageID = 1 << 31
	// maxMessageID is never used: an IKE SA that comes near is closed.
	maxMessageID = 1<<32 - 1
)

// budget is how many CREATE_CHILD_SA requests may still be served. A rekeyed IKE SA inherits it.
type budget struct {
	used float64
	at   time.Time
}

// take reports whether one more is within the limits.
func (b *budget) take(now time.Time) bool {
	if now.After(b.at) {
		b.used = max(0, b.used-createRate*now.Sub(b.at).Seconds())
		b.at = now
	}
	if b.used+1 > createBurst {
		return false
	}
	b.used++
	return true
}

// checkMessageIDs rekeys an IKE SA in good time before the message IDs of either side end, and closes it where that has
// not happened.
func (s *SA) checkMessageIDs() {
	highest := max(s.win.next, s.win.expect)
	switch {
	case highest < rekeyMessageID || !s.state.established():
	case s.win.expect == maxMessageID || s.win.next == maxMessageID:
		s.end(ike.ReasonMessageIDsUsed, ike.FaultLocal, "message IDs are used up")
	case highest >= maxMessageID-4:
		s.closeIKE(ike.ReasonExpired)
	case s.state == StateEstablished && !s.wornOut && !s.closing() && !s.rekeyingIKE():
		s.wornOut = true
		s.trace("message IDs have reached %d: rekey", highest)
		s.enqueue(&rekeyIKE{}, timeZero)
	}
}
