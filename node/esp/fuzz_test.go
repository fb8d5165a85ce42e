package esp

import (
	"bytes"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/sa"
)

// FuzzOpenESP opens any octets with every suite: nothing forged may come out. The seeds are real packets.
func FuzzOpenESP(f *testing.F) {
	for _, suite := range suites {
		out, err := NewOutbound(testChild(f, suite, sa.Transport, true))
		if err != nil {
			f.Fatal(err)
		}
		for _, n := range []int{0, 1, 100} {
			b, err := out.Seal(nil, udp(n, true))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b, 0, len(b), uint64(0))
			f.Add(b, 0, len(b), uint64(1<<32))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, start, end int, highest uint64) {
		for name, suite := range suites {
			for _, mode := range []sa.Mode{sa.Transport, sa.Tunnel} {
				suite.ESN = highest > 1<<31
				c := testChild(t, suite, mode, true)
				c.In.SPI = 0xfeedbeef // the seeds' own keys, but another SPI
				if len(b) >= 4 {
					copy(b, "\xfe\xed\xbe\xef")
				}
				in, err := NewInbound(c)
				if err != nil {
					t.Fatal(err)
				}
				in.window.accept(max(highest, 1))
				if o, err := in.Open(bytes.Clone(b), start, end); err == nil {
					t.Fatalf("%s %s opened %x as %x", name, mode, b, o.Packet)
				}
			}
		}
	})
}

// FuzzTrim feeds plaintext that a peer with the right key chose.
func FuzzTrim(f *testing.F) {
	f.Add(append(udp(3, false), 1, 2, 2, 4))
	f.Add(append(udp(2, true), 0, 41))
	f.Add([]byte{1, 2, 3, 3, 59, 0, 0, 17})
	f.Fuzz(func(t *testing.T, plain []byte) {
		if len(plain)%4 != 0 || len(plain) < 4 || len(plain) > 60000 {
			return
		}
		for _, mode := range []sa.Mode{sa.Transport, sa.Tunnel} {
			out, in := newPair(t, testChild(t, suites["aes-gcm-128"], mode, false))
			b := craft(out, 1, plain)
			o, err := open(in, b)
			if err != nil {
				continue
			}
			if length, ok := ipLength(o.Packet); !ok || length != len(o.Packet) {
				t.Fatalf("opened %x, which is not one IP packet", o.Packet)
			}
		}
	})
}
