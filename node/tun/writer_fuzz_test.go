package tun_test

import (
	"bytes"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/packet"
)

// FuzzWriter gives a Writer a row of packets that a peer may have chosen: octets, and where they are cut. What is written
// can be split by the kernel, and no packet is lost or made.
func FuzzWriter(f *testing.F) {
	row := func(packets ...[]byte) (all []byte, cuts []byte) {
		for _, p := range packets {
			all, cuts = append(all, p...), append(cuts, byte(len(p)))
		}
		return all, cuts
	}
	for _, base := range []flow{{port: 1}, {port: 2, v6: true}, {port: 3, udp: true}, {port: 4, udp: true, v6: true}} {
		all, cuts := row(base.next(100, ack), base.next(100, ack), base.next(50, ack|psh), base.next(0, ack), base.next(100, fin|ack))
		f.Add(all, cuts, false)
		f.Add(all, cuts, true)
	}
	f.Fuzz(func(t *testing.T, all, cuts []byte, unknown bool) {
		w, peer := newWriter(t, allOffloads)
		defer peer.Close()
		sum := 0
		for _, n := range cuts[:min(len(cuts), 64)] {
			size := min(int(n), len(all))
			pkt := bytes.Clone(all[:size])
			all = all[size:]
			info, err := packet.Parse(pkt)
			if added := w.Add(pkt, unknown); (added == nil) != (err == nil) {
				t.Fatalf("%x parses with %v, and is added with %v", pkt, err, added)
			}
			if err == nil {
				sum += info.Length - info.HeaderLen
			}
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		stats := w.Stats()
		payload := 0
		packets := arrived(t, peer, int(stats.Writes))
		for _, pkt := range packets {
			info, err := packet.Parse(pkt)
			if err != nil {
				t.Fatalf("%x is written: %v", pkt, err)
			}
			payload += info.Length - info.HeaderLen
		}
		if uint64(len(packets)) != stats.Packets || payload != sum {
			t.Fatalf("%d packets with %d octets became %d with %d", stats.Packets, sum, len(packets), payload)
		}
	})
}
