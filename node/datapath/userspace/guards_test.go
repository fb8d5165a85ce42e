package userspace

import (
	"net/netip"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab/labtest"
	"github.com/bailiwick-net/bailiwick/node/datapath/nftable"
	"github.com/bailiwick-net/bailiwick/node/datapath/userspace/steering"
	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/node/tun"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// guardPolicy is like the predefined ones: everything is negotiated, ICMP and DNS are permitted.
func guardPolicy() spd.Policy {
	permit, me, anyone := spd.FilterAction{Action: spd.ActionPermit}, spd.Address{Kind: spd.AddressMe}, spd.Address{}
	return spd.Policy{
		Name:        "guards",
		KeyExchange: spd.KeyExchange{Offers: []proposal.IKE{{Encryption: proposal.EncrAESGCM16, KeyBits: 128, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupX25519}}},
		Rules: []spd.Rule{
			{ID: "all", Auth: []spd.Auth{{Method: spd.AuthPSK, Secret: "k"}}, Filters: []spd.Filter{{ID: "f", Source: me, Destination: anyone, Mirrored: true}},
				Action: spd.FilterAction{
					Action: spd.ActionNegotiate, Fallback: spd.Fallback{Mode: spd.FallbackWait},
					Offers: []proposal.ESP{{Encryption: proposal.EncrAESGCM16, KeyBits: 128}},
				}},
			{ID: "icmp", Action: permit, Filters: []spd.Filter{
				{ID: "f4", Source: me, Destination: anyone, Protocol: spd.ProtocolICMP, Mirrored: true},
				{ID: "f6", Source: me, Destination: anyone, Protocol: spd.ProtocolICMPv6, Mirrored: true}}},
			{ID: "dns", Action: permit, Filters: []spd.Filter{
				{ID: "f53", Source: me, Destination: anyone, Protocol: spd.ProtocolUDP, DestinationPort: spd.PortRange{From: 53, To: 53}, Mirrored: true}}},
		},
	}
}

func guardBench(t *testing.T, prefix string) *bench {
	t.Helper()
	l := labtest.New(t, prefix)
	return newBench(t, l, spd.Out)
}

func (b *bench) enforce(t *testing.T, addresses ...netip.Addr) {
	t.Helper()
	b.enforcePolicy(t, guardPolicy(), addresses...)
}

func (b *bench) enforcePolicy(t *testing.T, policy spd.Policy, addresses ...netip.Addr) {
	t.Helper()
	set, err := spd.Expand(policy, spd.Facts{Addresses: addresses})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.table.Replace(steering.Compile(set, testParams), true, nil); err != nil {
		t.Fatal(err)
	}
}

// An ICMP error that leaves in clear must not show a packet that came in protected (RFC 4301 6), although the policy
// permits ICMP.
func TestICMPErrorsDoNotQuoteProtectedPackets(t *testing.T) {
	b := guardBench(t, "bwdpq-")
	me4, peer4 := netip.MustParseAddr("192.168.77.1"), netip.MustParseAddr("198.51.100.7")
	me6, peer6 := netip.MustParseAddr("2001:db8:ffff::1"), netip.MustParseAddr("2001:db8::7")
	serial := uint32(0)
	udp := func(from, to netip.Addr, sport, dport uint16) []byte {
		serial++
		return octets(spd.Packet{Source: from, Destination: to, Protocol: spd.ProtocolUDP, SourcePort: sport, DestinationPort: dport}, serial)
	}
	message := func(from, to netip.Addr, typ, code uint8, quote []byte) ([]byte, spd.Packet) {
		p := spd.Packet{Source: from, Destination: to, Protocol: spd.ProtocolICMP, ICMPType: typ, ICMPCode: code}
		if from.Is6() {
			p.Protocol = spd.ProtocolICMPv6
		}
		h := packet.IP{Source: from, Destination: to, Protocol: p.Protocol, HopLimit: 64, PayloadLen: 8 + len(quote)}
		return append(append(h.AppendHeader(nil), typ, code, 0, 0, 0, 0, 0, 0), quote...), p
	}
	options := udp(peer4, me4, 53, 40000)
	options[0] = 0x46
	extension := udp(peer6, me6, 53, 40000)
	extension[6] = packet.ProtocolDestination
	for _, test := range []struct {
		name      string
		from, to  netip.Addr
		typ, code uint8
		quote     []byte
		soft      bool
		want      spd.Fate
	}{
		{"port unreachable about a protected packet", me4, peer4, 3, 3, udp(peer4, me4, 40000, 5000), false, spd.Drop},
		{"parameter problem about a protected packet", me4, peer4, 12, 0, udp(peer4, me4, 40000, 5000), false, spd.Drop},
		{"port unreachable about a permitted packet", me4, peer4, 3, 3, udp(peer4, me4, 53, 40000), false, spd.Pass},
		{"a header with options", me4, peer4, 3, 3, options, false, spd.Drop},
		{"a peer that talks in clear", me4, peer4, 3, 3, udp(peer4, me4, 40000, 5000), true, spd.Pass},
		{"no error", me4, peer4, 0, 0, udp(peer4, me4, 40000, 5000), false, spd.Pass},
		{"IPv6: port unreachable about a protected packet", me6, peer6, 1, 4, udp(peer6, me6, 40000, 5000), false, spd.Drop},
		{"IPv6: about a permitted packet", me6, peer6, 1, 4, udp(peer6, me6, 53, 40000), false, spd.Pass},
		{"IPv6: a header with extensions", me6, peer6, 1, 4, extension, false, spd.Drop},
		{"IPv6: a peer that talks in clear", me6, peer6, 1, 4, udp(peer6, me6, 40000, 5000), true, spd.Pass},
		{"IPv6: no error", me6, peer6, 129, 0, udp(peer6, me6, 40000, 5000), false, spd.Pass},
	} {
		b.enforce(t, me4, me6)
		if test.soft {
			if err := b.table.Add(steering.SoftSet("all", spd.In, test.from.Is6()), nftable.Pair{Local: test.from, Remote: test.to}, time.Minute); err != nil {
				t.Fatal(err)
			}
		}
		pkt, p := message(test.from, test.to, test.typ, test.code, test.quote)
		got, err := b.out(p, pkt)
		if err != nil {
			t.Fatal(err)
		}
		if got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
}

// Between the kernel's knowing an address and the policy's, nothing of it leaves in clear.
func TestAnAddressThatIsNotKnownYet(t *testing.T) {
	b := guardBench(t, "bwdpu-")
	fresh, peer := netip.MustParseAddr("192.168.77.1"), netip.MustParseAddr("198.51.100.7")
	var many []netip.Addr // more than one rule of the kernel could hold
	for i := range 1000 {
		many = append(many, netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}))
	}
	p := spd.Packet{Source: fresh, Destination: peer, Protocol: spd.ProtocolTCP, SourcePort: 40000, DestinationPort: 80}
	for i, step := range []struct {
		known []netip.Addr
		want  spd.Fate
	}{
		{[]netip.Addr{netip.MustParseAddr("192.168.77.2")}, spd.Drop}, {nil, spd.Drop}, {[]netip.Addr{fresh}, spd.Protect},
		{many, spd.Drop}, {append(many, fresh), spd.Protect},
	} {
		b.enforce(t, step.known...)
		got, err := b.out(p, octets(p, uint32(i)))
		if err != nil {
			t.Fatal(err)
		}
		if got != step.want {
			t.Errorf("a packet of %s, step %d, %d known addresses: got %s, want %s", fresh, i, len(step.known), got, step.want)
		}
	}
}

// What is forwarded for others and gets the machine's own address by source NAT is held to what the policy says of that.
func TestSourceNATIsNoWayOut(t *testing.T) {
	b := guardBench(t, "bwdpn-")
	inner, peer := netip.MustParseAddr("172.30.0.2"), netip.MustParseAddr("198.51.100.7")
	card := netip.MustParseAddr("192.168.77.1")
	for _, command := range [][]string{
		{"sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.eth0.rp_filter=0"},
		{"nft", "add table ip container_nat { chain post { type nat hook postrouting priority srcnat; ip saddr 172.30.0.0/24 masquerade; }; }"},
	} {
		if _, err := b.host.Run(command...); err != nil {
			t.Fatal(err)
		}
	}
	serial := uint32(0)
	forward := func(dport uint16) bool {
		serial++
		pkt := octets(spd.Packet{Source: inner, Destination: peer, Protocol: spd.ProtocolUDP, SourcePort: 40000, DestinationPort: dport}, serial)
		if err := b.card.Queue(0).Write(tun.Header{}, pkt); err != nil {
			t.Fatal(err)
		}
		return b.drain(b.card, same(pkt))
	}
	// That a filter permits the packets of the containers themselves says nothing about those of the machine.
	policy := guardPolicy()
	policy.Rules = append(policy.Rules, spd.Rule{ID: "containers", Action: spd.FilterAction{Action: spd.ActionPermit}, Filters: []spd.Filter{
		{ID: "fc", Source: spd.Address{Kind: spd.AddressPrefix, Prefix: netip.MustParsePrefix("172.30.0.0/24")}, Mirrored: true},
	}})
	b.enforcePolicy(t, policy, card)
	if forward(5000) {
		t.Error("a packet that a filter permits by its own address left in clear under the machine's")
	}
	b.enforce(t, card)
	if forward(5000) {
		t.Error("a packet that the policy wants protected left in clear under the machine's address")
	}
	if !forward(53) {
		t.Error("a packet that the policy permits did not leave")
	}
	if err := b.table.Add(steering.SoftSet("all", spd.Out, false), nftable.Pair{Local: card, Remote: peer}, time.Minute); err != nil {
		t.Fatal(err)
	}
	if !forward(5000) {
		t.Error("a packet to a peer that talks in clear did not leave")
	}
}

// What others do to marks and destinations of packets that leave does not bring them past the policy: it judges what leaves.
func TestOthersOpenNoWayOut(t *testing.T) {
	peer, service := netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("203.0.113.1")
	for _, c := range []struct {
		name, chain string
		to          netip.Addr
		port        uint16
		want        spd.Fate
	}{
		{"nothing", "type filter hook output priority filter;", peer, 5000, spd.Protect},
		{"a mark of their own", "type route hook output priority mangle + 5; meta mark set 0x1;", peer, 5000, spd.Protect},
		{"a mark, as the last of the usual", "type route hook output priority security; meta mark set 0x1;", peer, 5000, spd.Protect},
		{"a destination that is to be protected", "type nat hook output priority -100; udp dport 53 dnat to 198.51.100.7:5000;", service, 53, spd.Protect},
		{"a destination that is permitted", "type nat hook output priority -100; udp dport 5000 dnat to 198.51.100.7:53;", service, 5000, spd.Pass},
		{"a drop", "type filter hook output priority filter; udp dport 53 drop;", peer, 53, spd.Drop},
		{"an accept", "type filter hook output priority raw; accept;", peer, 5000, spd.Protect},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := guardBench(t, "bwdpo-")
			me := netip.MustParseAddr("192.168.77.1")
			b.enforce(t, me)
			if _, err := b.host.Run("nft", "add table ip others { chain c { "+c.chain+" }; }"); err != nil {
				t.Fatal(err)
			}
			p := spd.Packet{Source: me, Destination: c.to, Protocol: spd.ProtocolUDP, SourcePort: 40000, DestinationPort: c.port}
			got, err := b.out(p, octets(p, 1))
			if err != nil {
				t.Fatal(err)
			}
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}
