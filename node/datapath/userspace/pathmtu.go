package userspace

import (
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/node/datapath"
)

// How path MTUs are found and forgotten.
const (
	// probeEvery is the time between two rounds of probes, and probeRounds how many there are before a length that
	// nobody answered counts as too long (RFC 8899 5.1.1 and 5.1.2: PROBE_TIMER, MAX_PROBES).
	probeEvery  = time.Second
	probeRounds = 4
	// raiseAfter is when longer packets are tried again (RFC 8899 5.1.1: PMTU_RAISE_TIMER), and how long the word of a
	// router counts where nobody answers probes (RFC 1191 6.3, RFC 8201 4: ten minutes).
	raiseAfter = 10 * time.Minute
	// The shortest path MTUs that are believed. Every link of IPv6 carries 1280 octets (RFC 8200 5), and every host takes
	// IPv4 packets of 576 (RFC 1122 3.3.2): less would let a forged message make connections crawl.
	leastMTU4 = 576
	leastMTU6 = 1280
)

// plateaus are common lengths of packets, among which an unknown path MTU is looked for (RFC 1191 7.1, with those of
// tunnels that have come since).
var plateaus = [...]int{
	32000, 17914, 9000, 8166, 4352, 2002, 1500, 1492, 1480, 1460, 1450, 1440, 1420, 1400, 1380, 1340, 1300, 1280, 1200, 1006, 576,
}

// pathMTU is what is known about how long the outer packets of an SA may be, in octets, IP header included. Packets do
// not depend on it to arrive over IPv4: they go without DF, and routers cut them. But it spares them that, and over IPv6
// nobody but the sender can. It is learnt from routers (ICMP), and from probes that the peer answers where routers keep
// silent (RFC 8899, with an echo inside the SA for a probe). It is a value of the packet thread, without a clock.
type pathMTU struct {
	v6      bool
	device  int // of the interface: nothing longer leaves in one piece
	known   int // what is believed to pass
	proven  int // what was seen to pass
	lowered time.Time
	source  datapath.PathSource // of known, where that is less than device
	search  search
}

// from tells where known comes from.
func (p *pathMTU) from() datapath.PathSource {
	if p.known >= p.device {
		return datapath.PathLink
	}
	return p.source
}

// search is one look for the path MTU.
type search struct {
	active bool
	rounds int       // that were sent
	next   time.Time // of the next round, or when inactive of the next search
	best   int       // longest that was answered
}

func newPathMTU(device int, v6 bool) pathMTU { return pathMTU{v6: v6, device: device, known: device} }

func (p *pathMTU) least() int {
	if p.v6 {
		return leastMTU6
	}
	return leastMTU4
}

// told is the word of a router about one of our packets. It reports whether anything changed.
func (p *pathMTU) told(mtu int, now time.Time) bool {
	mtu = max(mtu, p.least())
	if mtu >= p.known {
		return false // a router lowers only (RFC 8201 4)
	}
	p.known, p.lowered, p.source = mtu, now, datapath.PathICMP
	p.proven = min(p.proven, mtu)
	return true
}

// due reports whether a search may begin.
func (p *pathMTU) due(now time.Time) bool { return !p.search.active && !now.Before(p.search.next) }

// begin starts a search, unless one is under way or was not long ago.
func (p *pathMTU) begin(now time.Time) bool {
	if !p.due(now) {
		return false
	}
	p.search = search{active: true, next: now}
	return true
}

// round returns the lengths to probe now; none where it is not time. The search ends here.
func (p *pathMTU) round(now time.Time) []int {
	s := &p.search
	if !s.active || now.Before(s.next) {
		return nil
	}
	if s.rounds == probeRounds {
		p.end(now)
		return nil
	}
	s.rounds++
	s.next = now.Add(probeEvery)
	sizes := []int{p.device}
	if s.rounds == 1 {
		return sizes // most paths are as good as their first link
	}
	for _, n := range append(plateaus[:], p.known) {
		if n < p.device && n > s.best && n >= p.least() {
			sizes = append(sizes, n)
		}
	}
	slices.Sort(sizes)
	slices.Reverse(sizes)
	return slices.Compact(sizes)
}

// answered is a probe that arrived and came back. It reports whether more is known now.
func (p *pathMTU) answered(size int, now time.Time) bool {
	changed := size > p.known
	if changed {
		p.source = datapath.PathProbe
	}
	p.proven, p.known = max(p.proven, size), max(p.known, size)
	p.search.best = max(p.search.best, size)
	if p.search.active && size >= p.device {
		p.end(now)
	}
	return changed
}

// end draws the conclusion of a search.
func (p *pathMTU) end(now time.Time) {
	best := p.search.best
	p.search = search{next: now.Add(raiseAfter)}
	switch {
	case best > 0 && best < p.known: // the longer ones got lost every time
		p.known, p.lowered, p.source = best, now, datapath.PathProbe
	case best > 0:
	case p.stale(now): // nobody answers, and the path may have changed since
		p.known = p.device
	}
}

func (p *pathMTU) stale(now time.Time) bool {
	return p.known < p.device && now.Sub(p.lowered) >= raiseAfter
}

// age forgets what a router told long ago, where no search does. It reports whether anything changed.
func (p *pathMTU) age(now time.Time) bool {
	if p.search.active || p.proven > 0 || !p.stale(now) {
		return false
	}
	p.known = p.device
	return true
}
