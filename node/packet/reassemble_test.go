package packet

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"pgregory.net/rapid"
)

// cut returns the fragments of a whole packet, each with at most size octets of it, a multiple of 8.
func cut(pkt []byte, size int) [][]byte {
	var all [][]byte
	header := 20
	if pkt[0]>>4 == 6 {
		header = 40
	}
	for at := 0; at < len(pkt)-header; at += size {
		body := pkt[header+at : min(header+at+size, len(pkt))]
		more := header+at+size < len(pkt)
		field := uint16(at)
		if header == 20 {
			field /= 8
			if more {
				field |= 0x2000
			}
			f := slices.Concat(pkt[:20], body)
			binary.BigEndian.PutUint16(f[2:], uint16(len(f)))
			binary.BigEndian.PutUint16(f[6:], field)
			SetIPv4Checksum(f)
			all = append(all, f)
			continue
		}
		if more {
			field |= 1
		}
		f := slices.Concat(pkt[:40], []byte{pkt[6], 0, byte(field >> 8), byte(field), 0, 0, 0, 9}, body)
		f[6] = ProtocolFragment
		binary.BigEndian.PutUint16(f[4:], uint16(len(f)-40))
		all = append(all, f)
	}
	return all
}

func add(t interface{ Fatal(...any) }, r *Reassembler, now time.Time, pkt []byte) ([]byte, bool) {
	info, err := Parse(pkt)
	if err != nil {
		t.Fatal(err)
	}
	return r.Add(now, pkt, info)
}

func bigUDP(t interface{ Fatal(...any) }, v6 bool, n int) []byte {
	payload := make(gopacket.Payload, n)
	for i := range payload {
		payload[i] = byte(i * 7)
	}
	if v6 {
		return reference(t, ip6(layers.IPProtocolUDP), &layers.UDP{SrcPort: 4000, DstPort: 53}, payload)
	}
	ip := ip4(layers.IPProtocolUDP)
	ip.Flags, ip.Id = 0, 77
	return reference(t, ip, &layers.UDP{SrcPort: 4000, DstPort: 53}, payload)
}

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestFragmentsInAnyOrderMakeThePacket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := bigUDP(t, rapid.Bool().Draw(t, "v6"), rapid.IntRange(100, 3000).Draw(t, "payload"))
		fragments := cut(want, 8*rapid.IntRange(8, 60).Draw(t, "size"))
		if len(fragments) == 1 {
			t.Skip("one fragment is the packet")
		}
		fragments = rapid.Permutation(fragments).Draw(t, "order")
		if rapid.Bool().Draw(t, "repeat one") {
			fragments = slices.Insert(fragments, 1, fragments[0])
		}
		r := NewReassembler()
		for k, f := range fragments {
			got, ok := add(t, r, start, f)
			if ok != (k == len(fragments)-1) {
				t.Fatalf("fragment %d of %d: whole %v", k, len(fragments), ok)
			}
			if ok && !bytes.Equal(got, want) {
				t.Fatalf("got %x, want %x", got, want)
			}
		}
		if r.Pending() != 0 || r.octets != 0 {
			t.Fatalf("%d packets and %d octets are left", r.Pending(), r.octets)
		}
	})
}

func TestFragmentsThatLieAreDropped(t *testing.T) {
	fragments := cut(bigUDP(t, false, 400), 104)
	overlap := slices.Clone(fragments[1])
	binary.BigEndian.PutUint16(overlap[6:], 0x2000|12) // one unit earlier
	another := slices.Clone(fragments[1])
	another[30] ^= 1
	odd := slices.Clone(fragments[1][:len(fragments[1])-1])
	binary.BigEndian.PutUint16(odd[2:], uint16(len(odd)))
	beyond := slices.Clone(fragments[1])
	binary.BigEndian.PutUint16(beyond[6:], 0x1ffe)
	later := withOffset(fragments[2], 0x2000|26)
	for name, sequence := range map[string][][]byte{
		"an overlap":                     {fragments[0], overlap},
		"other octets at the same place": {fragments[1], another},
		"an end that is not a multiple of 8 in the middle": {fragments[0], odd},
		"an end beyond 65535":                              {fragments[0], beyond},
		"an end before what came already":                  {later, withOffset(fragments[1], 13)},
		"two ends":                                         {fragments[3], withOffset(fragments[3], 26)},
	} {
		r := NewReassembler()
		for _, f := range sequence {
			if info, err := Parse(f); err == nil && info.Fragment {
				if got, ok := r.Add(start, f, info); ok {
					t.Errorf("%s: made %x", name, got)
				}
			}
		}
		if r.Pending() != 0 {
			t.Errorf("%s: %d packets are kept", name, r.Pending())
		}
	}
	if _, ok := NewReassembler().Add(start, fragments[0], Info{}); ok {
		t.Error("what is no fragment was taken for one")
	}
}

func withOffset(f []byte, units uint16) []byte {
	f = slices.Clone(f)
	binary.BigEndian.PutUint16(f[6:], units)
	return f
}

func TestReassemblyIsBoundedInTimeAndMemory(t *testing.T) {
	r := NewReassembler()
	fragments := cut(bigUDP(t, false, 400), 104)
	add(t, r, start, fragments[0])
	add(t, r, start, fragments[1])
	add(t, r, start, fragments[2])
	if got, ok := add(t, r, start.Add(ReassemblyTimeout), fragments[3]); ok || r.Pending() != 1 {
		t.Errorf("fragments too late made %x, %d packets are kept", got, r.Pending())
	}
	big := cut(bigUDP(t, false, 60000), 1400)
	for id := range uint16(400) {
		for _, f := range big[:10] {
			f = slices.Clone(f)
			binary.BigEndian.PutUint16(f[4:], id)
			add(t, r, start.Add(time.Duration(id)*time.Millisecond), f)
		}
		if r.octets > maxReassembly {
			t.Fatalf("%d octets are kept", r.octets)
		}
	}
	if got := r.Pending() * 14000; got < maxReassembly/2 || got > maxReassembly+14000 {
		t.Errorf("%d packets of 14000 octets are kept", r.Pending())
	}
	r.Expire(start.Add(time.Hour))
	if r.Pending() != 0 || r.octets != 0 {
		t.Errorf("%d packets and %d octets are left", r.Pending(), r.octets)
	}
}

// FuzzReassemble adds any two packets, the first one twice.
func FuzzReassemble(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		fragments := cut(bigUDP(f, v6, 200), 104)
		f.Add(fragments[0], fragments[1])
		f.Add(fragments[1], fragments[0])
		f.Add(fragments[0], with(bigUDP(f, true, 20), hopByHop, fragmentEnd))
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		r := NewReassembler()
		for _, pkt := range [][]byte{a, b, a} {
			info, err := Parse(pkt)
			if err != nil {
				continue
			}
			if whole, ok := r.Add(start, pkt, info); ok {
				length := int(binary.BigEndian.Uint16(whole[2:]))
				if whole[0]>>4 == 6 {
					length = 40 + int(binary.BigEndian.Uint16(whole[4:]))
				}
				if length != len(whole) {
					t.Fatalf("whole packet of %d octets says %d", len(whole), length)
				}
			}
		}
	})
}
