package ikev2

import (
	"encoding/binary"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// standing is for how long, and on what evidence, the peer of an SA is believed. An SA that a rekey makes inherits it:
// new keys prove no identity (RFC 7296 2.8.3).
type standing struct {
	chain [][]byte  // the certificates that the peer showed; nil with a preshared key
	until time.Time // the SA never outlives it; zero: the authentication counts for ever
	renew time.Time // when this side authenticates anew; zero: never
	doubt bool      // what is known of peers changed before this one was accepted: it is judged once more
	// judging is that a verdict about the peer is under way; again that there is news since it was asked for.
	judging, again bool
	patient        bool     // another IKE SA carries the traffic
	groups         []string // those that rules name and the peer is a member of
}

const (
	// renewLeast is how long an authentication must count for this side to begin another one before it ends: each costs
	// both sides a whole handshake.
	renewLeast = 10 * time.Second
	// renewRetry is how long after a failed attempt the next is made, while there is time.
	renewRetry = 30 * time.Second
)

// ReauthDue says that the SA needs a new authentication before the present one ends.
type ReauthDue struct{}

func (ReauthDue) note() {}

// believe notes on what evidence the peer was accepted, and until when that counts: no longer than its certificate or
// the own one, nor than the policy allows.
func (s *SA) believe(id wire.ID, entry spd.Auth, v ike.Verified, chain [][]byte) {
	s.peerID, s.peerName, s.groups = id, v.Peer, v.Groups
	s.until = timeZero
	if entry.Method == spd.AuthCertificate {
		s.chain = chain
		s.limitStanding(v.NotAfter)
		s.limitStanding(s.cfg.NotAfter)
	}
	if s.cfg.Reauthentication > 0 {
		s.limitStanding(s.now.Add(s.cfg.Reauthentication))
	}
}

// limitStanding lets the authentication count no longer than until t, where t is a time.
func (s *SA) limitStanding(t time.Time) {
	if t.IsZero() || !s.until.IsZero() && !t.Before(s.until) {
		return
	}
	s.until = t
	s.renew = timeZero
	left := t.Sub(s.now)
	if left < renewLeast {
		return
	}
	// The original initiator comes first. The other side begins only when that did not, and only where the SA has lived so
	// long that nobody takes the new one for a duplicate.
	share := 0.75 + 0.10*s.fraction()
	if !s.originator() {
		if left < 4*RetransmitTotal {
			return
		}
		share = 0.92 + 0.03*s.fraction()
	}
	s.renew = s.now.Add(time.Duration(float64(left) * share))
}

// originator reports whether this side began what the SA came from.
func (s *SA) originator() bool {
	if s.origin.Established.IsZero() {
		return s.initiator
	}
	return s.origin.Initiator
}

// reconfigureStanding applies a new policy to how long the authentication counts. One that would have ended already gets the time
// to be renewed.
func (s *SA) reconfigureStanding() {
	if most := s.cfg.Reauthentication; most > 0 && !s.origin.Established.IsZero() {
		end := s.origin.Established.Add(most)
		if soon := s.now.Add(min(most, 2*time.Minute)); end.Before(soon) {
			end = soon
		}
		s.limitStanding(end)
	}
}

// authLifetime is the notify with which a responder tells for how long it takes the initiator's authentication to count
// (RFC 4478 3).
func (s *SA) authLifetime() []wire.Payload {
	if s.until.IsZero() {
		return nil
	}
	seconds := min(max(s.until.Sub(s.now)/time.Second, 1), 1<<32-1)
	return []wire.Payload{wire.Notify{
		Type: wire.NotifyAuthLifetime, Data: binary.BigEndian.AppendUint32(nil, uint32(seconds)),
	}}
}

// readAuthLifetime obeys the responder's AUTH_LIFETIME; from the original initiator it has no meaning (RFC 4478 3).
func (s *SA) readAuthLifetime(payloads []wire.Payload) {
	n, ok := wire.FindNotify(payloads, wire.NotifyAuthLifetime)
	if !ok || len(n.Data) != 4 || !s.origin.Initiator {
		return
	}
	s.limitStanding(s.now.Add(time.Duration(binary.BigEndian.Uint32(n.Data)) * time.Second))
}

// inheritStanding gives an SA that a rekey made what its predecessor has.
func (s *SA) inheritStanding(from *SA) {
	s.standing = from.standing
	s.doubt = from.doubt || from.judging
	s.judging, s.again = false, false
}

// tickStanding does what is due: the SA ends with the authentication, and a new one is begun before.
func (s *SA) tickStanding() {
	switch {
	case !s.until.IsZero() && !s.now.Before(s.until):
		s.until, s.renew = timeZero, timeZero
		reason := ike.ReasonReauthenticate
		if s.chain != nil && s.cfg.Reauthentication == 0 {
			reason = ike.ReasonCertExpired
		}
		s.closeIKE(reason)
	case !s.renew.IsZero() && !s.now.Before(s.renew):
		s.renew = timeZero
		if left := s.until.Sub(s.now); left > 2*renewRetry { // should this attempt fail
			s.renew = s.now.Add(max(renewRetry, left/4))
		}
		s.note(ReauthDue{})
	}
}

// patientWait is how long a responder leaves an outbound SA unused that nothing confirms, while another IKE SA with the
// same peer carries the traffic: some repetitions of the response that makes it.
const patientWait = 5 * time.Second

// Successive says that the peer made this SA while another one is in use, as for a new authentication: there is no hurry
// to send through it.
func (s *SA) Successive() { s.patient = true }

func (s *SA) confirmWait(c *child) time.Duration {
	if s.patient && !c.fromAuth {
		return patientWait
	}
	return confirmWait
}

// TakeOver ends the patience: the peer has deleted the SA that carried the traffic.
func (s *SA) TakeOver(now time.Time) {
	s.now, s.patient = now, false
	for _, c := range s.children {
		if soon := now.Add(confirmWait); c.waits() && soon.Before(c.confirm) {
			c.confirm = soon
		}
	}
}

// Prove asks the peer for a sign of life, which is a sign as well that this side has all that was made before.
func (s *SA) Prove(now time.Time) {
	s.now = now
	if s.Usable() {
		s.enqueue(&liveness{}, timeZero)
		s.advance()
	}
}

// Renewed says that another SA, authenticated anew, takes over from this one.
func (s *SA) Renewed() { s.renew = timeZero }

// Recheck asks for another verdict about the peer. Who does not pass is cut off: its Child SAs are removed at once.
func (s *SA) Recheck(now time.Time) {
	s.now = now
	switch {
	case s.state == StateClosed || s.closing():
	case s.hs != nil: // its verdict may be under way, with the former knowledge
		s.doubt = true
	case s.chain == nil:
	case s.judging:
		s.again = true
	default:
		s.rejudge()
	}
}

func (s *SA) rejudge() {
	s.judging, s.again, s.doubt = true, false, false
	work := ike.Rejudge{
		IDType: byte(s.peerID.Type), ID: s.peerID.Data, Chain: s.chain, Auth: s.auth, Revocation: s.cfg.Revocation,
		Groups: WantedGroups(s.cfg),
	}
	s.do(work, func(r ike.Result) {
		s.judging = false
		v := judgement(r)
		if v.Reason == ike.ReasonNone {
			s.limitStanding(v.NotAfter)
			for o := s; o != nil; o = o.successor { // what a rekey has made of it meanwhile as well
				o.now = s.now
				o.regroup(v.Groups)
				if o != s {
					o.advance()
					s.touch(o)
				}
			}
			if s.again {
				s.rejudge()
			}
			return
		}
		s.trace("%s is not accepted any more: %s", s.peerName, describe(v.Reason, v.Detail))
		// What a rekey has made of it meanwhile goes as well.
		for o := s; o != nil; o = o.successor {
			o.now = s.now
			o.closeIKE(v.Reason)
			o.advance()
			if o != s {
				s.touch(o)
			}
		}
	})
}
