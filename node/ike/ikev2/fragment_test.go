package ikev2

import (
	"errors"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

func TestCollector(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	frag := func(n, total uint16) wire.Fragment {
		f := wire.Fragment{Number: n, Total: total}
		if n == 1 {
			f.Next = wire.TypeIDi
		}
		return f
	}
	t.Run("any order, repeated", func(t *testing.T) {
		var c collector
		for _, n := range []uint16{3, 1, 1, 3} {
			if _, done := c.add(now, 7, frag(n, 3), []byte{byte(n)}, []byte{9}, 100); done {
				t.Fatal("done with a missing fragment")
			}
		}
		m, done := c.add(now, 7, frag(2, 3), []byte{2}, []byte{9}, 100)
		if !done || string(m) != "\x01\x02\x03" || c.first != wire.TypeIDi {
			t.Errorf("got %v, %v, first %s", m, done, c.first)
		}
	})
	t.Run("a finer attempt replaces a coarser one, an older one is dropped", func(t *testing.T) {
		var c collector
		c.add(now, 7, frag(1, 2), []byte{1}, nil, 100)
		c.add(now, 7, frag(1, 3), []byte{1}, nil, 100)
		c.add(now, 7, frag(2, 2), []byte{2}, nil, 100)
		c.add(now, 7, frag(2, 3), []byte{2}, nil, 100)
		if m, done := c.add(now, 7, frag(3, 3), []byte{3}, nil, 100); !done || len(m) != 3 {
			t.Errorf("got %v, %v", m, done)
		}
	})
	t.Run("limits", func(t *testing.T) {
		var c collector
		if _, done := c.add(now, 7, frag(1, 65), []byte{1}, nil, 100); done || c.total != 0 {
			t.Error("more fragments than the limit are collected")
		}
		c.add(now, 7, frag(1, 2), make([]byte, 60), nil, 100)
		if _, done := c.add(now, 7, frag(2, 2), make([]byte, 60), nil, 100); done || c.octets > 100 {
			t.Error("more octets than the limit are collected")
		}
	})
	t.Run("time and message ID", func(t *testing.T) {
		var c collector
		c.add(now, 7, frag(1, 2), []byte{1}, nil, 100)
		if _, done := c.add(now.Add(time.Minute), 7, frag(2, 2), []byte{2}, nil, 100); done {
			t.Error("an old fragment counts")
		}
		c = collector{}
		c.add(now, 7, frag(1, 2), []byte{1}, nil, 100)
		if _, done := c.add(now, 8, frag(2, 2), []byte{2}, nil, 100); done {
			t.Error("fragments of two messages are put together")
		}
	})
}

// Fragments of a peer that did not announce them are not looked at (RFC 7383 2.3).
func TestFragmentsAreAnnounced(t *testing.T) {
	var s SA
	m := wire.Message{Payloads: []wire.Payload{wire.Fragment{Number: 1, Total: 1}}}
	if _, err := s.open(&s.requests, nil, m); !errors.Is(err, errUnannounced) {
		t.Errorf("got %v, want %v", err, errUnannounced)
	}
}
