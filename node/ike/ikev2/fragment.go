package ikev2

import (
	"crypto/sha256"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

// The limits on fragments (RFC 7383). Every fragment is authenticated before it is stored, but a peer that has finished
// the key exchange is not authenticated yet.
const (
	limitFragments = 64
	// messageSize is the largest IKE message that is sent in one datagram: IPv6's minimum MTU less IPv6 and UDP headers
	// and the non-ESP marker (RFC 7383 2.5.1).
	messageSize = 1280 - 40 - 8 - 4
	// smallMessageSize fits what every IPv4 host takes (RFC 791 3.1), less IPv4 and UDP headers and the marker.
	smallMessageSize = 576 - 20 - 8 - 4
	// shrinkAfter is after how many transmissions without an answer a message is cut smaller.
	shrinkAfter      = 2
	fragmentsTimeout = 30 * time.Second
)

// collector puts one fragmented message together; nil has nothing.
type collector struct {
	id      uint32
	total   uint16
	first   wire.PayloadType
	parts   [][]byte
	have    int
	octets  int
	digest  [sha256.Size]byte // of fragment 1 as it came
	expires time.Time
}

// add stores an authenticated fragment. done is true with the last missing one.
func (c *collector) add(now time.Time, id uint32, f wire.Fragment, inner []byte, datagram []byte, limit int) (message []byte, done bool) {
	if c.id != id || c.total == 0 || !now.Before(c.expires) {
		*c = collector{id: id}
	}
	switch {
	case f.Total > limitFragments:
		return nil, false
	case f.Total < c.total: // RFC 7383 2.6: an older, coarser attempt
		return nil, false
	case f.Total > c.total: // the sender tries again with smaller fragments
		*c = collector{id: id, total: f.Total, parts: make([][]byte, f.Total), expires: now.Add(fragmentsTimeout)}
	}
	i := int(f.Number) - 1
	if c.parts[i] != nil || c.octets+len(inner) > limit {
		return nil, false
	}
	if f.Number == 1 {
		c.first, c.digest = f.Next, sha256.Sum256(datagram)
	}
	if inner == nil {
		inner = []byte{}
	}
	c.parts[i] = inner
	c.have++
	c.octets += len(inner)
	if c.have < int(c.total) {
		return nil, false
	}
	message = make([]byte, 0, c.octets)
	for _, p := range c.parts {
		message = append(message, p...)
	}
	c.parts, c.total, c.octets, c.have = nil, 0, 0, 0
	return message, true
}

// deadline is when an incomplete message is forgotten; zero when there is none.
func (c *collector) deadline() time.Time {
	if c == nil || c.total == 0 {
		return timeZero
	}
	return c.expires
}

// expire forgets a message that was not completed in time.
func (c *collector) expire(now time.Time) {
	if c != nil && c.total > 0 && !now.Before(c.expires) {
		*c = collector{}
	}
}

// buffered is what is kept, in octets.
func (c *collector) buffered() int {
	if c == nil {
		return 0
	}
	return c.octets
}

// Buffered is what the SA keeps of messages of a peer that is not authenticated, in octets.
func (s *SA) Buffered() int {
	n := s.requests.buffered() + s.responses.buffered()
	if s.hs != nil {
		n += s.hs.octets
	}
	return n
}
