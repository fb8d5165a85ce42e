package datapathtest

import (
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// short is how long a case waits for what must not come, long for what must, on a machine that does much else.
const (
	short = 300 * time.Millisecond
	long  = 20 * time.Second
)

// PartVariable in the environment has Run take a part of the cases, so that several machines share them: "2/3" is the
// second of three parts.
const PartVariable = "BAILIWICK_CONTRACT_PART"

// chosenPart is the part that the environment asks for.
func chosenPart(t *testing.T) (part, of int) {
	t.Helper()
	text, ok := os.LookupEnv(PartVariable)
	if !ok {
		return 1, 1
	}
	if _, err := fmt.Sscanf(text, "%d/%d", &part, &of); err != nil || part < 1 || part > of {
		t.Fatalf("%s is %q, want the number of a part, a slash, and the number of parts: %v", PartVariable, text, err)
	}
	return part, of
}

// Run runs the contract against a backend, in namespaces with a prefix.
func Run(t *testing.T, prefix string, factory Factory) {
	part, of := chosenPart(t)
	for i, c := range []struct {
		name string
		run  func(*testing.T, *World)
	}{
		{"permit passes in clear", permit},
		{"block drops", block},
		{"no policy permits", noPolicy},
		{"negotiate holds the first packet and asks once", holdsAndAsksOnce},
		{"clear traffic is refused where security is wanted", refuseClear},
		{"inpass accepts clear and secures the answer", acceptClear},
		{"fallback passes what waited, both ways, for a time", fallBack},
		{"fallback needs a rule that allows it", fallBackIsGranted},
		{"refuse drops what waits", refuse},
		{"an SA ends a soft association", softEndsWithAnSA},
		{"discovery is clear at once and never goes back", discovers},
		{"default response protects while it lives", defaultResponse},
		{"default response of one port", defaultResponseOfPorts},
		{"group addresses are never negotiated", groups},
		{"exemptions cannot be blocked", exemptions},
		{"first packets are not lost", firstPackets},
		{"queue of first packets is bounded", queueIsBounded},
		{"replayed packets are dropped", replay},
		{"tampered packets are dropped", tampered},
		{"packets outside the selectors are dropped", wrongSelectors},
		{"an SA carries nothing that is blocked", blockedInSA},
		{"rekey loses nothing", rekey},
		{"outbound half waits for the switch", outIsUsedAfterSwitch},
		{"limits end an SA", limits},
		{"peers behind a NAT may move", moves},
		{"an SA that IKE moves goes on elsewhere", movedByIKE},
		{"authentic packets are signs of life", heard},
		{"long transfers complete", transfers},
		{"connections from before the SA go on", bigSegments},
		{"datagrams of every length pass", datagrams},
		{"path MTU is told", pathMTU},
		{"narrow paths are found out", narrowPath},
		{"traffic class and hop limit", headerFields},
		{"integrity alone", integrityAlone},
		{"congestion is passed on", congestion},
		{"options and extension headers", extended},
		{"one family inside the other", familyInFamily},
		{"kill -9 leaks nothing", killed},
		{"close leaks nothing and release removes everything", closed},
		{"rules that others remove come back", flushed},
		{"policy swaps leak nothing", swaps},
		{"a new policy decides what waits", swapDecidesWhatWaits},
		{"SAs that cannot be are refused", refusesBadSAs},
		{"what waits for an SA that goes unused asks again", unusedRemoved},
		{"gateways forward through the tunnel", gateway},
		{"fragments inside a tunnel", innerFragments},
		{"errors about protected packets come in", innerErrors},
		{"reverse path filter does not matter", reversePath},
		{"stray packets are dropped", strayPackets},
		{"negotiate protects every family, mode, encapsulation and suite", protects},
	} {
		if i%of == part-1 {
			t.Run(c.name, func(t *testing.T) { c.run(t, NewWorld(t, prefix, factory)) })
		}
	}
}

func addresses(p *Peer) []netip.Addr { return []netip.Addr{p.V4, p.V6} }

func permit(t *testing.T, w *World) {
	for _, p := range []*Peer{w.A, w.B} {
		p.SetPolicy(t, policy(rule(ruleID, spd.FilterAction{Action: spd.ActionPermit}, everything())))
	}
	w.B.EchoTCP(t, 7)
	wire := w.Watch(t)
	for _, to := range addresses(w.B) {
		if err := w.A.TryTCP(netip.AddrPortFrom(to, 7), long); err != nil {
			t.Errorf("TCP to %s: %v", to, err)
		}
	}
	if seen := wire(); seen.ESP+seen.Encap > 0 || seen.Leaks == 0 {
		t.Errorf("wire shows %d ESP packets and the payload %d times, want it in clear", seen.ESP+seen.Encap, seen.Leaks)
	}
}

func noPolicy(t *testing.T, w *World) {
	for _, p := range []*Peer{w.A, w.B} {
		p.SetPolicy(t, policy())
	}
	w.B.EchoTCP(t, 7)
	for _, to := range addresses(w.B) {
		if err := w.A.TryTCP(netip.AddrPortFrom(to, 7), long); err != nil {
			t.Errorf("TCP to %s: %v", to, err)
		}
	}
}

func block(t *testing.T, w *World) {
	for _, c := range []struct {
		name string
		peer *Peer
	}{{"outbound", w.A}, {"inbound", w.B}} {
		t.Run(c.name, func(t *testing.T) {
			w.other(c.peer).SetPolicy(t, policy())
			// Port 7 is blocked, port 8 is not.
			filter := port(6, 7)
			if c.peer == w.B {
				filter = localPort(6, 7)
			}
			c.peer.SetPolicy(t, policy(rule(ruleID, spd.FilterAction{Action: spd.ActionBlock}, filter)))
			w.B.EchoTCP(t, 7)
			w.B.EchoTCP(t, 8)
			for _, to := range addresses(w.B) {
				if err := w.A.TryTCP(netip.AddrPortFrom(to, 8), long); err != nil {
					t.Errorf("TCP to %s port 8, which no filter names: %v", to, err)
				}
				if err := w.A.TryTCP(netip.AddrPortFrom(to, 7), short); err == nil {
					t.Errorf("TCP to %s port 7 went through, want it blocked", to)
				}
			}
		})
	}
}

func holdsAndAsksOnce(t *testing.T, w *World) {
	w.A.SetPolicy(t, requireAll())
	w.B.SetPolicy(t, requireAll())
	k := w.NewKeyer(t, func(*Peer, ike.Flow) *Pair { return nil })
	wire := w.Watch(t)
	for range 3 {
		if err := w.A.TryUDP(netip.AddrPortFrom(w.B.V4, 9), 100, short/3); err == nil {
			t.Error("datagram was answered without an SA")
		}
	}
	seen := wire()
	seen.wantNothing(t)
	flows := k.Acquired()
	if len(flows) != 1 {
		t.Fatalf("backend asked %d times for one flow, want once: %+v", len(flows), flows)
	}
	f := flows[0]
	if f.Rule != ruleID || f.Local != w.A.V4 || f.Remote != w.B.V4 || f.LocalTS != whole(w.A.V4) || f.RemoteTS != whole(w.B.V4) {
		t.Errorf("backend asked for %+v, want rule %q between %s and %s", f, ruleID, w.A.V4, w.B.V4)
	}
	if got := f.Packet; got.Protocol != 17 || got.DestinationPort != 9 || got.Source != w.A.V4 {
		t.Errorf("packet that asked is %+v, want the UDP datagram to port 9", got)
	}
}

func protects(t *testing.T, w *World) {
	w.B.EchoTCP(t, 7)
	for _, mode := range []sa.Mode{sa.Transport, sa.Tunnel} {
		for _, encap := range []bool{true, false} {
			for _, suite := range []proposal.ESP{GCM128, CBC256, ChaCha} {
				for _, v6 := range []bool{false, true} {
					name := fmt.Sprintf("%s/encap=%v/%d/v6=%v", mode, encap, suite.Encryption, v6)
					t.Run(name, func(t *testing.T) {
						w.protects(t, Options{Mode: mode, Encap: encap, Suite: suite, Rule: [2]string{ruleID, ruleID}}, v6)
					})
				}
			}
		}
	}
}

// protects runs one exchange between the hosts, or in tunnel mode between the networks behind them.
func (w *World) protects(t *testing.T, o Options, v6 bool) {
	to := w.B.V4
	if v6 {
		to = w.B.V6
	}
	if o.Mode == sa.Tunnel {
		to = w.B.In4
		if v6 {
			to = w.B.In6
		}
	}
	for _, p := range []*Peer{w.A, w.B} {
		if o.Mode == sa.Transport {
			p.SetPolicy(t, requireAll())
			continue
		}
		p.SetPolicy(t, w.tunnel(p))
	}
	k := w.NewKeyer(t, func(from *Peer, f ike.Flow) *Pair {
		pair, err := w.NewPair(from, f, o)
		if err != nil {
			t.Error(err)
		}
		return pair
	})
	wire := w.Watch(t)
	if err := w.A.TryTCP(netip.AddrPortFrom(to, 7), long); err != nil {
		t.Errorf("TCP to %s through the SA: %v\nA: %v\nB: %v", to, err, w.A.Node.Status().Counters, w.B.Node.Status().Counters)
	}
	seen := wire()
	seen.wantProtected(t)
	if o.Encap && seen.ESP > 0 || !o.Encap && seen.Encap > 0 {
		t.Errorf("wire shows %d native and %d encapsulated ESP packets with encap=%v", seen.ESP, seen.Encap, o.Encap)
	}
	if n := len(k.Acquired()); n != 1 {
		t.Errorf("backends asked for %d negotiations, want 1", n)
	}
	k.End(t)
}

// tunnel is the policy of a gateway: the network behind it to that of the other one.
func (w *World) tunnel(p *Peer) spd.Policy {
	o := w.other(p)
	r := rule(ruleID, negotiate(),
		spd.Filter{Source: prefix(netip.PrefixFrom(p.In4, 24)), Destination: prefix(netip.PrefixFrom(o.In4, 24))},
		spd.Filter{Source: prefix(netip.PrefixFrom(p.In6, 64)), Destination: prefix(netip.PrefixFrom(o.In6, 64))},
	)
	r.Tunnel = o.V4
	return policy(r)
}
