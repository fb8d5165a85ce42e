package packet

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// What is cut comes together again, in any order.
func TestFragmentsComeTogetherAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		body := rapid.SliceOfN(rapid.Byte(), 8, 5000).Draw(t, "body")
		mtu := rapid.IntRange(400, 1500).Draw(t, "mtu")
		h := IP{
			Source: netip.MustParseAddr("2001:db8::1"), Destination: netip.MustParseAddr("2001:db8::2"), Protocol: ProtocolESP,
			HopLimit: 64, TrafficClass: 0xb8, PayloadLen: len(body),
		}
		pkt := append(h.AppendHeader(nil), body...)
		var fragments [][]byte
		err := FragmentIPv6(pkt, mtu, 77, func(b []byte) error {
			if len(b) > mtu {
				t.Fatalf("fragment of %d octets, want at most %d", len(b), mtu)
			}
			fragments = append(fragments, slices.Clone(b))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		r := NewReassembler()
		var got []byte
		for i, f := range rapid.Permutation(fragments).Draw(t, "order") {
			info, err := Parse(f)
			if err != nil {
				t.Fatalf("fragment %d: %v", i, err)
			}
			if len(fragments) == 1 {
				got = slices.Concat(f[:6], []byte{ProtocolESP}, f[7:40], f[48:]) // an atomic one (RFC 6946)
				got[4], got[5] = pkt[4], pkt[5]
				break
			}
			if whole, ok := r.Add(time.Unix(1, 0), f, info); ok {
				got = whole
			}
		}
		if !bytes.Equal(got, pkt) {
			t.Fatalf("%d fragments give %x, want %x", len(fragments), got, pkt)
		}
	})
}

func TestFragmentRefuses(t *testing.T) {
	v6 := espPacket(true, false)
	extended := bytes.Clone(v6)
	extended[6] = ProtocolHopByHop
	extended[41] = 0
	stop := errors.New("stop")
	for _, c := range []struct {
		name string
		pkt  []byte
		mtu  int
		want error
	}{
		{"IPv4", espPacket(false, false), 1280, ErrMalformed},
		{"an MTU without room", v6, 55, ErrMalformed},
		{"extension headers", extended, 1280, ErrMalformed},
		{"a cut packet", v6[:100], 1280, ErrTruncated},
		{"an error of the caller", v6, 1280, stop},
	} {
		if err := FragmentIPv6(c.pkt, c.mtu, 1, func([]byte) error { return stop }); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}
