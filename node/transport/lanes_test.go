package transport

import (
	"bytes"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

func TestLanesTakeTurns(t *testing.T) {
	q := newQueue(100)
	at := netip.MustParseAddrPort("192.0.2.1:500")
	for i := range 100 {
		for lane := range lanes {
			if !q.put(lane, []byte{byte(lane), byte(i)}, at, at) {
				t.Fatalf("lane %d is full after %d messages", lane, i)
			}
		}
	}
	if q.put(LaneThird, []byte{2, 100}, at, at) {
		t.Error("a full lane takes one more")
	}
	var seen [lanes]int
	for i := range 3 * 100 {
		m, ok := q.take()
		if !ok {
			t.Fatalf("nothing left after %d messages", i)
		}
		if lane := m.octets[0]; int(m.octets[1]) != seen[lane] {
			t.Fatalf("lane %d gives message %d, want %d", lane, m.octets[1], seen[lane])
		}
		seen[m.octets[0]]++
		if i == 12 && seen != turns {
			t.Errorf("the first 13 messages are %v of the lanes, want %v", seen, turns)
		}
	}
	if _, ok := q.take(); ok {
		t.Error("an empty queue gives a message")
	}
}

// One lane is a queue, whatever is put and taken in between.
func TestLaneKeepsOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		depth := rapid.IntRange(1, 100).Draw(t, "depth")
		q, at := newQueue(depth), netip.MustParseAddrPort("192.0.2.1:500")
		var model []byte
		next := byte(0)
		for range 200 {
			for range rapid.IntRange(0, 40).Draw(t, "put") {
				if ok := q.put(LaneSecond, []byte{next}, at, at); ok != (len(model) < depth) {
					t.Fatalf("put with %d of %d waiting: %v", len(model), depth, ok)
				} else if ok {
					model = append(model, next)
				}
				next++
			}
			for range rapid.IntRange(0, 40).Draw(t, "take") {
				m, ok := q.take()
				if ok != (len(model) > 0) {
					t.Fatalf("take with %d waiting: %v", len(model), ok)
				} else if ok {
					if m.octets[0] != model[0] {
						t.Fatalf("took %d, want %d", m.octets[0], model[0])
					}
					model = model[1:]
				}
			}
		}
	})
}

func TestScreenAnswersAndSorts(t *testing.T) {
	n := newNamespace(t)
	a, b := n.listen(t, Config{IKEPort: 501, NATPort: 4501, IKEOnly: true}), n.listen(t, Config{IKEOnly: true})
	b.SetScreen(func(_, _ netip.AddrPort, octets, room []byte) (Lane, []byte) {
		switch octets[0] {
		case 'd':
			return LaneNone, room
		case 'a':
			return LaneNone, append(append(room, "answer to "...), octets...)
		}
		return LaneSecond, room
	})
	for _, c := range []struct{ from, to string }{{"127.0.0.1:501", "127.0.0.1:500"}, {"127.0.0.1:4501", "127.0.0.1:4500"}, {"[::1]:501", "[::1]:500"}} {
		from, to := netip.MustParseAddrPort(c.from), netip.MustParseAddrPort(c.to)
		for _, text := range []string{"drop", "ask", "keep"} {
			if err := a.WriteIKE(from, to, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		buffer := make([]byte, 100)
		size, local, remote, err := b.ReadIKE(buffer)
		if err != nil || string(buffer[:size]) != "keep" || local != to || remote != from {
			t.Errorf("%s: read %q at %s from %s, %v", c.to, buffer[:size], local, remote, err)
		}
		size, _, remote, err = a.ReadIKE(buffer)
		if err != nil || !bytes.Equal(buffer[:size], []byte("answer to ask")) || remote != to {
			t.Errorf("%s: the answer is %q from %s, %v", c.to, buffer[:size], remote, err)
		}
	}
}
