package xfrm

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
	"github.com/bailiwick-net/bailiwick/policies/spd/spdtest"
)

// matches is what the kernel does (xfrm_selector_match).
func (s selector) matches(p spd.Packet) bool {
	source, destination := p.SourcePort, p.DestinationPort
	if p.Protocol == spd.ProtocolICMP || p.Protocol == spd.ProtocolICMPv6 {
		source, destination = uint16(p.ICMPType), uint16(p.ICMPCode)
	}
	return s.source.Contains(p.Source) && s.destination.Contains(p.Destination) && (s.protocol == 0 || s.protocol == p.Protocol) &&
		source&s.sourceMask == s.sourcePort&s.sourceMask && destination&s.destMask == s.destPort&s.destMask
}

func TestPortsCoverExactlyTheRange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from := rapid.Uint16().Draw(t, "from")
		to := rapid.Uint16Range(from, 65535).Draw(t, "to")
		pieces := ports(from, to)
		if len(pieces) > 30 {
			t.Errorf("%d-%d is cut into %d pieces", from, to, len(pieces))
		}
		for _, port := range []uint16{0, 65535, from, to, from - 1, to + 1, from/2 + to/2, rapid.Uint16().Draw(t, "port")} {
			n := 0
			for _, m := range pieces {
				if port&m.mask == m.value {
					n++
				}
			}
			if want := from <= port && port <= to; n > 1 || (n == 1) != want {
				t.Errorf("port %d is in %d pieces of %d-%d: %v", port, n, from, to, pieces)
			}
		}
	})
}

func TestPrefixesCoverExactlyTheRange(t *testing.T) {
	address := func(t *rapid.T, name string) netip.Addr {
		return netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, name)))
	}
	rapid.Check(t, func(t *rapid.T) {
		r := spd.Range{From: address(t, "from"), To: address(t, "to")}
		if r.From.Compare(r.To) > 0 {
			r.From, r.To = r.To, r.From
		}
		pieces := prefixes(r)
		for _, a := range []netip.Addr{r.From, r.To, r.From.Prev(), r.To.Next(), address(t, "address")} {
			if !a.IsValid() {
				continue
			}
			n := 0
			for _, p := range pieces {
				if p.Contains(a) {
					n++
				}
			}
			if n > 1 || (n == 1) != r.Contains(a) {
				t.Errorf("%s is in %d pieces of %s: %v", a, n, r, pieces)
			}
		}
	})
	whole6 := spd.Range{From: netip.IPv6Unspecified(), To: last(netip.MustParsePrefix("::/0"))}
	if p := prefixes(whole6); !slices.Equal(p, []netip.Prefix{netip.MustParsePrefix("::/0")}) {
		t.Errorf("every IPv6 address is %v", p)
	}
}

// decide is what the kernel finds for a packet: the policy with the least priority.
func decide(list []policy, direction uint8, m uint32, p spd.Packet) (best policy, ok bool) {
	for _, c := range list {
		if c.direction != direction || m&c.mark.mask != c.mark.value || !c.selector.matches(p) || ok && c.priority >= best.priority {
			continue
		}
		best, ok = c, true
	}
	return best, ok
}

// wanted leaves of policies with the same key the one that goes to the kernel.
func wanted(t *rapid.T, lists ...[]policy) []policy {
	p := &policies{wanted: map[policyKey][]proposed{}, installed: map[policyKey]policy{}, owned: map[sa.SPI][]policyKey{}}
	for owner, list := range lists {
		for _, c := range list {
			p.wanted[c.policyKey] = append(p.wanted[c.policyKey], proposed{c, sa.SPI(owner), uint64(owner)})
		}
	}
	var out []policy
	for key := range p.wanted {
		best, ok := p.best(key)
		if !ok {
			t.Fatal("a policy that is wanted is not found")
		}
		out = append(out, best)
	}
	return out
}

// TestPoliciesSayWhatLookupSays: with an SA for a packet of every rule, XFRM sends a packet through that of the rule whose
// filter Lookup finds, and no packet through any other; inbound it accepts it from that alone.
func TestPoliciesSayWhatLookupSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set, err := spd.Expand(spdtest.Policy().Draw(t, "policy"), spdtest.Facts().Draw(t, "facts"))
		if err != nil {
			t.Fatal(err)
		}
		reqids := map[string]uint32{}
		reqid := func(rule string) uint32 {
			if reqids[rule] == 0 {
				reqids[rule] = firstReqid + uint32(len(reqids))
			}
			return reqids[rule]
		}
		static, err := compile(set, reqid)
		if err != nil {
			t.Fatal(err)
		}
		whole := func(r netip.Prefix) []sa.Selector {
			return []sa.Selector{{From: r.Addr(), To: last(r), PortTo: 65535}}
		}
		lists := [][]policy{static}
		for _, r := range set.Policy().Rules {
			child := sa.Child{Rule: r.ID, Mode: sa.Transport, Suite: proposal.ESP{}}
			child.Local, child.Remote = netip.MustParseAddrPort("192.0.2.1:0"), netip.MustParseAddrPort("192.0.2.2:0")
			for _, p := range everything {
				child.LocalTS, child.RemoteTS = append(child.LocalTS, whole(p)...), append(child.RemoteTS, whole(p)...)
			}
			lists = append(lists, outbound(set, child, reqid(r.ID)))
		}
		all := wanted(t, lists...)
		for range 20 {
			p := spdtest.Packet().Draw(t, "packet")
			p.Loopback, p.Own, p.Unknown = false, false, false
			if m := set.LookupByAddress(spd.Out, p); !opens(set, p) && tells(set, p.Source) {
				got, _ := decide(all, dirOut, 0, p)
				want := uint32(0)
				if m.Action == spd.ActionNegotiate {
					want = reqid(m.Rule.ID)
				}
				if got.through.reqid != want {
					t.Fatalf("outbound %+v goes to %+v, want request %x of %+v", p, got, want, m.Filter)
				}
			}
			if m := set.LookupByAddress(spd.In, p); !opens(set, p) && tells(set, p.Destination) {
				got, _ := decide(all, dirIn, markFresh, p)
				want := uint32(0)
				if m.Action == spd.ActionNegotiate {
					want = reqid(m.Rule.ID)
				}
				if got.through.reqid != want || got.block != (m.Action == spd.ActionBlock) {
					t.Fatalf("inbound %+v finds %+v, want request %x of %+v", p, got, want, m.Filter)
				}
				if clear, found := decide(all, dirIn, 0, p); found {
					t.Fatalf("clear packets are asked about by %+v", clear)
				}
			}
		}
	})
}

// tells reports whether XFRM can tell the class of a packet: by its own address, or because the machine has one class alone.
func tells(set spd.Set, own netip.Addr) bool {
	return !set.Limited() || set.Owns(own)
}

// opens reports whether a packet is one that XFRM cannot tell from others: the first of a TCP connection, where a filter
// about answers would else describe it. The rules decide about it.
func opens(set spd.Set, p spd.Packet) bool {
	if !p.Opens {
		return false
	}
	p.Opens = false
	for _, f := range set.Filters() {
		if f.Answers && f.Matches(f.Direction, p) {
			return true
		}
	}
	return false
}

// TestStateReadsBack: what is written of an SA is what is read of it.
func TestStateReadsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		suite := rapid.SampledFrom([]proposal.ESP{
			{Encryption: proposal.EncrAESGCM16, KeyBits: 128, ESN: true}, {Encryption: proposal.EncrChaCha20Poly1305},
			{Encryption: proposal.EncrAESCBC, KeyBits: 256, Integrity: proposal.IntegHMACSHA384192}, {Encryption: proposal.EncrNULL, Integrity: proposal.IntegHMACSHA256128},
		}).Draw(t, "suite")
		tr, err := transformOf(suite)
		if err != nil {
			t.Fatal(err)
		}
		s := state{
			spi: sa.SPI(rapid.Uint32().Draw(t, "spi")), source: netip.MustParseAddr("192.0.2.1"), target: netip.MustParseAddr("192.0.2.2"),
			reqid: rapid.Uint32().Draw(t, "reqid"), mode: rapid.SampledFrom([]sa.Mode{sa.Transport, sa.Tunnel}).Draw(t, "mode"), esn: suite.ESN,
			replay:    replay{window: rapid.Uint32Range(1, 4096).Draw(t, "window"), out: rapid.Uint64().Draw(t, "out"), in: rapid.Uint64().Draw(t, "in")},
			transform: tr, set: sealedMark, packets: rapid.Uint64().Draw(t, "packets"), bytes: rapid.Uint64().Draw(t, "bytes"), added: rapid.Uint64().Draw(t, "added"),
		}
		s.replay.bitmap = rapid.SliceOfN(rapid.Uint32(), int(s.replay.window+31)/32, int(s.replay.window+31)/32).Draw(t, "bitmap")
		if rapid.Bool().Draw(t, "encap") {
			s.encap, s.sport, s.dport = true, 4500, rapid.Uint16().Draw(t, "port")
		}
		if rapid.Bool().Draw(t, "v6") {
			s.source, s.target = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
		}
		s.selector, _ = hull([]sa.Selector{{From: s.source, To: s.source, PortTo: 65535}}, []sa.Selector{{Protocol: 6, From: s.target, To: s.target, PortFrom: 7, PortTo: 7}})
		s.key = sa.Keys{Encryption: sa.NewSecret(make([]byte, tr.cipherLen)), Integrity: sa.NewSecret(make([]byte, tr.hashLen))}
		octets, err := s.encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseState(octets)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.replay.bitmap, s.replay.bitmap) {
			t.Errorf("window is %v, want %v", got.replay.bitmap, s.replay.bitmap)
		}
		got.replay.bitmap, s.replay.bitmap, s.key, got.used = nil, nil, sa.Keys{}, s.used
		if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", s); g != w {
			t.Errorf("read\n%s\nwant\n%s", g, w)
		}
		deleted := append(stateID(s.target, s.spi), attribute(t, attrSA, octets[:stateLen])...)
		if last, err := parseDeleted(append(deleted, octets[stateLen:]...)); err != nil || last.replay.out != s.replay.out || last.added != s.added {
			t.Errorf("deleted SA reads as %+v, %v", last, err)
		}
		for n := range octets {
			if _, err := parseState(octets[:n]); err == nil && n < stateLen {
				t.Fatalf("%d of %d octets are an SA", n, len(octets))
			}
		}
	})
}

func attribute(t *rapid.T, kind uint16, data []byte) []byte {
	b, err := attributes{{Type: kind, Data: data}}.encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestWhatTheKernelChangesIsNoticed: an SA that is not what was asked for is refused, whatever it lacks.
func TestWhatTheKernelChangesIsNoticed(t *testing.T) {
	want := state{
		spi: 0x1234, source: netip.MustParseAddr("192.0.2.1"), target: netip.MustParseAddr("192.0.2.2"), reqid: firstReqid, mode: sa.Tunnel,
		encap: true, esn: true, replay: replay{window: 1024, out: 7, in: 9}, set: ownMark, transform: transform{aead: "rfc4106(gcm(aes))", icv: 128, cipherLen: 20},
	}
	later := want
	later.replay.in++
	for _, same := range []state{want, later} {
		if err := want.same(same); err != nil {
			t.Errorf("what was asked for is refused: %v", err)
		}
	}
	for what, change := range map[string]func(*state){
		"extended sequence numbers": func(s *state) { s.esn = false }, "replay window": func(s *state) { s.replay.window = 32 },
		"last sequence number sent": func(s *state) { s.replay.out = 0 }, "highest sequence number": func(s *state) { s.replay.in = 0 },
		"mode": func(s *state) { s.mode = sa.Transport }, "encapsulation": func(s *state) { s.encap = false },
		"algorithms": func(s *state) { s.transform.icv = 64 }, "selector": func(s *state) { s.selector.protocol = 6 },
		"mark": func(s *state) { s.set.value = 0 }, "request": func(s *state) { s.reqid++ }, "source": func(s *state) { s.source = s.target },
	} {
		got := want
		change(&got)
		if err := want.same(got); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("an SA with another %s gives %v", what, err)
		}
	}
}
