package esp

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// FuzzSeal seals what an application can send through a raw socket: any octets. What is sealed is one IP packet, and opens
// to what went in.
func FuzzSeal(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		f.Add(udp(0, v6))
		f.Add(udp(100, v6))
	}
	extended := udp(16, true) // hop-by-hop options before, destination options after
	extended = append(append(bytes.Clone(extended[:40]), 60, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0), extended[40:]...)
	extended[6] = 0
	binary.BigEndian.PutUint16(extended[4:], uint16(len(extended)-40))
	f.Add(extended)
	f.Fuzz(func(t *testing.T, pkt []byte) {
		if len(pkt) > 60000 {
			return
		}
		for _, mode := range []sa.Mode{sa.Transport, sa.Tunnel} {
			out, in := newPair(t, testChild(t, suites["aes-gcm-128"], mode, false))
			sealed, err := out.Seal(make([]byte, Headroom), bytes.Clone(pkt))
			if err != nil {
				continue
			}
			length, ok := ipLength(pkt)
			if !ok {
				t.Fatalf("%x is no packet, and is sealed", pkt)
			}
			o, err := open(in, sealed)
			if err != nil && mode == sa.Tunnel {
				t.Fatalf("%x is sealed to what does not open: %v", pkt, err)
			}
			if mode == sa.Tunnel && !bytes.Equal(o.Packet, pkt[:length]) {
				t.Fatalf("%x opens as %x", pkt[:length], o.Packet)
			}
			if mode == sa.Tunnel {
				continue
			}
			whole, err := out.SealIP(nil, bytes.Clone(pkt), 4500, 4500)
			if err != nil {
				continue
			}
			info, err := packet.Parse(whole)
			if err != nil || info.Length != len(whole) || info.NextHeader != packet.ProtocolESP {
				t.Fatalf("%x is sealed to %x, which is %+v, %v", pkt[:length], whole, info, err)
			}
		}
	})
}
