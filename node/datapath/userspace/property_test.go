package userspace

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/node/datapath/nftable"
	"github.com/bailiwick-net/bailiwick/node/datapath/userspace/steering"
	"github.com/bailiwick-net/bailiwick/node/tun"
	"github.com/bailiwick-net/bailiwick/policies/spd"
	"github.com/bailiwick-net/bailiwick/policies/spd/spdtest"
)

// The ways of a packet through the kernel.
const (
	wayOut     = "out"
	wayIn      = "in"
	wayForward = "forward"
)

// rounds times what rapid runs by default (100) are run, each with packets on three ways.
const (
	rounds  = 5
	packets = 16
)

// way is one of them, with the host whose kernel is asked.
type way struct {
	name  string
	bench *bench
}

// verdict is what the definition says of a packet on a way.
type verdict struct {
	fate spd.Fate
	by   []spd.Match // the lookups, in the order in which the kernel makes them
}

// TestKernelAgreesWithLookup compares the kernel with the definition: random policies, random packets that go out, come
// in and are forwarded. The kernel has to do what the definition says, and to count the packet under the very filter that
// the definition names. "make steering" runs more of it.
func TestKernelAgreesWithLookup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	l, err := lab.New("bwdpk-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	ways := []*way{
		{name: wayOut, bench: newNamedBench(t, l, wayOut, spd.Out)},
		{name: wayIn, bench: newNamedBench(t, l, wayIn, spd.In)},
		{name: wayForward, bench: newNamedBench(t, l, wayForward, spd.Out)},
	}
	ways[2].bench.routes(t)
	c := comparison{fates: map[string]int{}}
	for range rounds {
		rapid.Check(t, func(t *rapid.T) { c.run(t, ways) })
	}
	t.Logf("%d packets under %d policies of up to %d filters, by way and fate: %v", c.serial, c.policies, c.filters, c.fates)
	for _, f := range []string{"out pass", "out protect", "out drop", "in pass", "in drop", "forward pass", "forward protect", "forward drop"} {
		if c.fates[f] == 0 {
			t.Errorf("no packet was %s: the test proves less than it says", f)
		}
	}
}

// routes makes the host a gateway.
func (b *bench) routes(t *testing.T) {
	t.Helper()
	for _, key := range []string{"net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"} {
		if _, err := b.host.Run("sysctl", "-qw", key); err != nil {
			t.Fatal(err)
		}
	}
	// A router tells of better ways, and its own packets would be counted.
	quiet := "add table inet quiet { chain own { type filter hook output priority raw; icmpv6 type nd-redirect drop; }; }"
	if _, err := b.host.Run("nft", quiet); err != nil {
		t.Fatal(err)
	}
	for _, conf := range []string{"all", "eth0", DefaultName} {
		for _, key := range []string{"rp_filter", "send_redirects"} {
			if _, err := b.host.Run("sysctl", "-qw", "net.ipv4.conf."+conf+"."+key+"=0"); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// comparison counts what was compared.
type comparison struct {
	serial            uint32
	policies, filters int
	fates             map[string]int
}

// policyOf joins the rules of several policies: trees are worth their name with many filters only.
func policyOf(t *rapid.T) spd.Policy {
	out := spdtest.Policy().Draw(t, "policy")
	for i := range rapid.SampledFrom([]int{0, 0, 1, 3, 8}).Draw(t, "more policies") {
		more := spdtest.Policy().Draw(t, fmt.Sprint("policy ", i+2))
		for _, r := range more.Rules {
			r.ID = fmt.Sprintf("p%d.%s", i+2, r.ID)
			for j := range r.Filters {
				r.Filters[j].ID = fmt.Sprintf("p%d.%s", i+2, r.Filters[j].ID)
			}
			out.Rules = append(out.Rules, r)
		}
	}
	return out
}

// example is what a run of the test is about.
type example struct {
	facts   spd.Facts
	set     spd.Set
	packets []spd.Packet
	states  []spd.State
}

// GoString keeps rapid from printing it: what failed tells what matters.
func (e example) GoString() string {
	return fmt.Sprintf("%d filters, addresses %v", len(e.set.Filters()), e.facts.Addresses)
}

func examples() *rapid.Generator[example] {
	return rapid.Custom(func(t *rapid.T) example {
		e := example{facts: spdtest.Facts().Draw(t, "facts")}
		var err error
		if e.set, err = spd.Expand(policyOf(t), e.facts); err != nil {
			t.Fatal(err)
		}
		e.packets = rapid.SliceOfN(spdtest.Packet(), packets, packets).Draw(t, "packets")
		e.states = rapid.SliceOfN(rapid.SampledFrom([]spd.State{spd.StateNone, spd.StateSoft, spd.StateSecured}), packets, packets).Draw(t, "states")
		return e
	})
}

func (c *comparison) run(t *rapid.T, ways []*way) {
	e := examples().Draw(t, "example")
	rules := steering.Compile(e.set, testParams)
	c.policies, c.filters = c.policies+1, max(c.filters, len(e.set.Filters()))
	for _, w := range ways {
		if err := w.bench.table.Replace(rules, true, nil); err != nil {
			t.Fatal(err)
		}
		// What leaves for a group comes in as well, and is counted there: it goes first.
		for _, groups := range []bool{true, false} {
			before, want := w.bench.table.Counters(), map[string]uint64{}
			for i, p := range e.packets {
				// One card, no loopback: those are cases of the contract suite.
				p.Interfaces, p.Loopback = spd.InterfacesAll, false
				p.Own = p.Own && w.name == wayOut
				p.Unknown = w.name == wayIn && !slices.Contains(e.facts.Addresses, p.Destination)
				if m := e.set.Lookup(w.direction(), p); m.Group != groups || !w.testable(p) {
					continue
				}
				c.compare(t, w, e.set, p, e.states[i])
				for _, m := range w.verdict(e.set, p, spd.StateNone).by {
					if m.Filter != nil {
						want[steering.Counter(m.Filter)]++
					}
				}
			}
			if !groups {
				w.wantCounted(t, e.set, before, want)
			}
		}
	}
}

// compare sends one packet and holds its fate against the definition.
func (c *comparison) compare(t *rapid.T, w *way, set spd.Set, p spd.Packet, state spd.State) {
	c.serial++
	v := w.verdict(set, p, state)
	d := w.direction()
	granted := spd.StateNone
	if w.name != wayForward {
		granted = w.bench.grant(t, d, v.by[0], p, state)
		v = w.verdict(set, p, granted)
	}
	got, err := w.fate(p, octets(p, c.serial))
	if err != nil {
		t.Fatal(err)
	}
	c.fates[w.name+" "+v.fate.String()]++
	if got != v.fate {
		t.Fatalf("%s: kernel says %s, want %s in state %s by\n%s\nThe filters:\n%s",
			describe(w.name, p), got, v.fate, granted, named(v.by), listed(set))
	}
	if w.name != wayForward {
		w.bench.take(t, d, v.by[0], p, granted)
	}
}

func (w *way) direction() spd.Direction {
	if w.name == wayIn {
		return spd.In
	}
	return spd.Out
}

// verdict is what the definition says. What is forwarded is outbound towards the far side and inbound from it.
func (w *way) verdict(set spd.Set, p spd.Packet, s spd.State) verdict {
	d := w.direction()
	m := set.Lookup(d, p)
	v := verdict{by: []spd.Match{m}}
	if w.name != wayForward {
		v.fate = wanted(d, m, p, s)
		return v
	}
	switch {
	case m.Action == spd.ActionNegotiate && m.Rule.Tunnel.IsValid() && !m.Group:
		v.fate = spd.Protect
	case m.Action == spd.ActionPermit:
		in := set.Lookup(spd.In, p)
		v.by, v.fate = append(v.by, in), spd.Inbound(in, spd.StateNone, false).Fate
	}
	return v
}

// wantCounted compares what the rules have counted since before with what the definition names.
func (w *way) wantCounted(t *rapid.T, set spd.Set, before, want map[string]uint64) {
	now := w.bench.table.Counters()
	for name, n := range now {
		if !strings.HasPrefix(name, "filter/") && !strings.HasPrefix(name, "exempt/") {
			continue
		}
		switch strings.TrimPrefix(name, "exempt/") {
		case spd.ExemptNeighbour, spd.ExemptListener, spd.ExemptMulticast:
			continue // neighbour and listener discovery of the kernel itself goes on beside the test
		}
		if got := n - before[name]; got != want[name] {
			t.Fatalf("%s: %d packets are counted under %s, want %d\nThe filters:\n%s", w.name, got, name, want[name], listed(set))
		}
	}
	for name, n := range want {
		if _, ok := now[name]; !ok {
			t.Fatalf("%s: the kernel has no counter %s, want %d packets\nThe filters:\n%s", w.name, name, n, listed(set))
		}
	}
}

// describe prints a packet in one line.
func describe(way string, p spd.Packet) string {
	s := fmt.Sprintf("%s packet %s -> %s protocol %d", way, p.Source, p.Destination, p.Protocol)
	switch {
	case spd.HasPorts(p.Protocol):
		s += fmt.Sprintf(" ports %d -> %d", p.SourcePort, p.DestinationPort)
	case p.Protocol == spd.ProtocolICMP || p.Protocol == spd.ProtocolICMPv6:
		s += fmt.Sprintf(" type %d code %d", p.ICMPType, p.ICMPCode)
	}
	for _, flag := range []struct {
		set  bool
		name string
	}{{p.Opens, "SYN"}, {p.Own, "own"}, {p.Unknown, "of an address that the policy does not know"}} {
		if flag.set {
			s += ", " + flag.name
		}
	}
	return s
}

func named(by []spd.Match) string {
	var lines []string
	for _, m := range by {
		line := "  no filter: " + m.Action.String()
		if m.Filter != nil {
			line = "  " + m.Filter.String()
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// listed prints the filters of the rules in their order.
func listed(set spd.Set) string {
	var b strings.Builder
	for _, f := range set.Filters() {
		if f.Exempt == "" {
			fmt.Fprintln(&b, " ", f.String())
		}
	}
	return b.String()
}

// testable tells packets that reach the hooks: the kernel drops martians before it asks anybody.
func (w *way) testable(p spd.Packet) bool {
	loopback := p.Source.IsLoopback() || p.Destination.IsLoopback()
	badSource := p.Source.IsMulticast() || p.Source == broadcast
	if loopback || badSource {
		return false
	}
	quotes := p.Protocol == spd.ProtocolICMP && p.ICMPType == 3 || p.Protocol == spd.ProtocolICMPv6 && p.ICMPType < 128
	switch w.name {
	case wayIn:
		return slices.Contains(own, p.Destination)
	case wayForward: // and what a router does not forward
		if p.Destination.IsMulticast() || p.Destination == broadcast || p.Source.IsLinkLocalUnicast() || p.Destination.IsLinkLocalUnicast() {
			return false
		}
	}
	return !quotes // what an ICMP error quotes counts as well: TestICMPErrorsDoNotQuoteProtectedPackets
}

func (w *way) fate(p spd.Packet, pkt []byte) (spd.Fate, error) {
	switch w.name {
	case wayIn:
		return w.bench.in(pkt)
	case wayForward:
		return w.bench.through(pkt)
	}
	return w.bench.out(p, pkt)
}

// through gives the kernel a packet that it has to forward.
func (b *bench) through(pkt []byte) (spd.Fate, error) {
	if err := b.card.Queue(0).Write(tun.Header{}, pkt); err != nil {
		return 0, err
	}
	return b.left(pkt)
}

// wanted is the verdict of the tables, as the kernel shows it: what the packet thread decides about goes to the TUN.
func wanted(d spd.Direction, m spd.Match, p spd.Packet, s spd.State) spd.Fate {
	if d == spd.In {
		return spd.Inbound(m, s, false).Fate
	}
	v := spd.Outbound(m, s)
	switch {
	case v.Fate == spd.Hold, v.Effect == spd.Acquire:
		// The kernel does not route link-local destinations to the TUN, and own packets never go through it.
		if p.Destination.IsLinkLocalUnicast() && p.Destination.Is6() || p.Own {
			return spd.Drop
		}
		return spd.Protect
	}
	return v.Fate
}

func pairOf(d spd.Direction, p spd.Packet) nftable.Pair {
	if d == spd.In {
		return nftable.Pair{Local: p.Destination, Remote: p.Source}
	}
	return nftable.Pair{Local: p.Source, Remote: p.Destination}
}

// grant brings the kernel into a state, if the rule of the packet has it, and returns the state it is in.
func (b *bench) grant(t *rapid.T, d spd.Direction, m spd.Match, p spd.Packet, s spd.State) spd.State {
	if m.Action != spd.ActionNegotiate || m.Rule.Tunnel.IsValid() || m.Rule.Action.Fallback.Mode == spd.FallbackNone {
		return spd.StateNone
	}
	set, ttl := steering.SoftSet(m.Rule.ID, d, p.Source.Is6()), time.Hour
	if s == spd.StateSecured {
		set, ttl = steering.SecuredSet(m.Rule.ID, p.Source.Is6()), 0
	}
	if s == spd.StateNone || s == spd.StateSecured && m.Rule.Action.Fallback.Mode != spd.FallbackDiscover {
		return spd.StateNone
	}
	if err := b.table.Add(set, pairOf(d, p), ttl); err != nil {
		t.Fatal(err)
	}
	return s
}

func (b *bench) take(t *rapid.T, d spd.Direction, m spd.Match, p spd.Packet, s spd.State) {
	var set steering.Set
	switch s {
	case spd.StateSoft:
		set = steering.SoftSet(m.Rule.ID, d, p.Source.Is6())
	case spd.StateSecured:
		set = steering.SecuredSet(m.Rule.ID, p.Source.Is6())
	default:
		return
	}
	if err := b.table.Remove(set, pairOf(d, p)); err != nil {
		t.Fatal(err)
	}
}
