package esp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// testChild is an SA of a suite with made-up keys of the right lengths.
func testChild(t testing.TB, suite proposal.ESP, mode sa.Mode, v6 bool) sa.Child {
	t.Helper()
	lengths := map[proposal.Integrity]int{
		proposal.IntegHMACSHA256128: 32, proposal.IntegHMACSHA384192: 48, proposal.IntegHMACSHA512256: 64,
	}
	size := int(suite.KeyBits) / 8
	switch suite.Encryption {
	case proposal.EncrAESGCM16, proposal.EncrNullAESGMAC:
		size += 4
	case proposal.EncrChaCha20Poly1305:
		size = 36
	case proposal.EncrAESCBC, proposal.EncrNULL: // no salt
	}
	family := []byte{0x40}
	if v6 {
		family[0] = 0x60
	}
	return child(t, suite, mode, 0x1001, bytes.Repeat([]byte{7}, size), bytes.Repeat([]byte{9}, lengths[suite.Integrity]), family)
}

// udp returns a UDP packet with n octets of payload, from the peer of testChild to its owner.
func udp(n int, v6 bool) []byte {
	h := packet.IP{
		Source: netip.MustParseAddr("192.0.2.1"), Destination: netip.MustParseAddr("192.0.2.2"),
		Protocol: packet.ProtocolUDP, HopLimit: 64, DontFragment: true, PayloadLen: 8 + n,
	}
	if v6 {
		h.Source, h.Destination = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	}
	pkt := append(h.AppendHeader(nil), 0x10, 0, 0, 53, byte((8+n)>>8), byte(8+n), 1, 1)
	for i := range n {
		pkt = append(pkt, byte(i*7))
	}
	info, err := packet.Parse(pkt)
	if err != nil || !packet.FixChecksum(pkt, info) {
		panic("the test makes a packet that does not parse")
	}
	return pkt
}

// sealed returns the ESP packet for pkt behind the room that Open asks for.
func sealed(t testing.TB, out *Outbound, pkt []byte) []byte {
	t.Helper()
	b, err := out.Seal(make([]byte, Headroom), pkt)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// craft seals plain, whose trailer the test has written itself.
func craft(out *Outbound, seq uint64, plain []byte) []byte {
	c := out.crypt
	b := make([]byte, Headroom+headerLen+c.ivLen+len(plain)+c.icvLen)
	esp := b[Headroom:]
	binary.BigEndian.PutUint32(esp, uint32(out.SPI()))
	binary.BigEndian.PutUint32(esp[4:], uint32(seq))
	c.seal(esp, plain, seq)
	return b
}

func open(in *Inbound, b []byte) (Opened, error) { return in.Open(b, Headroom, len(b)) }

func TestEverySuiteOpensWhatItSealed(t *testing.T) {
	for name, suite := range suites {
		for _, mode := range []sa.Mode{sa.Transport, sa.Tunnel} {
			for _, v6 := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/v6=%v", name, mode, v6), func(t *testing.T) {
					out, in := newPair(t, testChild(t, suite, mode, v6))
					for n := range 70 {
						want := udp(n, v6)
						pkt := slices.Clone(want)
						b := sealed(t, out, pkt)
						if got := out.SealedLen(len(pkt), len(pkt)-len(upper(pkt))); got != len(b)-Headroom {
							t.Fatalf("SealedLen(%d): got %d, want %d", len(pkt), got, len(b)-Headroom)
						}
						opened, err := open(in, b)
						if err != nil {
							t.Fatalf("payload of %d octets: %v", n, err)
						}
						if mode == sa.Tunnel && !bytes.Equal(opened.Packet, want) {
							t.Fatalf("got %x, want %x", opened.Packet, want)
						}
						info, err := packet.Parse(opened.Packet)
						if err != nil || !packet.VerifyChecksum(opened.Packet, info) || !bytes.Equal(upper(opened.Packet), upper(want)) {
							t.Fatalf("got %x (%v), want %x", opened.Packet, err, want)
						}
						if !v6 && packet.Sum(opened.Packet[:20], 0) != 0xffff {
							t.Fatalf("IPv4 header %x has a wrong checksum", opened.Packet[:20])
						}
						if opened.Sequence != uint64(n+1) {
							t.Fatalf("got sequence number %d, want %d", opened.Sequence, n+1)
						}
					}
				})
			}
		}
	}
}

// Packets that UDP_GRO joined stand back to back: opening one must leave its neighbours alone, and rebuilding a
// header must not reach further back than the end of the packet before.
func TestPacketsBackToBackOpenInPlace(t *testing.T) {
	for name, suite := range suites {
		for _, v6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/v6=%v", name, v6), func(t *testing.T) {
				out, in := newPair(t, testChild(t, suite, sa.Transport, v6))
				buf := make([]byte, Headroom)
				var wants [][]byte
				bounds := []int{len(buf)}
				for n := range 20 {
					want := udp(40+n, v6)
					wants = append(wants, want)
					var err error
					if buf, err = out.Seal(buf, want); err != nil {
						t.Fatal(err)
					}
					bounds = append(bounds, len(buf))
				}
				var opened [][]byte
				for k := range wants {
					o, err := in.Open(buf, bounds[k], bounds[k+1])
					if err != nil {
						t.Fatalf("packet %d: %v", k, err)
					}
					opened = append(opened, o.Packet)
				}
				for k, want := range wants {
					if !bytes.Equal(upper(opened[k]), upper(want)) {
						t.Errorf("packet %d: got %x, want %x", k, opened[k], want)
					}
				}
			})
		}
	}
}

func TestOpenWithoutHeadroomMovesThePacket(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		out, in := newPair(t, testChild(t, suites["aes-gcm-128"], sa.Transport, v6))
		var opened [][]byte
		for n := range 200 { // more than one arena
			b := sealed(t, out, udp(1000+n, v6))[Headroom:]
			o, err := in.Open(b, 0, len(b))
			if err != nil {
				t.Fatalf("v6=%v: %v", v6, err)
			}
			opened = append(opened, o.Packet)
		}
		for n, got := range opened {
			if !bytes.Equal(upper(got), upper(udp(1000+n, v6))) {
				t.Errorf("v6=%v: packet %d was overwritten: %x", v6, n, got)
			}
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	gcm := suites["aes-gcm-128"]
	inner := udp(10, false) // 38 octets: 2 octets of trailer make it a multiple of 4
	with := func(b []byte, trailer ...byte) []byte { return append(slices.Clone(b), trailer...) }
	for _, c := range []struct {
		name  string
		mode  sa.Mode
		plain []byte
		want  error
		count func(InboundStats) uint64
	}{
		{"padding that is not 1, 2, 3", sa.Tunnel, with(inner, 1, 2, 4, 4, 4, 4), ErrPadding, malformed},
		{"padding longer than the packet", sa.Tunnel, []byte{1, 2, 3, 4, 5, 6, 7, 4}, ErrPadding, malformed},
		{"a dummy", sa.Tunnel, with(inner, 0, packet.ProtocolNoNext), ErrDummy, func(s InboundStats) uint64 { return s.Dummies }},
		{"TCP in tunnel mode", sa.Tunnel, with(inner, 0, packet.ProtocolTCP), ErrNextHeader, malformed},
		{"IPv6 that says IPv4", sa.Tunnel, with(inner, 0, packet.ProtocolIPv6), ErrInner, malformed},
		{"an inner packet longer than its ESP packet", sa.Tunnel, with(inner[:22], 0, packet.ProtocolIPv4), ErrInner, malformed},
		{"an inner packet shorter than a header", sa.Tunnel, with(inner[:10], 0, packet.ProtocolIPv4), ErrInner, malformed},
		{"nothing inside", sa.Tunnel, []byte{1, 2, 2, packet.ProtocolIPv4}, ErrInner, malformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, in := newPair(t, testChild(t, gcm, c.mode, false))
			if _, err := open(in, craft(out, 1, c.plain)); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			in.Publish()
			if s := in.Stats(); c.count(s) != 1 || s.Packets != 0 {
				t.Errorf("got counters %+v", s)
			}
			// The packet was authentic, so its number is spent (RFC 4303 3.4.3).
			if _, err := open(in, craft(out, 1, c.plain)); !errors.Is(err, ErrReplay) {
				t.Errorf("the same packet again: got %v, want %v", err, ErrReplay)
			}
		})
	}
}

func malformed(s InboundStats) uint64 { return s.Malformed }

func TestTrafficFlowPaddingIsCutOff(t *testing.T) {
	out, in := newPair(t, testChild(t, suites["aes-gcm-128"], sa.Tunnel, false))
	want := udp(10, false)
	plain := append(slices.Clone(want), make([]byte, 100)...)
	opened, err := open(in, craft(out, 1, append(plain, 0, packet.ProtocolIPv4)))
	if err != nil || !bytes.Equal(opened.Packet, want) {
		t.Errorf("got %x, %v, want %x", opened.Packet, err, want)
	}
}

func TestForgeriesLeaveTheWindowAlone(t *testing.T) {
	for name, suite := range suites {
		t.Run(name, func(t *testing.T) {
			out, in := newPair(t, testChild(t, suite, sa.Tunnel, false))
			good := sealed(t, out, udp(30, false))
			for at := Headroom; at < len(good); at++ {
				forged := slices.Clone(good)
				forged[at] ^= 0x10
				want := ErrIntegrity
				if at < Headroom+4 {
					want = ErrSPI
				}
				if _, err := open(in, forged); !errors.Is(err, want) {
					t.Fatalf("octet %d changed: got %v, want %v", at-Headroom, err, want)
				}
			}
			for n := range len(good) - Headroom {
				if _, err := in.Open(slices.Clone(good), Headroom, Headroom+n); !errors.Is(err, ErrShort) && !errors.Is(err, ErrIntegrity) {
					t.Fatalf("cut to %d octets: got %v", n, err)
				}
			}
			if in.window.highest != 0 {
				t.Fatalf("a forgery moved the window to %d", in.window.highest)
			}
			again := slices.Clone(good)
			if _, err := open(in, good); err != nil {
				t.Fatalf("the real packet: %v", err)
			}
			if _, err := open(in, again); !errors.Is(err, ErrReplay) {
				t.Fatalf("the real packet again: got %v, want %v", err, ErrReplay)
			}
		})
	}
}

func TestBorrowedOctetsAreGivenBack(t *testing.T) {
	for name, suite := range suites {
		out, in := newPair(t, testChild(t, suite, sa.Tunnel, false))
		for n := range 40 {
			want := udp(n, false)
			buf := append(slices.Clone(want), bytes.Repeat([]byte{0xee}, MaxTrailer)...)
			before := slices.Clone(buf)
			b := sealed(t, out, buf[:len(want)])
			if !bytes.Equal(buf, before) {
				t.Fatalf("%s: buffer is %x after Seal, was %x", name, buf, before)
			}
			if o, err := open(in, b); err != nil || !bytes.Equal(o.Packet, want) {
				t.Fatalf("%s: got %x, %v, want %x", name, o.Packet, err, want)
			}
			exact := want[:len(want):len(want)] // nothing to borrow
			if o, err := open(in, sealed(t, out, exact)); err != nil || !bytes.Equal(o.Packet, want) {
				t.Fatalf("%s without spare capacity: got %x, %v, want %x", name, o.Packet, err, want)
			}
		}
	}
}

func TestSealRefuses(t *testing.T) {
	out, _ := newPair(t, testChild(t, suites["aes-gcm-128"], sa.Transport, false))
	fragment := udp(30, false)
	fragment[6] = 0x20
	short := udp(30, false)[:40]
	options := udp(30, false)
	options[0] = 0x4f // header of 60 octets in a packet of 58
	for name, pkt := range map[string][]byte{
		"nothing": nil, "a fragment in transport mode": fragment, "a cut packet": short, "a header beyond the packet": options,
		"IP version 5": append([]byte{0x55}, make([]byte, 60)...),
	} {
		if got, err := out.Seal(nil, pkt); !errors.Is(err, ErrPacket) || len(got) != 0 {
			t.Errorf("%s: got %x, %v, want %v", name, got, err, ErrPacket)
		}
	}
	if used := out.Stats().Sequence; used != 0 {
		t.Errorf("refused packets used %d sequence numbers", used)
	}
}

func TestSealIPKeepsTheHeaders(t *testing.T) {
	// IPv4 with a router alert option.
	plain := udp(20, false)
	v4 := append(append(slices.Clone(plain[:20]), 0x94, 4, 0, 0), plain[20:]...)
	v4[0] = 0x46
	binary.BigEndian.PutUint16(v4[2:], uint16(len(v4)))
	packet.SetIPv4Checksum(v4)
	// IPv6 with hop-by-hop options, and destination options that go inside ESP.
	plain = udp(20, true)
	v6 := slices.Concat(plain[:40], []byte{60, 0, 5, 2, 0, 0, 1, 0}, []byte{17, 0, 1, 4, 0, 0, 0, 0}, plain[40:])
	v6[6] = packet.ProtocolHopByHop
	binary.BigEndian.PutUint16(v6[4:], uint16(len(v6)-40))
	for _, c := range []struct {
		pkt    []byte
		header int
		inner  byte
	}{{v4, 24, packet.ProtocolUDP}, {v6, 48, packet.ProtocolDestination}} {
		for _, encap := range []bool{false, true} {
			isV6 := c.pkt[0]>>4 == 6
			child := testChild(t, suites["aes-gcm-128"], sa.Transport, isV6)
			child.Encap = encap
			out, in := newPair(t, child)
			got, err := out.SealIP([]byte("before"), c.pkt, 4500, 4501)
			if err != nil {
				t.Fatal(err)
			}
			got = got[len("before"):]
			start, want := c.header, uint8(packet.ProtocolESP)
			if encap {
				start, want = c.header+packet.UDPHeaderLen, packet.ProtocolUDP
			}
			info, err := packet.Parse(got)
			if err != nil || info.Protocol != want || info.HeaderLen != c.header || info.Length != len(got) || !packet.VerifyChecksum(got, info) {
				t.Fatalf("encap=%v: sealed packet parses as %+v, %v", encap, info, err)
			}
			if encap && (info.SourcePort != 4500 || info.DestinationPort != 4501) {
				t.Errorf("ports are %d and %d, want 4500 and 4501", info.SourcePort, info.DestinationPort)
			}
			if !isV6 && packet.Sum(got[:24], 0) != 0xffff {
				t.Errorf("IPv4 header %x has a wrong checksum", got[:24])
			}
			opened, err := in.Open(got, start, len(got))
			if err != nil || !bytes.Equal(upper(opened.Packet), c.pkt[c.header:]) {
				t.Fatalf("encap=%v: got %x, %v, want %x", encap, opened.Packet, err, c.pkt[c.header:])
			}
			at := 9
			if isV6 {
				at = 6
			}
			if opened.Packet[at] != c.inner {
				t.Errorf("next header inside: got %d, want %d", opened.Packet[at], c.inner)
			}
		}
	}
}

func TestMaxPacketIsTheLongestThatFits(t *testing.T) {
	for name, suite := range suites {
		for _, mode := range []sa.Mode{sa.Transport, sa.Tunnel} {
			for _, v6 := range []bool{false, true} {
				for _, encap := range []bool{false, true} {
					c := testChild(t, suite, mode, v6)
					c.Encap = encap
					out, _ := newPair(t, c)
					outer := 20
					if v6 {
						outer = 40
					}
					overhead := outer
					if encap {
						overhead += 8
					}
					n := out.MaxPacket(1500, v6)
					if size := out.SealedLen(n, outer) + overhead; size > 1500 {
						t.Errorf("%s %s v6=%v encap=%v: a packet of %d octets becomes %d", name, mode, v6, encap, n, size)
					}
					if size := out.SealedLen(n+1, outer) + overhead; size <= 1500 {
						t.Errorf("%s %s v6=%v encap=%v: a packet of %d octets would fit too", name, mode, v6, encap, n+1)
					}
				}
			}
		}
	}
}

func TestChecksumIsUnknownBehindUDP(t *testing.T) {
	for _, c := range []struct {
		mode  sa.Mode
		encap bool
		want  bool
	}{{sa.Transport, true, true}, {sa.Transport, false, false}, {sa.Tunnel, true, false}} {
		sa := testChild(t, suites["aes-gcm-128"], c.mode, false)
		sa.Encap = c.encap
		out, in := newPair(t, sa)
		if o, err := open(in, sealed(t, out, udp(1, false))); err != nil || o.ChecksumUnknown != c.want {
			t.Errorf("%s, encap %v: got %v, %v", c.mode, c.encap, o.ChecksumUnknown, err)
		}
	}
}

func TestWrongKeysAreRefused(t *testing.T) {
	good := testChild(t, suites["aes-cbc-128-sha256"], sa.Tunnel, false)
	for name, c := range map[string]struct {
		change func(*sa.Child)
		want   error
	}{
		"encryption key too short": {func(c *sa.Child) { c.Out.Encryption = sa.NewSecret(make([]byte, 15)) }, ErrKey},
		"integrity key too short":  {func(c *sa.Child) { c.Out.Integrity = sa.NewSecret(make([]byte, 16)) }, ErrKey},
		"no integrity":             {func(c *sa.Child) { c.Suite.Integrity = proposal.IntegNone }, ErrSuite},
		"unknown integrity":        {func(c *sa.Child) { c.Suite.Integrity = 2 }, ErrSuite},
		"unknown encryption":       {func(c *sa.Child) { c.Suite.Encryption = 3 }, ErrSuite},
		"AES-64":                   {func(c *sa.Child) { c.Suite.KeyBits = 64 }, ErrSuite},
		"integrity with an AEAD": {func(c *sa.Child) {
			c.Suite.Encryption, c.Out.Encryption = proposal.EncrAESGCM16, sa.NewSecret(make([]byte, 20))
		}, ErrSuite},
		"NULL without integrity": {func(c *sa.Child) {
			c.Suite = proposal.ESP{Encryption: proposal.EncrNULL}
			c.Out.Encryption, c.Out.Integrity = sa.Secret{}, sa.Secret{}
		}, ErrSuite},
		"reserved SPI": {func(c *sa.Child) { c.Out.SPI = 255 }, ErrKey},
		"no mode":      {func(c *sa.Child) { c.Mode = 0 }, ErrSuite},
		"endpoints of two families": {func(c *sa.Child) {
			c.Local = netip.MustParseAddrPort("[2001:db8::1]:4500")
		}, ErrSuite},
	} {
		wrong := good
		c.change(&wrong)
		if _, err := NewOutbound(wrong); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	for size, want := range map[uint32]error{0: nil, 31: ErrSuite, 32: nil, 4096: nil, 4097: ErrSuite} {
		c := good
		c.ReplayWindow = size
		if _, err := NewInbound(c); !errors.Is(err, want) {
			t.Errorf("replay window %d: got %v, want %v", size, err, want)
		}
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	for name, suite := range suites {
		for k, mode := range []sa.Mode{sa.Transport, sa.Tunnel, sa.Transport} {
			v6 := k == 2
			out, in := newPair(t, testChild(t, suite, mode, v6))
			pkt := udp(1400, v6)
			buf := make([]byte, Headroom, 2048)
			allocated := testing.AllocsPerRun(100, func() {
				b, err := out.Seal(buf, pkt)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := in.Open(b, Headroom, len(b)); err != nil {
					t.Fatal(err)
				}
				out.Publish()
				in.Publish()
				in.Recycle()
			})
			if allocated != 0 {
				t.Errorf("%s %s: %v allocations per packet, want 0", name, mode, allocated)
			}
		}
	}
}
