package packet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
)

// espPacket is an outer packet with SPI 0x1001 and sequence number 7, in UDP with encap.
func espPacket(v6, encap bool) []byte {
	esp := append([]byte{0, 0, 0x10, 1, 0, 0, 0, 7}, bytes.Repeat([]byte{0xee}, 1400)...)
	h := IP{
		Source: netip.MustParseAddr("192.0.2.1"), Destination: netip.MustParseAddr("198.51.100.2"), Protocol: ProtocolESP,
		HopLimit: 64, DontFragment: true,
	}
	if v6 {
		h.Source, h.Destination = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:2::2")
	}
	if encap {
		h.Protocol = ProtocolUDP
		n := len(esp) + UDPHeaderLen
		esp = append([]byte{0x11, 0x94, 0x15, 0xe1, byte(n >> 8), byte(n), 0, 0}, esp...)
	}
	h.PayloadLen = len(esp)
	return append(h.AppendHeader(nil), esp...)
}

// tooBigAbout returns the ICMP message that a router sends about a packet.
func tooBigAbout(t testing.TB, pkt []byte, mtu int) []byte {
	t.Helper()
	router := netip.MustParseAddr("203.0.113.9")
	if pkt[0]>>4 == 6 {
		router = netip.MustParseAddr("2001:db8:3::9")
	}
	answer, err := AppendTooBig(nil, pkt, router, mtu)
	if err != nil {
		t.Fatal(err)
	}
	info, err := Parse(answer)
	if err != nil {
		t.Fatal(err)
	}
	return answer[info.HeaderLen:info.Length]
}

func TestTooBigNamesTheESPPacket(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, encap := range []bool{false, true} {
			pkt := espPacket(v6, encap)
			info, err := Parse(pkt)
			if err != nil {
				t.Fatal(err)
			}
			want := QuotedESP{SPI: 0x1001, Sequence: 7, Encap: encap,
				Source: netip.AddrPortFrom(info.Source, info.SourcePort), Destination: netip.AddrPortFrom(info.Destination, info.DestinationPort)}
			message := tooBigAbout(t, pkt, 1400)
			got, err := ParseTooBig(message, v6)
			if err != nil || got.MTU != 1400 {
				t.Fatalf("v6=%v encap=%v: got %+v, %v, want an MTU of 1400", v6, encap, got, err)
			}
			if q, ok := got.ESP(); !ok || q != want {
				t.Errorf("v6=%v encap=%v: quoted is %+v, %v, want %+v", v6, encap, q, ok, want)
			}
			// A quote that ends before the sequence number names no packet, wherever it ends; over IPv4 its checksum is wrong too.
			short := len(message) - len(pkt) // the message may quote less than the whole packet
			for n := range 8 + info.HeaderLen + 8 {
				cut := bytes.Clone(message[:n])
				if !v6 && n >= 8 {
					fixICMP(cut)
				}
				if t2, err := ParseTooBig(cut, v6); err == nil {
					if q, ok := t2.ESP(); ok {
						t.Errorf("v6=%v encap=%v: %d octets of %d name %+v", v6, encap, n, short, q)
					}
				}
			}
		}
	}
}

func fixICMP(b []byte) {
	b[2], b[3] = 0, 0
	binary.BigEndian.PutUint16(b[2:], ^Sum(b, 0))
}

func TestTooBigRefuses(t *testing.T) {
	edit := func(v6 bool, change func(b []byte)) []byte {
		b := bytes.Clone(tooBigAbout(t, espPacket(v6, false), 1400))
		change(b)
		if !v6 {
			fixICMP(b)
		}
		return b
	}
	for _, c := range []struct {
		name    string
		v6      bool
		message []byte
		want    error
	}{
		{"nothing", false, nil, ErrTruncated},
		{"port unreachable", false, edit(false, func(b []byte) { b[1] = 3 }), ErrMalformed},
		{"echo", false, edit(false, func(b []byte) { b[0] = 8 }), ErrMalformed},
		{"quote of IPv6", false, edit(false, func(b []byte) { b[8] = 0x65 }), ErrMalformed},
		{"quote of a later fragment", false, edit(false, func(b []byte) { b[15] = 1 }), ErrMalformed},
		{"header length 4", false, edit(false, func(b []byte) { b[8] = 0x41 }), ErrMalformed},
		{"time exceeded", true, edit(true, func(b []byte) { b[0] = 3 }), ErrMalformed},
		{"quote of IPv4", true, edit(true, func(b []byte) { b[8] = 0x45 }), ErrMalformed},
		{"quote of a later fragment over IPv6", true, edit(true, func(b []byte) { b[8+6] = ProtocolFragment; b[8+40+3] = 8 }), ErrMalformed},
		{"extension headers without end", true, edit(true, func(b []byte) { clear(b[8+40:]); b[8+6] = 0 }), ErrMalformed},
	} {
		if got, err := ParseTooBig(c.message, c.v6); !errors.Is(err, c.want) {
			t.Errorf("%s: got %+v, %v, want %v", c.name, got, err, c.want)
		}
	}
	wrong := tooBigAbout(t, espPacket(false, false), 1400)
	wrong[6] ^= 1
	if _, err := ParseTooBig(wrong, false); !errors.Is(err, ErrMalformed) {
		t.Errorf("wrong checksum: got %v, want %v", err, ErrMalformed)
	}
	for name, change := range map[string]func(*TooBig){
		"TCP":             func(t *TooBig) { t.Protocol = ProtocolTCP },
		"IKE on the port": func(t *TooBig) { t.Protocol, t.Payload = ProtocolUDP, make([]byte, 60) },
		"SPI 0":           func(t *TooBig) { t.Payload = make([]byte, 60) },
	} {
		message, err := ParseTooBig(tooBigAbout(t, espPacket(false, false), 1400), false)
		if err != nil {
			t.Fatal(err)
		}
		change(&message)
		if q, ok := message.ESP(); ok {
			t.Errorf("%s: names %+v, want no ESP packet", name, q)
		}
	}
}

// FuzzTooBig feeds what anyone may send.
func FuzzTooBig(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		for _, encap := range []bool{false, true} {
			f.Add(tooBigAbout(f, espPacket(v6, encap), 1400), v6)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, v6 bool) {
		if !v6 && len(b) >= 4 {
			fixICMP(b) // the fuzzer cannot
		}
		message, err := ParseTooBig(b, v6)
		if err != nil {
			return
		}
		if message.Source.Is4() == v6 || message.Destination.Is4() == v6 || message.MTU < 0 || message.MTU > 1<<20 {
			t.Fatalf("%x gives %+v", b, message)
		}
		if q, ok := message.ESP(); ok && (q.SPI == 0 || q.Source.Addr() != message.Source || q.Encap != (message.Protocol == ProtocolUDP)) {
			t.Fatalf("%x names %+v", b, q)
		}
	})
}

// FuzzQuoted reads what anyone who may send through an SA quotes in an ICMP error.
func FuzzQuoted(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		for _, encap := range []bool{false, true} {
			pkt := espPacket(v6, encap)
			info, err := Parse(pkt)
			if err != nil {
				f.Fatal(err)
			}
			message := tooBigAbout(f, pkt, 1400)
			h := IP{Source: info.Destination, Destination: info.Source, Protocol: ProtocolICMP, PayloadLen: len(message)}
			if v6 {
				h.Protocol = ProtocolICMPv6
			}
			f.Add(append(h.AppendHeader(nil), message...))
			f.Add(AppendEcho(nil, Echo{Source: info.Source, Destination: info.Destination, Data: []byte("data")}, 100))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		info, err := Parse(b)
		if err != nil {
			return
		}
		q, ok := Quoted(b, info)
		e, echo := ParseEcho(b, info)
		if ok && (q.Version != info.Version || q.Source.Is4() != (q.Version == 4) || q.Destination.Is4() != (q.Version == 4)) {
			t.Fatalf("%x quotes %+v", b, q)
		}
		if ok && echo || echo && len(e.Data) > len(b) {
			t.Fatalf("%x is an error and an echo", b)
		}
	})
}

func TestQuotedPackets(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, encap := range []bool{false, true} {
			pkt := espPacket(v6, encap)
			want, err := Parse(pkt)
			if err != nil {
				t.Fatal(err)
			}
			message := tooBigAbout(t, pkt, 1400)
			h := IP{Source: want.Destination, Destination: want.Source, Protocol: ProtocolICMP, PayloadLen: len(message)}
			if v6 {
				h.Protocol = ProtocolICMPv6
			}
			whole := append(h.AppendHeader(nil), message...)
			info, err := Parse(whole)
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := Quoted(whole, info); !ok || got.SPD() != want.SPD() {
				t.Errorf("v6=%v encap=%v: quotes %+v, %v, want %+v", v6, encap, got.SPD(), ok, want.SPD())
			}
			redirect := map[bool]byte{false: 5, true: 137}[v6]
			for _, kind := range []byte{redirect, 128, 8, 0} {
				whole[info.HeaderLen] = kind
				if got, ok := Quoted(whole, info); ok {
					t.Errorf("v6=%v: a message of type %d quotes %+v", v6, kind, got)
				}
			}
		}
	}
}

func TestEchoComesBack(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, reply := range []bool{false, true} {
			want := Echo{
				Source: netip.MustParseAddr("192.0.2.1"), Destination: netip.MustParseAddr("192.0.2.2"), Reply: reply,
				ID: 0xabcd, Sequence: 9, Data: []byte("seventeen octets!"),
			}
			if v6 {
				want.Source, want.Destination = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
			}
			for _, length := range []int{0, 1280, 1401} {
				pkt := AppendEcho(nil, want, length)
				info, err := Parse(pkt)
				if err != nil || info.Length != len(pkt) || length > 0 && len(pkt) != length {
					t.Fatalf("v6=%v: %d octets parse as %+v, %v, want %d", v6, len(pkt), info, err, length)
				}
				if sum := Sum(pkt[info.HeaderLen:], 0); !v6 && sum != 0xffff || v6 && !VerifyChecksum(pkt, info) {
					t.Errorf("v6=%v: the checksum is wrong", v6)
				}
				got, ok := ParseEcho(pkt, info)
				if !ok || got.Reply != reply || got.ID != want.ID || got.Sequence != want.Sequence || got.Source != want.Source ||
					got.Destination != want.Destination || !bytes.HasPrefix(got.Data, want.Data) {
					t.Errorf("v6=%v: got %+v, %v, want %+v", v6, got, ok, want)
				}
				for _, at := range []int{info.HeaderLen, info.HeaderLen + 1} {
					other := bytes.Clone(pkt)
					other[at] = 3
					if e, ok := ParseEcho(other, info); ok {
						t.Errorf("v6=%v: type and code %x are an echo: %+v", v6, other[info.HeaderLen:info.HeaderLen+2], e)
					}
				}
			}
		}
	}
}
