package ikesim

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
)

// FuzzEvents turns octets into what happens to two nodes: time, acquires, rekeys, deletes, crashes, held, lost, repeated
// and damaged datagrams, and all that fuzz_events_test.go names. Whatever happens, no engine panics and the invariants
// hold.
func FuzzEvents(f *testing.F) {
	for kind := range byte(8) {
		f.Add(kind, []byte{0, 1, 20, 4, 0, 4, 1, 1, 30, 5, 0, 5, 1, 1, 200})
		f.Add(kind, []byte{0, 1, 20, 6, 0, 7, 1, 1, 50, 8, 0, 1, 100})
		f.Add(kind, []byte{0, 2, 1, 20, 9, 3, 1, 20, 10, 10, 1, 60, 11, 0, 40, 1, 20})
		for _, script := range newerScripts {
			f.Add(kind, script)
		}
	}
	f.Fuzz(func(t *testing.T, kind byte, script []byte) {
		if len(script) > 200 {
			return
		}
		run := func() *World {
			w, a, b := fuzzWorld(kind)
			play(w, []*Node{a, b}, script)
			w.Release()
			w.Run(5 * time.Second)
			return w
		}
		w := run()
		if len(w.Broken) > 0 {
			t.Fatalf("%v\n%s", w.Broken, story(w))
		}
		if story(w) != story(run()) { // I9
			t.Fatal("the same events give two different stories")
		}
	})
}

// play reads commands of one octet and their arguments: the low four bits are the command, the next is the node, and the
// highest takes the command from the newer ones.
func play(w *World, nodes []*Node, script []byte) {
	configs := make(map[*Node]ike.Config, len(nodes))
	for _, n := range nodes {
		configs[n] = n.Config
	}
	next := func() byte {
		if len(script) == 0 {
			return 0
		}
		b := script[0]
		script = script[1:]
		return b
	}
	for len(script) > 0 {
		op := next()
		n := nodes[int(op>>4)%len(nodes)]
		m := nodes[(int(op>>4)+1)%len(nodes)]
		if op&0x80 != 0 {
			newer(w, n, m, op&0x0f, configs[n], next)
			continue
		}
		switch op & 0x0f {
		case 0:
			n.Do(ike.Acquire{Flow: n.asks(m)})
		case 1:
			w.Run(time.Duration(next()) * 5 * time.Millisecond)
		case 2:
			m.Do(ike.Acquire{Flow: m.asks(n)})
		case 3:
			w.Hold(func(*Node, *Node, uint8, bool) bool { return true })
		case 4:
			n.rekeyChild()
		case 5:
			n.rekeyIKE()
		case 6:
			n.deleteChild()
		case 7:
			n.deleteIKE()
		case 8:
			n.Crash()
		case 9:
			w.Release()
		case 10:
			w.disturbed = true
			w.DropHeld()
		case 11: // damage one octet of what is on its way, which is a loss to its receiver
			w.disturbed = true
			if len(w.pending) > 0 {
				e := w.pending[int(next())%len(w.pending)]
				if d, ok := e.ev.(ike.Datagram); ok && len(d.Bytes) > 0 {
					d.Bytes = bytes.Clone(d.Bytes)
					at := binary.BigEndian.Uint16([]byte{next(), next()})
					d.Bytes[int(at)%len(d.Bytes)] ^= 1 + next()%255
					e.ev = d
				}
			}
		case 12: // repeat what is held
			for _, e := range w.held {
				again := *e
				w.schedule(0, &again)
			}
		case 13:
			w.Run(time.Duration(next()) * time.Second)
		case 14:
			n.Do(ike.InstallFailed{SPI: n.child()})
			n.Do(ike.PeerMoved{SPI: n.child(), Remote: netip.AddrPortFrom(addrC, 4500)})
		case 15:
			c := n.Config
			if next()%2 == 0 {
				c.Rules = nil
			}
			n.Do(ike.Reconfigure{Config: c})
		}
	}
}
