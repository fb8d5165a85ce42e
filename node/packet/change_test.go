package packet

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"pgregory.net/rapid"
)

func TestClampMSS(t *testing.T) {
	nop := layers.TCPOption{OptionType: layers.TCPOptionKindNop}
	scale := layers.TCPOption{OptionType: layers.TCPOptionKindWindowScale, OptionLength: 3, OptionData: []byte{7}}
	for name, before := range map[string][]layers.TCPOption{
		"first": nil, "at an odd offset": {nop}, "after another option at an odd offset": {scale}, "after both": {nop, scale},
	} {
		for _, v6 := range []bool{false, true} {
			build := func(mss uint16) []byte {
				if v6 {
					return reference(t, ip6(layers.IPProtocolTCP), tcpSYN(mss, before...))
				}
				return reference(t, ip4(layers.IPProtocolTCP), tcpSYN(mss, before...))
			}
			pkt := build(1460)
			info, err := Parse(pkt)
			if err != nil {
				t.Fatal(err)
			}
			if ClampMSS(pkt, info, 1460) || ClampMSS(pkt, info, 9000) || !bytes.Equal(pkt, build(1460)) {
				t.Errorf("%s, v6=%v: an MSS that is low enough was changed", name, v6)
			}
			if !ClampMSS(pkt, info, 1311) || !bytes.Equal(pkt, build(1311)) || !VerifyChecksum(pkt, info) {
				t.Errorf("%s, v6=%v: got %x, want %x", name, v6, pkt, build(1311))
			}
		}
	}
}

func TestClampMSSLeavesOthersAlone(t *testing.T) {
	syn := reference(t, ip4(layers.IPProtocolTCP), tcpSYN(1460))
	change := func(at int, octets ...byte) []byte {
		pkt := slices.Clone(syn)
		copy(pkt[at:], octets)
		return pkt
	}
	for name, pkt := range map[string][]byte{
		"no SYN":                       change(33, 0x10),
		"UDP":                          change(9, 17),
		"a later fragment":             change(6, 0, 3),
		"an option of no length":       change(40, 8, 0),
		"an option of length 1":        change(40, 8, 1),
		"an option beyond the header":  change(40, 8, 10),
		"an MSS option of 3 octets":    change(40, 2, 3, 9),
		"the end of the list":          change(40, 0),
		"a header beyond the packet":   change(32, 0xf0),
		"a header of 16 octets":        change(32, 0x40),
		"an option cut by the header":  change(40, 1, 1, 1, 2),
		"without options":              reference(t, ip4(layers.IPProtocolTCP), &layers.TCP{SYN: true}),
		"a SYN shorter than a header":  change(2, 0, 30),
		"an MSS in the payload, no op": reference(t, ip4(layers.IPProtocolTCP), &layers.TCP{SYN: true}, gopacket.Payload("\x02\x04\x05\xb4")),
	} {
		info, err := Parse(pkt)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		before := slices.Clone(pkt)
		if ClampMSS(pkt, info, 500) || !bytes.Equal(pkt, before) {
			t.Errorf("%s: changed to %x", name, pkt)
		}
	}
}

// The table of RFC 6040 4.2, inner by row, outer by column: Not-ECT, ECT(1), ECT(0), CE. -1 is drop.
func TestDecapsulateECN(t *testing.T) {
	table := map[uint8][4]int{
		NotECT: {NotECT, NotECT, NotECT, -1},
		ECT0:   {ECT0, ECT1, ECT0, CE},
		ECT1:   {ECT1, ECT1, ECT1, CE},
		CE:     {CE, CE, CE, CE},
	}
	for inner, row := range table {
		for outer, want := range row {
			for _, v6 := range []bool{false, true} {
				h := IP{Source: v4a, Destination: v4b, TrafficClass: 0xb8 | inner, HopLimit: 3}
				if v6 {
					h.Source, h.Destination = v6a, v6b
				}
				pkt := h.AppendHeader(nil)
				keep := DecapsulateECN(pkt, 0x50|uint8(outer))
				if keep != (want >= 0) {
					t.Errorf("inner %d, outer %d: kept %v", inner, outer, keep)
				}
				if want < 0 {
					continue
				}
				h.TrafficClass = 0xb8 | uint8(want)
				if !bytes.Equal(pkt, h.AppendHeader(nil)) {
					t.Errorf("inner %d, outer %d, v6=%v: got %x, want %x", inner, outer, v6, pkt, h.AppendHeader(nil))
				}
			}
		}
	}
}

func TestSetTrafficClass(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := IP{Source: v4a, Destination: v4b, TrafficClass: rapid.Uint8().Draw(t, "old"), ID: rapid.Uint16().Draw(t, "id")}
		if rapid.Bool().Draw(t, "v6") {
			h.Source, h.Destination = v6a, v6b
		}
		pkt := h.AppendHeader(nil)
		h.TrafficClass = rapid.Uint8().Draw(t, "new")
		SetTrafficClass(pkt, h.TrafficClass)
		if TrafficClass(pkt) != h.TrafficClass || h.Source.Is4() && Sum(pkt, 0) != 0xffff {
			t.Fatalf("got %x, want %x", pkt, h.AppendHeader(nil))
		}
	})
}

func TestTooBigIsWhatTheSenderUnderstands(t *testing.T) {
	for _, size := range []int{10, 1400} {
		payload := gopacket.Payload(bytes.Repeat([]byte{7}, size))
		udp := &layers.UDP{SrcPort: 4000, DstPort: 53}

		big := reference(t, ip4(layers.IPProtocolUDP), udp, payload)
		got, err := AppendTooBig([]byte("before"), big, v4b, 1280)
		if err != nil {
			t.Fatal(err)
		}
		decoded := gopacket.NewPacket(got[6:], layers.LayerTypeIPv4, gopacket.Default)
		ip, _ := decoded.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
		icmp, _ := decoded.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
		if ip == nil || icmp == nil || !ip.DstIP.Equal(v4a.AsSlice()) || !ip.SrcIP.Equal(v4b.AsSlice()) {
			t.Fatalf("got %s", decoded)
		}
		if icmp.TypeCode != layers.CreateICMPv4TypeCode(3, 4) || icmp.Seq != 1280 || icmp.Id != 0 || Sum(got[26:], 0) != 0xffff ||
			!bytes.HasPrefix(big, icmp.Payload) || len(icmp.Payload) < 28 || len(got)-6 > 576 {
			t.Errorf("got %s of %d octets", decoded, len(got)-6)
		}

		big = reference(t, ip6(layers.IPProtocolUDP), udp, payload)
		if got, err = AppendTooBig(nil, big, v6b, 1280); err != nil {
			t.Fatal(err)
		}
		info, err := Parse(got)
		if err != nil || info.Protocol != ProtocolICMPv6 || info.Source != v6b || info.Destination != v6a ||
			!VerifyChecksum(got, info) || !bytes.Equal(got[40:48], []byte{2, 0, got[42], got[43], 0, 0, 5, 0}) ||
			!bytes.HasPrefix(big, got[48:]) || len(got) > 1280 || len(got) < min(1280, 48+len(big)) {
			t.Errorf("got %x, %+v, %v", got, info, err)
		}
	}
}

func TestNoAnswerToWhatMustNotBeAnswered(t *testing.T) {
	udp4 := reference(t, ip4(layers.IPProtocolUDP), &layers.UDP{SrcPort: 1, DstPort: 2})
	change := func(at int, octets ...byte) []byte {
		pkt := slices.Clone(udp4)
		copy(pkt[at:], octets)
		return pkt
	}
	icmp := func(kind uint8) []byte {
		return reference(t, ip4(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, 0)})
	}
	for name, c := range map[string]struct {
		pkt  []byte
		from netip.Addr
		want error
	}{
		"may be fragmented":       {change(6, 0), v4b, ErrNoAnswer},
		"a later fragment":        {change(6, 0x40, 3), v4b, ErrNoAnswer},
		"from nobody":             {change(12, 0, 0, 0, 0), v4b, ErrNoAnswer},
		"from a group":            {change(12, 224), v4b, ErrNoAnswer},
		"to a group":              {change(16, 224), v4b, ErrNoAnswer},
		"an ICMP error":           {icmp(3), v4b, ErrNoAnswer},
		"from another family":     {udp4, v6b, ErrNoAnswer},
		"a cut packet":            {udp4[:25], v4b, ErrTruncated},
		"an ICMPv6 error":         {reference(t, ip6(layers.IPProtocolICMPv6), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(1, 0)}), v6b, ErrNoAnswer},
		"an echo request":         {icmp(8), v4b, nil},
		"an ICMPv6 echo request":  {reference(t, ip6(layers.IPProtocolICMPv6), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(128, 0)}), v6b, nil},
		"the first IPv6 fragment": {with(reference(t, ip6(layers.IPProtocolUDP), &layers.UDP{}), fragment), v6b, nil},
	} {
		got, err := AppendTooBig(nil, c.pkt, c.from, 1280)
		if !errors.Is(err, c.want) || (err != nil) != (len(got) == 0) {
			t.Errorf("%s: got %x, %v, want %v", name, got, err, c.want)
		}
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	pkt := reference(t, ip6(layers.IPProtocolTCP), tcpSYN(1460))
	dst := make([]byte, 0, 2000)
	allocated := testing.AllocsPerRun(100, func() {
		info, err := Parse(pkt)
		if err != nil || !VerifyChecksum(pkt, info) {
			t.Fatal("the packet is right")
		}
		ClampMSS(pkt, info, 1460)
		if _, err := AppendTooBig(dst, pkt, v6b, 1280); err != nil {
			t.Fatal(err)
		}
	})
	if allocated != 0 {
		t.Errorf("%v allocations, want 0", allocated)
	}
}

// FuzzParsePacket feeds any octets to everything that takes a packet: nothing may read or write outside the packet.
func FuzzParsePacket(f *testing.F) {
	f.Add(reference(f, ip4(layers.IPProtocolTCP), tcpSYN(1460)), uint16(1300), uint8(3))
	f.Add(reference(f, ip6(layers.IPProtocolUDP), &layers.UDP{SrcPort: 1, DstPort: 2}, gopacket.Payload("x")), uint16(0), uint8(0))
	f.Add(with(reference(f, ip6(layers.IPProtocolTCP), tcpSYN(1460)), hopByHop, routing, destination), uint16(9), uint8(1))
	f.Add(with(reference(f, ip6(layers.IPProtocolTCP), tcpSYN(1460)), fragment), uint16(9), uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, mss uint16, class uint8) {
		b = b[:len(b):len(b)]
		info, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrTruncated) && !errors.Is(err, ErrMalformed) {
				t.Fatalf("unknown error %v", err)
			}
			return
		}
		if info.HeaderLen > info.Length || info.Length > len(b) || info.TransportOffset > info.HeaderLen ||
			!info.Source.IsValid() || info.Source.Is4() != (info.Version == 4) {
			t.Fatalf("%x parses as %+v", b, info)
		}
		for _, from := range []netip.Addr{v4b, v6b} {
			if answer, err := AppendTooBig(nil, b, from, int(mss)); err == nil {
				if reply, err := Parse(answer); err != nil || reply.Destination != info.Source || reply.Length != len(answer) {
					t.Fatalf("answer %x: %+v, %v", answer, reply, err)
				}
			}
		}
		right := VerifyChecksum(b, info)
		changed := slices.Clone(b)
		if ClampMSS(changed, info, mss) && right != VerifyChecksum(changed, info) {
			t.Fatalf("clamped %x to %x: the checksum was right %v", b, changed, right)
		}
		FixChecksum(changed, info)
		if DecapsulateECN(changed, class) {
			SetTrafficClass(changed, class)
			if again, err := Parse(changed); err != nil || again.TrafficClass != class || again.Length != info.Length {
				t.Fatalf("%x: %+v, %v", changed, again, err)
			}
		}
	})
}
