package packet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/policies/spd"
)

var (
	v4a, v4b = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
	v6a, v6b = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:ffff::2")
)

// reference builds a packet with gopacket, which computes every length and checksum itself.
func reference(t interface{ Fatal(...any) }, all ...gopacket.SerializableLayer) []byte {
	buf := gopacket.NewSerializeBuffer()
	var network gopacket.NetworkLayer
	for _, l := range all {
		switch l := l.(type) {
		case *layers.IPv4:
			network = l
		case *layers.IPv6:
			network = l
		case *layers.TCP:
			_ = l.SetNetworkLayerForChecksum(network)
		case *layers.UDP:
			_ = l.SetNetworkLayerForChecksum(network)
		case *layers.ICMPv6:
			_ = l.SetNetworkLayerForChecksum(network)
		}
	}
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(buf.Bytes())
}

func ip4(protocol layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{
		Version: 4, TTL: 64, TOS: 0xb9, Flags: layers.IPv4DontFragment, Protocol: protocol, SrcIP: v4a.AsSlice(), DstIP: v4b.AsSlice(),
	}
}

func ip6(next layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 64, TrafficClass: 0xb9, NextHeader: next, SrcIP: v6a.AsSlice(), DstIP: v6b.AsSlice()}
}

func tcpSYN(mss uint16, before ...layers.TCPOption) *layers.TCP {
	mssOption := layers.TCPOption{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: []byte{byte(mss >> 8), byte(mss)}}
	return &layers.TCP{SrcPort: 4000, DstPort: 443, Seq: 1, SYN: true, Window: 1000, Options: append(before, mssOption)}
}

// with inserts extension headers after the IPv6 header of pkt; each starts with the octet that names the next one, which
// is filled in.
func with(pkt []byte, extensions ...[]byte) []byte {
	out := slices.Clone(pkt[:40])
	next := pkt[6]
	chain := 6
	for _, e := range extensions {
		kind, body := e[0], slices.Clone(e[1:])
		out[chain] = kind
		chain = len(out)
		out = append(out, body...)
		out[chain] = next
	}
	out = append(out, pkt[40:]...)
	binary.BigEndian.PutUint16(out[4:], uint16(len(out)-40))
	return out
}

// Extension headers for with: kind, then the header of which the first octet is replaced.
var (
	hopByHop    = []byte{0, 0, 0, 1, 4, 0, 0, 0, 0}
	routing     = []byte{43, 0, 0, 0, 0, 0, 0, 0, 0}
	destination = []byte{60, 0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	fragment    = []byte{44, 0, 0, 0, 1, 0, 0, 0, 9}  // the first, more to come
	fragmentEnd = []byte{44, 0, 0, 0, 16, 0, 0, 0, 9} // offset 16, the last
	atomic      = []byte{44, 0, 0, 0, 0, 0, 0, 0, 9}
)

func TestParse(t *testing.T) {
	udp := func(n gopacket.NetworkLayer) []byte {
		return reference(t, n.(gopacket.SerializableLayer), &layers.UDP{SrcPort: 4000, DstPort: 53}, gopacket.Payload("payload"))
	}
	base6 := udp(ip6(layers.IPProtocolUDP))
	first := udp(ip4(layers.IPProtocolUDP))
	first[6] = 0x20
	later := slices.Clone(first)
	later[6], later[7] = 0, 3
	options := slices.Concat(first[:20], []byte{0x94, 4, 0, 0}, first[20:])
	options[0], options[3], options[6] = 0x46, options[3]+4, 0x40
	want4 := Info{
		Version: 4, Protocol: 17, TrafficClass: 0xb9, Source: v4a, Destination: v4b, SourcePort: 4000, DestinationPort: 53,
		HeaderLen: 20, TransportOffset: 20, NextHeader: 17, Length: 35,
	}
	want6 := Info{
		Version: 6, Protocol: 17, TrafficClass: 0xb9, Source: v6a, Destination: v6b, SourcePort: 4000, DestinationPort: 53,
		HeaderLen: 40, TransportOffset: 40, NextHeader: 17, Length: 55,
	}
	for _, c := range []struct {
		name   string
		pkt    []byte
		want   Info
		change func(*Info)
	}{
		{"UDP over IPv4", udp(ip4(layers.IPProtocolUDP)), want4, func(*Info) {}},
		{"octets after the packet", append(udp(ip4(layers.IPProtocolUDP)), 1, 2, 3), want4, func(*Info) {}},
		{"options", options, want4, func(i *Info) { i.HeaderLen, i.TransportOffset, i.Length = 24, 24, 39 }},
		{"first fragment", first, want4, func(i *Info) { i.Fragment = true }},
		{"later fragment", later, want4, func(i *Info) {
			i.Fragment, i.FragmentOffset, i.SourcePort, i.DestinationPort = true, 24, 0, 0
		}},
		{"ICMP", reference(t, ip4(layers.IPProtocolICMPv4), &layers.ICMPv4{}), want4, func(i *Info) {
			i.Protocol, i.NextHeader, i.SourcePort, i.DestinationPort, i.Length = 1, 1, 0, 0, 28
		}},
		{"UDP over IPv6", base6, want6, func(*Info) {}},
		{"hop-by-hop, routing and destination options", with(base6, hopByHop, routing, destination), want6, func(i *Info) {
			i.HeaderLen, i.TransportOffset, i.NextHeader, i.Length = 72, 56, 60, 87
		}},
		{"destination options before routing", with(base6, destination, routing), want6, func(i *Info) {
			i.HeaderLen, i.TransportOffset, i.Length = 64, 64, 79
		}},
		{"first IPv6 fragment", with(base6, fragment), want6, func(i *Info) {
			i.Fragment, i.HeaderLen, i.TransportOffset, i.Length = true, 48, 48, 63
		}},
		{"later IPv6 fragment", with(base6, fragmentEnd), want6, func(i *Info) {
			i.Fragment, i.FragmentOffset, i.HeaderLen, i.TransportOffset, i.Length = true, 16, 48, 48, 63
			i.SourcePort, i.DestinationPort = 0, 0
		}},
		{"a fragment header on a whole packet", with(base6, atomic), want6, func(i *Info) {
			i.HeaderLen, i.TransportOffset, i.Length = 48, 48, 63
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.change(&c.want)
			got, err := Parse(c.pkt)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Error(diff)
			}
		})
	}
	got, want := want6.SPD(), spd.Packet{Source: v6a, Destination: v6b, Protocol: 17, SourcePort: 4000, DestinationPort: 53}
	if got != want {
		t.Errorf("as policies see it: got %+v, want %+v", got, want)
	}
}

func TestParseRefuses(t *testing.T) {
	good4 := reference(t, ip4(layers.IPProtocolTCP), &layers.TCP{SrcPort: 1, DstPort: 2})
	good6 := reference(t, ip6(layers.IPProtocolTCP), &layers.TCP{SrcPort: 1, DstPort: 2})
	change := func(pkt []byte, at int, octets ...byte) []byte {
		pkt = slices.Clone(pkt)
		copy(pkt[at:], octets)
		return pkt
	}
	many := make([][]byte, 9)
	for k := range many {
		many[k] = destination
	}
	for name, c := range map[string]struct {
		pkt  []byte
		want error
	}{
		"nothing":                       {nil, ErrTruncated},
		"version 5":                     {change(good4, 0, 0x55), ErrMalformed},
		"header of 16 octets":           {change(good4, 0, 0x44), ErrMalformed},
		"length less than the header":   {change(good4, 2, 0, 19), ErrMalformed},
		"length beyond the slice":       {change(good4, 2, 0, 41), ErrTruncated},
		"header beyond the packet":      {change(good4, 0, 0x4f), ErrMalformed},
		"TCP without ports":             {change(good4, 2, 0, 23), ErrTruncated},
		"first fragment without ports":  {change(change(good4, 2, 0, 22), 6, 0x20), ErrTruncated},
		"IPv6 length beyond the slice":  {change(good6, 4, 0, 21), ErrTruncated},
		"IPv6 TCP without ports":        {change(good6, 4, 0, 3), ErrTruncated},
		"nine extension headers":        {with(good6, many...), ErrMalformed},
		"hop-by-hop options twice":      {with(good6, hopByHop, hopByHop), ErrMalformed},
		"two fragment headers":          {with(good6, fragment, fragment), ErrMalformed},
		"extension header past the end": {change(with(good6, destination), 41, 200), ErrTruncated},
		"extension header without room": {change(change(good6, 6, 60), 4, 0, 4), ErrTruncated},
	} {
		if info, err := Parse(c.pkt); !errors.Is(err, c.want) {
			t.Errorf("%s: got %+v, %v, want %v", name, info, err, c.want)
		}
	}
}

func TestNoStrictPrefixParses(t *testing.T) {
	for _, pkt := range [][]byte{
		reference(t, ip4(layers.IPProtocolUDP), &layers.UDP{SrcPort: 1, DstPort: 2}, gopacket.Payload("payload")),
		with(reference(t, ip6(layers.IPProtocolTCP), tcpSYN(1460)), hopByHop, destination),
	} {
		for n := range pkt {
			if info, err := Parse(pkt[:n]); err == nil {
				t.Errorf("%d octets of %d parse as %+v", n, len(pkt), info)
			}
		}
	}
}

// naiveSum adds one octet after the other.
func naiveSum(b []byte, initial uint16) uint16 {
	sum := uint32(initial)
	for i, octet := range b {
		if i%2 == 0 {
			sum += uint32(octet) << 8
		} else {
			sum += uint32(octet)
		}
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func TestSumAgreesWithTheNaiveSum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 0x7f, 0x80, 0xfe, 0xff}), 0, 900).Draw(t, "octets")
		b = b[rapid.IntRange(0, min(len(b), 31)).Draw(t, "alignment"):]
		initial := rapid.Uint16().Draw(t, "initial")
		got, want := Sum(b, initial), naiveSum(b, initial)
		// Zero has two forms in ones' complement; which one a sum ends in depends on the order.
		if got != want && (got|want != 0xffff || got&want != 0) {
			t.Fatalf("sum of %x from %#x: got %#x, want %#x", b, initial, got, want)
		}
	})
}

func TestChecksumsAgreeWithGopacket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		payload := gopacket.Payload(rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "payload"))
		v6 := rapid.Bool().Draw(t, "v6")
		kind := rapid.SampledFrom([]layers.IPProtocol{layers.IPProtocolTCP, layers.IPProtocolUDP, layers.IPProtocolICMPv6}).Draw(t, "protocol")
		var network gopacket.SerializableLayer = ip4(kind)
		if v6 || kind == layers.IPProtocolICMPv6 {
			network = ip6(kind)
		}
		var upper gopacket.SerializableLayer
		switch kind {
		case layers.IPProtocolTCP:
			upper = &layers.TCP{SrcPort: 4000, DstPort: layers.TCPPort(rapid.Uint16().Draw(t, "port"))}
		case layers.IPProtocolUDP:
			upper = &layers.UDP{SrcPort: 4000, DstPort: layers.UDPPort(rapid.Uint16().Draw(t, "port"))}
		default:
			upper = &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(128, 0)}
		}
		want := reference(t, network, upper, payload)
		info, err := Parse(want)
		if err != nil || !VerifyChecksum(want, info) {
			t.Fatalf("gopacket made %x: %v, checksum right: %v", want, err, VerifyChecksum(want, info))
		}
		offset, _ := ChecksumOffset(info.Protocol)
		damaged := slices.Clone(want)
		damaged[info.HeaderLen+offset] ^= 0x40
		if damaged[info.HeaderLen+offset] == 0 && damaged[info.HeaderLen+offset+1] == 0 {
			damaged[info.HeaderLen+offset+1] = 1 // 0 would mean that there is none
		}
		if VerifyChecksum(damaged, info) {
			t.Fatalf("a damaged checksum in %x counts as right", damaged)
		}
		if !FixChecksum(damaged, info) || !bytes.Equal(damaged, want) {
			t.Fatalf("fixed: got %x, want %x", damaged, want)
		}
	})
}

func TestChecksumExceptions(t *testing.T) {
	none := reference(t, ip4(layers.IPProtocolUDP), &layers.UDP{SrcPort: 1, DstPort: 2})
	none[26], none[27] = 0, 0
	info, err := Parse(none)
	if err != nil {
		t.Fatal(err)
	}
	if !VerifyChecksum(none, info) || !FixChecksum(none, info) || none[26] != 0 {
		t.Errorf("UDP without checksum became %x", none)
	}
	six := reference(t, ip6(layers.IPProtocolUDP), &layers.UDP{SrcPort: 1, DstPort: 2})
	six[46], six[47] = 0, 0
	if info, err = Parse(six); err != nil || VerifyChecksum(six, info) {
		t.Errorf("IPv6 allows no UDP without checksum (RFC 8200 8.1): %v", err)
	}
	short := reference(t, ip4(layers.IPProtocolTCP), &layers.TCP{SrcPort: 1, DstPort: 2})[:30]
	binary.BigEndian.PutUint16(short[2:], 30)
	if info, err = Parse(short); err != nil || VerifyChecksum(short, info) || FixChecksum(short, info) {
		t.Errorf("a TCP header of 10 octets has a right checksum: %v", err)
	}
	if err := CompleteChecksum(make([]byte, 20), 18, 1); !errors.Is(err, ErrMalformed) {
		t.Errorf("checksum beyond the packet: got %v", err)
	}
	// A UDP checksum that comes out as 0 is sent as 0xffff.
	b := []byte{0, 0, 0, 0, 0, 0, 0xff, 0xff}
	if err := CompleteChecksum(b, 0, 6); err != nil || b[6] != 0xff || b[7] != 0xff {
		t.Errorf("got %x, %v", b, err)
	}
}

func TestHeaderRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := IP{
			Source: v4a, Destination: v4b, Protocol: ProtocolESP, TrafficClass: rapid.Uint8().Draw(t, "class"),
			HopLimit: rapid.Uint8().Draw(t, "ttl"), DontFragment: rapid.Bool().Draw(t, "df"), ID: rapid.Uint16().Draw(t, "id"),
			PayloadLen: rapid.IntRange(0, 2000).Draw(t, "length"),
		}
		if rapid.Bool().Draw(t, "v6") {
			h.Source, h.Destination = v6a, v6b
		}
		b := append(h.AppendHeader(nil), make([]byte, h.PayloadLen)...)
		info, err := Parse(b)
		if err != nil || info.Source != h.Source || info.Destination != h.Destination || info.Protocol != h.Protocol ||
			info.TrafficClass != h.TrafficClass || info.HeaderLen != h.HeaderLen() || info.Length != len(b) || info.Fragment {
			t.Fatalf("%+v comes back as %+v, %v", h, info, err)
		}
		if h.Source.Is4() {
			var ref layers.IPv4
			if err := ref.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil || ref.TTL != h.HopLimit || ref.Id != h.ID ||
				(ref.Flags == layers.IPv4DontFragment) != h.DontFragment || Sum(b[:20], 0) != 0xffff {
				t.Fatalf("%+v is %+v for gopacket, %v", h, ref, err)
			}
		}
	})
}
