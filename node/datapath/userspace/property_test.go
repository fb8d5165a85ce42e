package userspace

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/e2e/lab/labtest"
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
	l := labtest.New(t, "bwdpk-")
	ways := []*way{
		{name: wayOut, bench: newPropertyBench(t, l, wayOut, spd.Out)},
		{name: wayIn, bench: newPropertyBench(t, l, wayIn, spd.In)},
		{name: wayForward, bench: newPropertyBench(t, l, wayForward, spd.Out)},
	}
	ways[2].bench.routes(t)
	c := comparison{fates: map[string]int{}, compile: compiled}
	for range rounds {
		rapid.Check(t, func(t *rapid.T) { c.run(t, ways) })
		if c.found != nil {
			t.Fatal(c.explain())
		}
	}
	t.Logf("%d packets under %d policies of up to %d filters, by way and fate: %v", c.serial, c.policies, c.filters, c.fates)
	for _, f := range []string{
		"out pass", "out protect", "out drop", "in pass", "in drop", "forward pass", "forward protect", "forward drop",
		"out pass in pieces", "out protect in pieces", "in pass in pieces", "forward pass in pieces", "forward protect in pieces",
		"out pass extended", "out protect extended", "in pass extended", "forward pass extended", "forward protect extended",
		"out lost", "in lost", "forward lost",
		"out by a rule for remote-access", "in by a rule for remote-access", "forward by a rule for remote-access",
	} {
		if c.fates[f] == 0 {
			t.Errorf("no packet was %s: the test proves less than it says", f)
		}
	}
}

func compiled(e example) (steering.Ruleset, error) {
	set, err := spd.Expand(e.policy, e.facts)
	return steering.Compile(set, testParams), err
}

// routes makes the host a gateway.
func (b *bench) routes(t *testing.T) {
	t.Helper()
	for _, key := range []string{"net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"} {
		if _, err := b.host.Run("sysctl", "-qw", key); err != nil {
			t.Fatal(err)
		}
	}
	for _, conf := range []string{"all", "eth0", DefaultName} {
		for _, key := range []string{"rp_filter", "send_redirects"} {
			if _, err := b.host.Run("sysctl", "-qw", "net.ipv4.conf."+conf+"."+key+"=0"); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// comparison counts what was compared, and keeps the first example that the kernel and the definition do not agree on.
type comparison struct {
	compile           func(example) (steering.Ruleset, error) // what is put into force for it
	serial            uint32
	policies, filters int
	fates             map[string]int
	found             *found
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

// crafting is a packet, with what it looks like and the state that the kernel is in when it comes.
type crafting struct {
	packet spd.Packet
	shape  shape
	state  spd.State
}

// example is what a run of the test is about.
type example struct {
	policy spd.Policy
	facts  spd.Facts
	sent   []crafting
}

// GoString keeps rapid from printing it: what failed tells what matters.
func (e example) GoString() string {
	return fmt.Sprintf("%d rules, addresses %v", len(e.policy.Rules), e.facts.Addresses)
}

func craftings() *rapid.Generator[crafting] {
	return rapid.Custom(func(t *rapid.T) crafting {
		return crafting{
			packet: spdtest.Packet().Draw(t, "packet"), shape: shapes().Draw(t, "shape"),
			state: rapid.SampledFrom([]spd.State{spd.StateNone, spd.StateSoft, spd.StateSecured}).Draw(t, "state"),
		}
	})
}

func examples() *rapid.Generator[example] {
	return rapid.Custom(func(t *rapid.T) example {
		return example{
			facts: spdtest.Facts().Draw(t, "facts"), policy: policyOf(t),
			sent: rapid.SliceOfN(craftings(), packets, packets).Draw(t, "packets"),
		}
	})
}

func (c *comparison) run(t *rapid.T, ways []*way) {
	e := examples().Draw(t, "example")
	if c.found != nil {
		return
	}
	c.policies++
	for _, w := range ways {
		why, err := c.mismatch(w, e)
		if err != nil {
			t.Fatal(err)
		}
		if why != "" {
			c.found = &found{way: w, example: e, why: why}
			return
		}
	}
}

// mismatch plays an example on a way, and tells what the kernel makes of it that the definition does not.
func (c *comparison) mismatch(w *way, e example) (string, error) {
	set, err := spd.Expand(e.policy, e.facts)
	if err != nil {
		return "", err
	}
	c.filters = max(c.filters, len(set.Filters()))
	rules, err := c.compile(e)
	if err != nil {
		return "", err
	}
	if err := w.bench.table.Replace(rules, true, nil); err != nil {
		return "", err
	}
	// What leaves for a group comes in as well, and is counted there: it goes first.
	for _, groups := range []bool{true, false} {
		before, want := w.bench.table.Counters(), map[string]uint64{}
		for _, s := range e.sent {
			// One card, no loopback: those are cases of the contract suite.
			p := s.packet
			p.Interfaces, p.Loopback = classOf(e.facts), false
			p.Own = p.Own && w.name == wayOut
			p.Unknown = w.name == wayIn && !slices.Contains(e.facts.Addresses, p.Destination)
			if m := set.Lookup(w.direction(), p); m.Group != groups || !w.testable(p) {
				continue
			}
			c.serial++
			pieces, lost := crafted(p, s.shape, c.serial)
			if why, err := c.compare(w, set, s, p, pieces, lost); why != "" || err != nil {
				return why, err
			}
			if lost {
				continue
			}
			for _, m := range w.verdict(set, p, spd.StateNone).by {
				if m.Filter != nil {
					want[steering.Counter(m.Filter)]++
				}
			}
		}
		if !groups {
			if why := w.miscounted(before, want); why != "" {
				return why, nil
			}
		}
	}
	return "", nil
}

// classOf is the class of the only card.
func classOf(f spd.Facts) spd.Interfaces {
	if slices.ContainsFunc(f.RemoteInterfaces, func(pattern string) bool { return spd.NamesInterface(pattern, "eth0") }) {
		return spd.InterfacesRemoteAccess
	}
	return spd.InterfacesLAN
}

// compare sends one packet and holds its fate against the definition.
func (c *comparison) compare(w *way, set spd.Set, s crafting, p spd.Packet, pieces [][]byte, lost bool) (string, error) {
	v := w.verdict(set, p, s.state)
	d := w.direction()
	granted := spd.StateNone
	var err error
	if w.name != wayForward {
		if granted, err = w.bench.grant(d, v.by[0], p, s.state); err != nil {
			return "", err
		}
		v = w.verdict(set, p, granted)
	}
	got, err := w.fate(p, c.serial, pieces)
	if err != nil {
		return "", fmt.Errorf("%s: %w", describe(w.name, p, s.shape), err)
	}
	if lost {
		c.fates[w.name+" lost"]++
		v.fate = spd.Drop
	}
	c.fates[w.name+" "+v.fate.String()]++
	if m := v.by[0]; set.Limited() && p.Interfaces == spd.InterfacesRemoteAccess && m.Rule != nil {
		c.fates[w.name+" by a rule for "+m.Rule.Interfaces.String()]++
	}
	if s.shape.pieces() {
		c.fates[w.name+" "+v.fate.String()+" in pieces"]++
	}
	if s.shape.extended() {
		c.fates[w.name+" "+v.fate.String()+" extended"]++
	}
	if got != v.fate {
		return fmt.Sprintf("kernel says %s, want %s in state %s by\n%s", got, v.fate, granted, named(v.by)), nil
	}
	if w.name != wayForward {
		return "", w.bench.take(d, v.by[0], p, granted)
	}
	return "", nil
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
		v.fate = wanted(set, d, m, p, s)
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

// miscounted compares what the rules have counted since before with what the definition names.
func (w *way) miscounted(before, want map[string]uint64) string {
	now := w.bench.table.Counters()
	for name, n := range now {
		if !strings.HasPrefix(name, "filter/") && !strings.HasPrefix(name, "exempt/") {
			continue
		}
		if got := n - before[name]; got != want[name] {
			return fmt.Sprintf("%d packets are counted under %s, want %d", got, name, want[name])
		}
	}
	for name, n := range want {
		if _, ok := now[name]; !ok {
			return fmt.Sprintf("the kernel has no counter %s, want %d packets", name, n)
		}
	}
	return ""
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

// fate gives the kernel the pieces of a packet, and tells what became of them.
func (w *way) fate(p spd.Packet, serial uint32, pieces [][]byte) (spd.Fate, error) {
	b := w.bench
	for _, pkt := range pieces {
		if w.name == wayOut {
			b.send(p, pkt)
		} else if err := b.card.Queue(0).Write(tun.Header{}, pkt); err != nil {
			return 0, err
		}
	}
	if w.name == wayIn {
		return b.entered()
	}
	return b.left(func(octets []byte) bool { return isOf(p, serial, octets) })
}

// wanted is the verdict of the tables, as the kernel shows it: what the packet thread decides about goes to the TUN.
func wanted(set spd.Set, d spd.Direction, m spd.Match, p spd.Packet, s spd.State) spd.Fate {
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
		// Who makes the SA goes by the address, so an interface of another class is none to leave by.
		if set.Limited() && set.Owns(p.Source) && set.Class(p.Source) != p.Interfaces {
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
func (b *bench) grant(d spd.Direction, m spd.Match, p spd.Packet, s spd.State) (spd.State, error) {
	if m.Action != spd.ActionNegotiate || m.Rule.Tunnel.IsValid() || m.Rule.Action.Fallback.Mode == spd.FallbackNone {
		return spd.StateNone, nil
	}
	set, ttl := steering.SoftSet(m.Rule.ID, d, p.Source.Is6()), time.Hour
	if s == spd.StateSecured {
		set, ttl = steering.SecuredSet(m.Rule.ID, p.Source.Is6()), 0
	}
	if s == spd.StateNone || s == spd.StateSecured && m.Rule.Action.Fallback.Mode != spd.FallbackDiscover {
		return spd.StateNone, nil
	}
	return s, b.table.Add(set, pairOf(d, p), ttl)
}

func (b *bench) take(d spd.Direction, m spd.Match, p spd.Packet, s spd.State) error {
	var set steering.Set
	switch s {
	case spd.StateSoft:
		set = steering.SoftSet(m.Rule.ID, d, p.Source.Is6())
	case spd.StateSecured:
		set = steering.SecuredSet(m.Rule.ID, p.Source.Is6())
	default:
		return nil
	}
	return b.table.Remove(set, pairOf(d, p))
}
