package judge

import (
	"bytes"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

const (
	marker = "these octets are a secret"
	canary = "these octets are not"
)

var (
	macA     = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	macB     = net.HardwareAddr{2, 0, 0, 0, 0, 2}
	injector = net.HardwareAddr{2, 0, 0, 0, 0, 9}
	begin    = time.Unix(1700000000, 0)
)

func prefixes(list ...string) (out []netip.Prefix) {
	for _, p := range list {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func statement() Statement {
	net := prefixes("192.0.2.0/24", "2001:db8::/64")
	return Statement{
		Protect: []Flow{{Name: "the machines", A: net, B: net}},
		Permit:  []Flow{{Name: "open", A: net, B: net, Protocol: protocolUDP, Port: 7999}},
		Markers: []string{marker}, Canary: canary, Injectors: []string{injector.String()},
	}
}

// serialize builds octets with a library that the judge does not use.
func serialize(t testing.TB, list ...gopacket.SerializableLayer) []byte {
	t.Helper()
	var network gopacket.NetworkLayer
	for _, l := range list {
		switch l := l.(type) {
		case *layers.IPv4:
			network = l
		case *layers.IPv6:
			network = l
		case *layers.UDP:
			_ = l.SetNetworkLayerForChecksum(network)
		case *layers.TCP:
			_ = l.SetNetworkLayerForChecksum(network)
		case *layers.ICMPv6:
			_ = l.SetNetworkLayerForChecksum(network)
		}
	}
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, list...); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(b.Bytes())
}

func ether(kind layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: macA, DstMAC: macB, EthernetType: kind}
}

func ip4(protocol layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Protocol: protocol, SrcIP: net.IP{192, 0, 2, 1}, DstIP: net.IP{192, 0, 2, 2}}
}

func ip6(next layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: next, SrcIP: net.ParseIP("2001:db8::1"), DstIP: net.ParseIP("2001:db8::2")}
}

func udp(port layers.UDPPort) *layers.UDP { return &layers.UDP{SrcPort: 40000, DstPort: port} }

// udp4 is a frame with UDP over IPv4.
func udp4(t testing.TB, port layers.UDPPort, payload []byte) []byte {
	return serialize(t, ether(layers.EthernetTypeIPv4), ip4(layers.IPProtocolUDP), udp(port), gopacket.Payload(payload))
}

// plain is an IP packet of a protected flow, without Ethernet and without the marker.
func plain(t testing.TB) []byte {
	return serialize(t, ip4(layers.IPProtocolUDP), udp(5000), gopacket.Payload("hello"))
}

// espOf is ESP, in whatever, around octets.
func espOf(payload []byte) []byte {
	return append([]byte{0, 0, 16, 1, 0, 0, 0, 1}, payload...)
}

func fragment4(t testing.TB, port layers.UDPPort, first bool, payload string) []byte {
	h := ip4(layers.IPProtocolUDP)
	h.Id = 77
	if first {
		h.Flags = layers.IPv4MoreFragments
		return serialize(t, ether(layers.EthernetTypeIPv4), h, udp(port), gopacket.Payload(payload))
	}
	h.FragOffset = 3
	return serialize(t, ether(layers.EthernetTypeIPv4), h, gopacket.Payload(payload))
}

func fragment6(t testing.TB, offset uint16) []byte {
	// The library can only read this header: next header, reserved, offset and flags, identification.
	header := []byte{17, 0, byte(offset >> 5), byte(offset<<3) | 1, 0, 0, 0, 9}
	return serialize(t, ether(layers.EthernetTypeIPv6), ip6(layers.IPProtocolIPv6Fragment), gopacket.Payload(append(header, make([]byte, 24)...)))
}

// secretless is an octet sequence in which nothing is to be found.
var secretless = bytes.Repeat([]byte{0xa5, 0x3c, 0x99}, 40)

func TestLeaksAreFound(t *testing.T) {
	quote4 := func(kind uint8, quoted []byte) []byte {
		return serialize(t, ether(layers.EthernetTypeIPv4), ip4(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, 3)}, gopacket.Payload(quoted))
	}
	outside := func(h *layers.IPv4) *layers.IPv4 {
		h.SrcIP, h.DstIP = net.IP{198, 51, 100, 1}, net.IP{198, 51, 100, 2}
		return h
	}
	plain6 := serialize(t, ip6(layers.IPProtocolTCP), &layers.TCP{SrcPort: 40000, DstPort: 80, SYN: true})
	ah := append([]byte{17, 4, 0, 0, 0, 0, 16, 1, 0, 0, 0, 1}, make([]byte, 12)...)
	for _, c := range []struct {
		name   string
		want   Kind
		frames [][]byte
	}{
		{"UDP", Clear, [][]byte{udp4(t, 5000, []byte("x"))}},
		{"TCP SYN over IPv6", Clear, [][]byte{serialize(t, ether(layers.EthernetTypeIPv6), ip6(layers.IPProtocolTCP), &layers.TCP{SrcPort: 1, DstPort: 2, SYN: true})}},
		{"echo request", Clear, [][]byte{serialize(t, ether(layers.EthernetTypeIPv4), ip4(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0)})}},
		{"echo reply over IPv6", Clear, [][]byte{serialize(t, ether(layers.EthernetTypeIPv6), ip6(layers.IPProtocolICMPv6), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(129, 0)})}},
		{"behind a VLAN tag", Clear, [][]byte{serialize(t, ether(layers.EthernetTypeDot1Q), &layers.Dot1Q{VLANIdentifier: 7, Type: layers.EthernetTypeIPv4}, ip4(layers.IPProtocolUDP), udp(5000))}},
		{"behind an extension header", Clear, [][]byte{serialize(t, ether(layers.EthernetTypeIPv6), ip6(layers.IPProtocolIPv6Destination), gopacket.Payload([]byte{17, 0, 1, 4, 0, 0, 0, 0, 0, 9, 0, 9, 0, 8, 0, 0}))}},
		{"header cut short", Clear, [][]byte{serialize(t, ether(layers.EthernetTypeIPv6), ip6(layers.IPProtocolIPv6Destination), gopacket.Payload([]byte{17, 9}))}},
		{"length zero of a super-packet", Clear, [][]byte{func() []byte {
			b := udp4(t, 5000, []byte("x"))
			b[16], b[17] = 0, 0
			return b
		}()}},
		{"second fragment alone", Fragment, [][]byte{fragment4(t, 0, false, "rest")}},
		{"second fragment over IPv6", Fragment, [][]byte{fragment6(t, 64)}},
		{"first fragment", Clear, [][]byte{fragment4(t, 5000, true, "sixteen octets..")}},
		{"fragment of the permitted port that nobody announced", Fragment, [][]byte{fragment4(t, 0, false, "rest")}},
		{"quoted by port unreachable", Quoted, [][]byte{quote4(3, plain(t))}},
		{"quoted, eight octets of it", Quoted, [][]byte{quote4(11, plain(t)[:28])}},
		{"quoted by ICMPv6", Quoted, [][]byte{serialize(t, ether(layers.EthernetTypeIPv6), ip6(layers.IPProtocolICMPv6), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(1, 4)}, gopacket.Payload(append(make([]byte, 4), plain6...)))}},
		{"error about nothing that can be read", Clear, [][]byte{quote4(3, []byte{0xff})}},
		{"IP in IP between others", Tunnelled, [][]byte{serialize(t, ether(layers.EthernetTypeIPv4), outside(ip4(layers.IPProtocolIPv4)), gopacket.Payload(plain(t)))}},
		{"IPv6 in IPv4", Tunnelled, [][]byte{serialize(t, ether(layers.EthernetTypeIPv4), outside(ip4(layers.IPProtocolIPv6)), gopacket.Payload(plain6))}},
		{"ESP without encryption", NotEncrypted, [][]byte{serialize(t, ether(layers.EthernetTypeIPv4), ip4(layers.IPProtocolESP), gopacket.Payload(espOf(plain(t))))}},
		{"GMAC: ESP with an IV and without encryption", NotEncrypted, [][]byte{serialize(t, ether(layers.EthernetTypeIPv4), ip4(layers.IPProtocolESP), gopacket.Payload(espOf(append(make([]byte, 8), plain6...))))}},
		{"ESP in UDP without encryption", NotEncrypted, [][]byte{udp4(t, 4500, espOf(plain(t)))}},
		{"behind AH", Authenticated, [][]byte{serialize(t, ether(layers.EthernetTypeIPv4), ip4(layers.IPProtocolAH), gopacket.Payload(append(ah, 0, 9, 0, 9, 0, 8, 0, 0)))}},
		{"marker in ESP", Payload, [][]byte{serialize(t, ether(layers.EthernetTypeIPv4), ip4(layers.IPProtocolESP), gopacket.Payload(espOf([]byte("...."+marker))))}},
		{"marker in IKE", Payload, [][]byte{udp4(t, 500, []byte(marker+marker))}},
		{"marker on the permitted port", Payload, [][]byte{udp4(t, 7999, []byte(marker))}},
		{"marker between others", Payload, [][]byte{serialize(t, ether(layers.EthernetTypeIPv4), outside(ip4(layers.IPProtocolUDP)), udp(1), gopacket.Payload(marker))}},
		{"marker under an unknown type", Payload, [][]byte{serialize(t, ether(0x1234), gopacket.Payload(marker))}},
		{"marker from an injector", Payload, [][]byte{serialize(t, &layers.Ethernet{SrcMAC: injector, DstMAC: macB, EthernetType: layers.EthernetTypeIPv4}, ip4(layers.IPProtocolUDP), udp(5000), gopacket.Payload(marker))}},
		{"to multicast with a marker", Payload, [][]byte{serialize(t, ether(layers.EthernetTypeIPv4), func() *layers.IPv4 {
			h := ip4(layers.IPProtocolUDP)
			h.DstIP = net.IP{224, 0, 0, 9}
			return h
		}(), udp(520), gopacket.Payload(marker))}},
	} {
		t.Run(c.name, func(t *testing.T) {
			j, err := New(statement())
			if err != nil {
				t.Fatal(err)
			}
			var leaks []Leak
			for i, f := range c.frames {
				leaks = append(leaks, j.Observe(begin.Add(time.Duration(i)), "p0", f)...)
			}
			leaks = append(leaks, j.Finish()...)
			if len(leaks) != 1 || leaks[0].Kind != c.want {
				t.Fatalf("leaks are %v, want one: %s", leaks, c.want)
			}
			if l := leaks[0]; l.Where != "p0" || l.Time.Before(begin) || l.Header == "" || l.Hex == "" {
				t.Errorf("leak does not say when, where and what: %+v", l)
			}
			if n := j.Counts(); n.Leaks != 1 || n.LeakKinds[c.want] != 1 {
				t.Errorf("%d leaks are counted, %v, want 1", n.Leaks, n.LeakKinds)
			}
		})
	}
}

func TestWhatMayPassIsCounted(t *testing.T) {
	ike := make([]byte, 60)
	ike[18] = 34
	answer := bytes.Clone(ike)
	answer[18], answer[19] = 36, 0x20
	about := func(b []byte) []byte {
		return serialize(t, ether(layers.EthernetTypeIPv4), ip4(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 4)}, gopacket.Payload(b))
	}
	wrapped := serialize(t, ip4(layers.IPProtocolUDP), udp(4500), gopacket.Payload(espOf(secretless)))
	elsewhere := ip4(layers.IPProtocolUDP)
	elsewhere.DstIP = net.IP{203, 0, 113, 5}
	multicast := ip4(layers.IPProtocolUDP)
	multicast.DstIP = net.IP{224, 0, 0, 251}
	for _, c := range []struct {
		name  string
		frame []byte
		count func(Counts) uint64
	}{
		{"ESP", serialize(t, ether(layers.EthernetTypeIPv4), ip4(layers.IPProtocolESP), gopacket.Payload(espOf(secretless))), func(n Counts) uint64 { return n.ESP }},
		{"ESP over IPv6", serialize(t, ether(layers.EthernetTypeIPv6), ip6(layers.IPProtocolESP), gopacket.Payload(espOf(secretless))), func(n Counts) uint64 { return n.ESP }},
		{"ESP in UDP", udp4(t, 4500, espOf(secretless)), func(n Counts) uint64 { return n.ESPinUDP }},
		{"keep-alive", udp4(t, 4500, []byte{0xff}), func(n Counts) uint64 { return n.KeepAlive }},
		{"IKE_SA_INIT", udp4(t, 500, ike), func(n Counts) uint64 { return n.Exchanges["IKE_SA_INIT request"] }},
		{"CREATE_CHILD_SA on port 4500", udp4(t, 4500, append(make([]byte, 4), answer...)), func(n Counts) uint64 { return n.Exchanges["CREATE_CHILD_SA response"] }},
		{"ARP", serialize(t, ether(layers.EthernetTypeARP), gopacket.Payload(make([]byte, 28))), func(n Counts) uint64 { return n.ARP }},
		{"neighbour solicitation", serialize(t, ether(layers.EthernetTypeIPv6), ip6(layers.IPProtocolICMPv6), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(135, 0)}, gopacket.Payload(make([]byte, 20))), func(n Counts) uint64 { return n.Neighbour }},
		{"permitted, with the canary", udp4(t, 7999, []byte(canary)), func(n Counts) uint64 { return n.Permitted * n.Canaries }},
		{"error about ESP", about(serialize(t, ip4(layers.IPProtocolESP), gopacket.Payload(espOf(secretless)))), func(n Counts) uint64 { return n.Errors }},
		{"error about ESP in UDP, cut short", about(wrapped[:28]), func(n Counts) uint64 { return n.Errors }},
		{"forged packet", serialize(t, &layers.Ethernet{SrcMAC: injector, DstMAC: macB, EthernetType: layers.EthernetTypeIPv4}, ip4(layers.IPProtocolUDP), udp(5000)), func(n Counts) uint64 { return n.Injected }},
		{"multicast", serialize(t, ether(layers.EthernetTypeIPv4), multicast, udp(5353)), func(n Counts) uint64 { return n.Multicast }},
		{"to others", serialize(t, ether(layers.EthernetTypeIPv4), elsewhere, udp(5000)), func(n Counts) uint64 { return n.Other }},
		{"Ethernet cut short", []byte{1, 2, 3}, func(n Counts) uint64 { return n.Malformed }},
	} {
		t.Run(c.name, func(t *testing.T) {
			j, err := New(statement())
			if err != nil {
				t.Fatal(err)
			}
			if leaks := append(j.Observe(begin, "p0", c.frame), j.Finish()...); len(leaks) > 0 {
				t.Fatalf("leaks: %v, want none", leaks)
			}
			if n := j.Counts(); c.count(n) != 1 || n.Frames != 1 || n.Octets != uint64(len(c.frame)) {
				t.Errorf("it is not counted: %+v", n)
			}
		})
	}
}

// Fragments are what their first one is, in whatever order they come.
func TestFragmentsFollowTheFirst(t *testing.T) {
	first, rest := fragment4(t, 4500, true, string(espOf(secretless[:16]))), fragment4(t, 0, false, "the rest")
	open := fragment4(t, 7999, true, "sixteen octets..")
	for name, frames := range map[string][][]byte{
		"ESP in UDP": {first, rest}, "ESP in UDP, other order": {rest, first}, "permitted": {open, rest},
	} {
		t.Run(name, func(t *testing.T) {
			j, err := New(statement())
			if err != nil {
				t.Fatal(err)
			}
			var leaks []Leak
			for _, f := range frames {
				leaks = append(leaks, j.Observe(begin, "p0", f)...)
			}
			if leaks = append(leaks, j.Finish()...); len(leaks) > 0 {
				t.Errorf("leaks: %v, want none", leaks)
			}
		})
	}
}

// Each fragment that was in clear is told.
func TestFragmentsOfALeakAreLeaks(t *testing.T) {
	j, err := New(statement())
	if err != nil {
		t.Fatal(err)
	}
	leaks := j.Observe(begin, "p0", fragment4(t, 5000, true, "sixteen octets.."))
	leaks = append(leaks, j.Observe(begin, "p0", fragment4(t, 0, false, "rest"))...)
	if len(leaks) != 2 || leaks[0].Kind != Clear || leaks[1].Kind != Fragment {
		t.Errorf("leaks are %v, want both fragments at once", leaks)
	}
}

// An orphan is told when it is old, without the end of the capture.
func TestOrphansAreToldInTime(t *testing.T) {
	j, err := New(statement())
	if err != nil {
		t.Fatal(err)
	}
	j.Observe(begin, "p0", fragment4(t, 0, false, "rest"))
	leaks := j.Observe(begin.Add(fragmentLife+time.Second), "p0", udp4(t, 7999, nil))
	if len(leaks) != 1 || leaks[0].Kind != Fragment {
		t.Errorf("leaks are %v, want the fragment", leaks)
	}
}

func TestPcapIsRead(t *testing.T) {
	var b bytes.Buffer
	w := pcapgo.NewWriterNanos(&b)
	if err := w.WriteFileHeader(1<<18, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		frame := udp4(t, 5000, []byte("x"))
		info := gopacket.CaptureInfo{Timestamp: begin.Add(time.Duration(i)), CaptureLength: len(frame), Length: len(frame)}
		if err := w.WritePacket(info, frame); err != nil {
			t.Fatal(err)
		}
	}
	j, err := New(statement())
	if err != nil {
		t.Fatal(err)
	}
	var leaks []Leak
	file := b.Bytes()
	if err := ReadPcap(bytes.NewReader(file), func(at time.Time, data []byte) { leaks = append(leaks, j.Observe(at, "file", data)...) }); err != nil {
		t.Fatal(err)
	}
	if len(leaks) != 2 || !leaks[1].Time.Equal(begin.Add(1)) {
		t.Errorf("leaks are %v, want 2, the second at %s", leaks, begin.Add(1))
	}
	for n := 1; n < len(file); n++ {
		seen := 0
		err := ReadPcap(bytes.NewReader(file[:n]), func(time.Time, []byte) { seen++ })
		if err == nil && n != 24 && n != 24+(len(file)-24)/2 {
			t.Errorf("the first %d of %d octets are read without an error", n, len(file))
		}
		if seen > 1 {
			t.Errorf("%d frames in %d octets", seen, n)
		}
	}
	short := bytes.Clone(file)
	short[24+12]++ // the frame was longer than what was kept of it
	if err := ReadPcap(bytes.NewReader(short), func(time.Time, []byte) {}); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("a frame that was cut off: %v, want an error", err)
	}
}

func TestStatementsThatNothingViolatesAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"empty":            `{}`,
		"unknown field":    `{"protect":[{"a":["192.0.2.0/24"],"b":["192.0.2.0/24"],"protcol":6}]}`,
		"no networks":      `{"protect":[{"name":"x","a":["192.0.2.0/24"]}]}`,
		"port of nothing":  `{"protect":[{"a":["192.0.2.0/24"],"b":["192.0.2.0/24"],"port":80}]}`,
		"short marker":     `{"protect":[{"a":["192.0.2.0/24"],"b":["192.0.2.0/24"]}],"markers":["abc"]}`,
		"empty marker":     `{"protect":[{"a":["192.0.2.0/24"],"b":["192.0.2.0/24"]}],"markers":[""]}`,
		"strange injector": `{"protect":[{"a":["192.0.2.0/24"],"b":["192.0.2.0/24"]}],"injectors":["me"]}`,
		"no JSON":          `protect everything`,
	} {
		if _, err := ParseStatement([]byte(text)); err == nil {
			t.Errorf("%s: %s was accepted", name, text)
		}
	}
	good := `{"protect":[{"name":"x","a":["192.0.2.0/24"],"b":["2001:db8::/64","192.0.2.0/24"],"protocol":17,"port":53}],"markers":["12345678"]}`
	if s, err := ParseStatement([]byte(good)); err != nil || s.Protect[0].Port != 53 {
		t.Errorf("%s: %+v, %v", good, s, err)
	}
}

// FuzzObserve: whatever a frame holds, the judge survives it, counts it, and finds the marker wherever it stands.
func FuzzObserve(f *testing.F) {
	for _, seed := range [][]byte{
		udp4(f, 5000, []byte("x")), udp4(f, 4500, espOf(plain(f))), udp4(f, 500, make([]byte, 40)), fragment4(f, 5000, true, "sixteen octets.."),
		fragment4(f, 0, false, "rest"), fragment6(f, 64), {1, 2, 3},
		serialize(f, ether(layers.EthernetTypeIPv4), ip4(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 3)}, gopacket.Payload(plain(f))),
		serialize(f, ether(layers.EthernetTypeDot1Q), &layers.Dot1Q{Type: layers.EthernetTypeIPv6}, ip6(layers.IPProtocolIPv6HopByHop), gopacket.Payload([]byte{17, 0, 1, 4, 0, 0, 0, 0, 0, 9, 0, 9, 0, 8, 0, 0})),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		j, err := New(statement())
		if err != nil {
			t.Fatal(err)
		}
		j.Observe(begin, "p0", frame)
		if n := j.Counts(); n.Frames != 1 || n.Octets != uint64(len(frame)) {
			t.Errorf("one frame counts %+v", n)
		}
		if leaks := append(j.Observe(begin, "p0", append(frame, marker...)), j.Finish()...); len(leaks) == 0 {
			t.Error("the marker at the end of the frame was not found")
		}
	})
}

// FuzzPcap: no file makes the reader panic, or hand out more than the file holds.
func FuzzPcap(f *testing.F) {
	var b bytes.Buffer
	w := pcapgo.NewWriter(&b)
	if err := w.WriteFileHeader(1<<18, layers.LinkTypeEthernet); err != nil {
		f.Fatal(err)
	}
	frame := udp4(f, 5000, []byte("x"))
	if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: begin, CaptureLength: len(frame), Length: len(frame)}, frame); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, file []byte) {
		total := 0
		_ = ReadPcap(bytes.NewReader(file), func(_ time.Time, data []byte) { total += len(data) })
		if total > len(file) {
			t.Errorf("%d octets of frames in a file of %d", total, len(file))
		}
	})
}
