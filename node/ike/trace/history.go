package trace

import (
	"container/list"
	"net/netip"
	"slices"
	"strings"

	"github.com/bailiwick-net/bailiwick/node/ike"
)

// The bounds of a history. A line takes about 250 octets.
const (
	// LimitLines bounds the lines of one peer, LimitFailures those of its failures, which outlive them.
	LimitLines    = 128
	LimitFailures = 16
	// LimitPeers bounds the peers of which something is kept, LimitStrangers those that nobody asked for and that have
	// not authenticated.
	LimitPeers     = 8192
	LimitStrangers = 256
	// LimitStateless bounds the lines that belong to no IKE SA, of all peers together.
	LimitStateless = 256
	// LimitTotal bounds the lines of all peers together; those of the peers that were quiet the longest go first.
	LimitTotal = 65536
	limitNames = 4
	// firstLines is room for what happens until an association is up.
	firstLines = 16
)

// History keeps the latest lines for each peer. Liveness checks are left out, so that the reason of a failure is still
// there when the association has been up again for hours. It is not safe for concurrent use.
type History struct {
	peers     map[netip.Addr]*peer
	known     list.List // of *peer, the quietest first
	strangers list.List
	stateless ring
	total     int
	seq       uint64
}

// peer is what is kept of one address.
type peer struct {
	addr     netip.Addr
	names    []string // by which it authenticated, the latest last
	lines    ring
	failures ring
	known    bool
	place    *list.Element
}

// NewHistory returns an empty history.
func NewHistory() *History { return &History{peers: make(map[netip.Addr]*peer)} }

// Add keeps a record and gives it its place in the order.
func (h *History) Add(r Record) Record {
	h.seq++
	r.seq = h.seq
	if r.Routine {
		return r
	}
	addr := r.Remote.Addr().Unmap().WithZone("")
	if r.IKE == 0 && !r.Known || !addr.IsValid() {
		h.stateless.push(r, LimitStateless)
		return r
	}
	p := h.peers[addr]
	if p == nil {
		p = &peer{addr: addr}
		p.place = h.strangers.PushBack(p)
		h.peers[addr] = p
	}
	h.touch(p, r.Known)
	if r.Peer != "" && !slices.Contains(p.names, r.Peer) {
		if len(p.names) >= limitNames {
			p.names = slices.Delete(p.names, 0, 1)
		}
		p.names = append(p.names, r.Peer)
	}
	h.total += p.lines.push(r, LimitLines)
	if r.Kind == ike.TraceFailed {
		h.total += p.failures.push(r, LimitFailures)
	}
	h.bound()
	return r
}

// touch makes p the latest of its list, which is that of known peers once it was known.
func (h *History) touch(p *peer, known bool) {
	switch {
	case p.known:
		h.known.MoveToBack(p.place)
	case known:
		h.strangers.Remove(p.place)
		p.known, p.place = true, h.known.PushBack(p)
	default:
		h.strangers.MoveToBack(p.place)
	}
}

func (h *History) bound() {
	for h.strangers.Len() > LimitStrangers {
		h.forget(&h.strangers)
	}
	for h.known.Len() > LimitPeers {
		h.forget(&h.known)
	}
	if h.total <= LimitTotal {
		return
	}
	// More than is needed, so that this is seldom. What failed stays.
	for e := h.known.Front(); h.total > LimitTotal*7/8 && e != nil; e = e.Next() {
		if p, ok := e.Value.(*peer); ok {
			h.total -= p.lines.drop()
		}
	}
	for h.total > LimitTotal*7/8 && h.known.Len() > 0 {
		h.forget(&h.known)
	}
}

func (h *History) forget(from *list.List) {
	e := from.Front()
	from.Remove(e)
	if p, ok := e.Value.(*peer); ok {
		h.total -= p.lines.len() + p.failures.len()
		delete(h.peers, p.addr)
	}
}

// Records are the records that a filter lets pass, in their order.
func (h *History) Records(f Filter) []Record {
	var all []Record
	add := func(r Record) {
		if f.Matches(r, h.names(r)) {
			all = append(all, r)
		}
	}
	h.stateless.each(add)
	for _, p := range h.peers {
		p.lines.each(add)
		p.failures.each(add)
	}
	slices.SortFunc(all, func(a, b Record) int {
		if a.seq < b.seq {
			return -1
		}
		return min(int(a.seq-b.seq), 1)
	})
	return slices.CompactFunc(all, func(a, b Record) bool { return a.seq == b.seq })
}

// names are the identities by which the peer of a record has authenticated.
func (h *History) names(r Record) []string {
	if p := h.peers[r.Remote.Addr().Unmap().WithZone("")]; p != nil {
		return p.names
	}
	return nil
}

// Filter tells which records are wanted: those of which one of the conditions holds, all of them without any condition.
type Filter struct {
	Names     []string     // identity of the peer, or its first label
	Addresses []netip.Addr // of the peer
	IKE       []ike.IKESPI // own SPIs
	Mention   string       // occurs in the text
}

// Empty reports whether everything is wanted.
func (f Filter) Empty() bool {
	return len(f.Names) == 0 && len(f.Addresses) == 0 && len(f.IKE) == 0 && f.Mention == ""
}

// Matches reports whether a record is wanted. names are the identities by which its peer has authenticated before.
func (f Filter) Matches(r Record, names []string) bool {
	if f.Empty() || slices.Contains(f.Addresses, r.Remote.Addr().Unmap().WithZone("")) || r.IKE != 0 && slices.Contains(f.IKE, r.IKE) {
		return true
	}
	for _, want := range f.Names {
		if sameName(want, r.Peer) || slices.ContainsFunc(names, func(n string) bool { return sameName(want, n) }) {
			return true
		}
	}
	return f.Mention != "" && r.Text != nil && strings.Contains(r.Text.String(), f.Mention)
}

func sameName(want, have string) bool {
	if have == "" {
		return false
	}
	label, _, _ := strings.Cut(have, ".")
	return strings.EqualFold(want, have) || strings.EqualFold(want, label)
}

// ring keeps the latest records.
type ring struct {
	records []Record
	start   int
}

func (q *ring) len() int { return len(q.records) }

// push adds a record in the place of the oldest when there are limit; it returns by how many there are more.
func (q *ring) push(r Record, limit int) int {
	if len(q.records) < limit {
		if q.start != 0 { // it was full once, with another limit
			q.records, q.start = slices.Concat(q.records[q.start:], q.records[:q.start]), 0
		}
		if q.records == nil {
			q.records = make([]Record, 0, min(limit, firstLines))
		}
		q.records = append(q.records, r)
		return 1
	}
	q.records[q.start] = r
	q.start = (q.start + 1) % len(q.records)
	return 0
}

// drop forgets everything and returns how much that was.
func (q *ring) drop() int {
	n := len(q.records)
	*q = ring{}
	return n
}

func (q *ring) each(f func(Record)) {
	for i := range q.records {
		f(q.records[(q.start+i)%len(q.records)])
	}
}
