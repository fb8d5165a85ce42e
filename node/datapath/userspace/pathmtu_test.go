package userspace

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/datapath"
	"github.com/bailiwick-net/bailiwick/node/esp"
	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// path carries probes up to a length; its routers tell of the others with icmp.
type path struct {
	mtu    int
	icmp   bool
	silent bool // nobody answers
}

// search runs one search at a time and returns when it ended.
func (w path) search(t *testing.T, p *pathMTU, now time.Time) time.Time {
	t.Helper()
	if !p.begin(now) {
		t.Fatal("search did not begin")
	}
	for range 100 {
		for _, size := range p.round(now) {
			switch {
			case size > p.device:
				t.Fatalf("probe of %d octets over an interface of %d", size, p.device)
			case size > w.mtu && w.icmp:
				p.told(w.mtu, now)
			case size <= w.mtu && !w.silent:
				p.answered(size, now)
			}
		}
		if !p.search.active {
			return now
		}
		now = now.Add(probeEvery)
	}
	t.Fatal("search did not end")
	return now
}

func TestPathMTUIsFound(t *testing.T) {
	begin := time.Unix(1000, 0)
	for _, c := range []struct {
		name   string
		path   path
		v6     bool
		device int
		want   int
		within time.Duration
	}{
		{"as good as the first link", path{mtu: 1500}, false, 1500, 1500, 0},
		{"jumbo frames", path{mtu: 9000}, false, 9000, 9000, 0},
		{"a router tells", path{mtu: 1437, icmp: true}, false, 1500, 1437, probeRounds * probeEvery},
		{"a black hole", path{mtu: 1437}, false, 1500, 1420, probeRounds * probeEvery},
		{"a black hole of IPv6", path{mtu: 1280}, true, 1500, 1280, probeRounds * probeEvery},
		{"a black hole behind jumbo frames", path{mtu: 1500}, true, 9000, 1500, probeRounds * probeEvery},
		{"a router tells, nobody answers", path{mtu: 1400, icmp: true, silent: true}, true, 1500, 1400, probeRounds * probeEvery},
		{"nobody says anything", path{mtu: 1400, silent: true}, false, 1500, 1500, probeRounds * probeEvery},
		{"a lie", path{mtu: 68, icmp: true, silent: true}, false, 1500, leastMTU4, probeRounds * probeEvery},
		{"a lie about IPv6", path{mtu: 68, icmp: true, silent: true}, true, 1500, leastMTU6, probeRounds * probeEvery},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPathMTU(c.device, c.v6)
			end := c.path.search(t, &p, begin)
			if p.known != c.want || end.Sub(begin) > c.within {
				t.Errorf("found %d after %s, want %d within %s", p.known, end.Sub(begin), c.want, c.within)
			}
			if p.begin(end.Add(raiseAfter - time.Second)) {
				t.Error("another search begins before its time")
			}
		})
	}
}

func TestPathMTUFollowsThePath(t *testing.T) {
	now := time.Unix(1000, 0)
	p := newPathMTU(1500, true)
	now = path{mtu: 1500}.search(t, &p, now)
	now = path{mtu: 1340}.search(t, &p, now.Add(raiseAfter))
	if p.known != 1340 {
		t.Errorf("the path became shorter: got %d, want 1340", p.known)
	}
	wantSource(t, &p, datapath.PathProbe)
	now = path{mtu: 1460}.search(t, &p, now.Add(raiseAfter))
	if p.known != 1460 {
		t.Errorf("the path became longer: got %d, want 1460", p.known)
	}
	wantSource(t, &p, datapath.PathProbe)
	p.told(1300, now)
	wantSource(t, &p, datapath.PathICMP)
	if p.told(1400, now) || p.known != 1300 {
		t.Errorf("a router raised the path MTU to %d", p.known)
	}
	path{mtu: 1500}.search(t, &p, now.Add(raiseAfter))
	if p.known != 1500 {
		t.Errorf("the path is as it was: got %d, want 1500", p.known)
	}
	wantSource(t, &p, datapath.PathLink)
}

func wantSource(t *testing.T, p *pathMTU, want datapath.PathSource) {
	t.Helper()
	if got := p.from(); got != want {
		t.Errorf("a path MTU of %d comes from %s, want %s", p.known, got, want)
	}
}

func TestWordOfARouterAges(t *testing.T) {
	now := time.Unix(1000, 0)
	p := newPathMTU(1500, false)
	wantSource(t, &p, datapath.PathLink)
	p.told(1400, now)
	wantSource(t, &p, datapath.PathICMP)
	if p.age(now.Add(raiseAfter-time.Second)) || p.known != 1400 {
		t.Errorf("the word of a router was forgotten early, known is %d", p.known)
	}
	if !p.age(now.Add(raiseAfter)) || p.known != 1500 {
		t.Errorf("the word of a router counts for ever, known is %d", p.known)
	}
	wantSource(t, &p, datapath.PathLink)
}

func TestProbesOfOneRoundDiffer(t *testing.T) {
	now := time.Unix(1000, 0)
	p := newPathMTU(65535, false)
	p.told(1437, now)
	p.begin(now)
	for range probeRounds {
		sizes := p.round(now)
		if sorted := slices.IsSortedFunc(sizes, func(a, b int) int { return b - a }); !sorted || len(slices.Compact(slices.Clone(sizes))) != len(sizes) {
			t.Errorf("round is %v, want falling lengths", sizes)
		}
		if len(sizes) > 1 && !slices.Contains(sizes, 1437) {
			t.Errorf("round %v leaves out what a router told", sizes)
		}
		if len(sizes) > len(probing{}.sizes) {
			t.Errorf("round has %d probes, more than are remembered", len(sizes))
		}
		now = now.Add(probeEvery)
	}
}

// Who does not see our packets must not be able to change what we believe of a path.
func TestOnlyQuotesOfOurPacketsCount(t *testing.T) {
	child := sa.Child{
		Mode: sa.Transport, Encap: true, Suite: proposal.ESP{Encryption: proposal.EncrAESGCM16, KeyBits: 128},
		Local: netip.MustParseAddrPort("192.0.2.1:4500"), Remote: netip.MustParseAddrPort("192.0.2.2:4501"),
		In: sa.Keys{SPI: 0x2001, Encryption: sa.NewSecret(make([]byte, 20))}, Out: sa.Keys{SPI: 0x1001, Encryption: sa.NewSecret(make([]byte, 20))},
	}
	good := packet.QuotedESP{SPI: 0x1001, Sequence: 1, Source: child.Local, Destination: child.Remote, Encap: true}
	for _, c := range []struct {
		name   string
		change func(*packet.QuotedESP)
		want   int
	}{
		{"ours", func(*packet.QuotedESP) {}, 1400},
		{"another SPI", func(q *packet.QuotedESP) { q.SPI++ }, 1500},
		{"the SPI of the other direction", func(q *packet.QuotedESP) { q.SPI = 0x2001 }, 1500},
		{"a number that was not sent yet", func(q *packet.QuotedESP) { q.Sequence = 2 }, 1500},
		{"a number of long ago", func(q *packet.QuotedESP) { q.Sequence -= 1 << 17 }, 1500},
		{"another source", func(q *packet.QuotedESP) { q.Source = child.Remote }, 1500},
		{"another destination", func(q *packet.QuotedESP) { q.Destination = child.Local }, 1500},
		{"another port", func(q *packet.QuotedESP) { q.Destination = netip.AddrPortFrom(child.Remote.Addr(), 4500) }, 1500},
		{"not in UDP", func(q *packet.QuotedESP) { q.Encap = false }, 1500},
	} {
		out, err := esp.NewOutbound(child)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.Seal(nil, packet.AppendEcho(nil, packet.Echo{Source: child.Local.Addr(), Destination: child.Remote.Addr()}, 100)); err != nil {
			t.Fatal(err)
		}
		a := &association{child: child, remote: child.Remote, out: out, path: newPathMTU(1500, false)}
		a.setPath()
		l := &loop{world: &world{sadb: newSADB()}, now: time.Unix(1000, 0)}
		l.sadb.children[child.In.SPI] = a
		q := good
		c.change(&q)
		if err := (tooBig{q, 1400}).run(l); err != nil || a.path.known != c.want || a.limit != out.MaxPacket(c.want, false) {
			t.Errorf("%s: path MTU is %d and the limit %d after %v, want %d and %d", c.name, a.path.known, a.limit, err, c.want, out.MaxPacket(c.want, false))
		}
	}
}
