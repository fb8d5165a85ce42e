package carrier

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/engine"
	"github.com/bailiwick-net/bailiwick/node/transport"
)

func listen(t *testing.T, port uint16) *transport.Sockets {
	t.Helper()
	s, err := transport.Listen(transport.Config{IKEPort: port, NATPort: port + 1, NoIPv6: true, NoRawESP: true, IKEOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestClassesBecomeLanes(t *testing.T) {
	from, to := netip.MustParseAddrPort("127.0.0.1:45500"), netip.MustParseAddrPort("127.0.0.1:45510")
	peer, own := listen(t, from.Port()), listen(t, to.Port())
	c := New(own)
	classes := map[byte]engine.Class{'p': engine.ClassPeer, 'n': engine.ClassNewcomer, 's': engine.ClassStranger, 'd': engine.ClassDone}
	judged := make(chan struct{}, 100)
	c.Screen(func(d ike.Datagram, room []byte) (engine.Class, []byte) {
		defer func() { judged <- struct{}{} }()
		if d.Local != to || d.Remote != from {
			t.Errorf("a datagram from %s to %s, want %s to %s", d.Remote, d.Local, from, to)
		}
		if d.Bytes[0] == 'd' {
			room = append(room, "answer"...)
		}
		return classes[d.Bytes[0]], room
	})
	sent := []string{"stranger", "done", "newcomer", "peer"}
	for _, text := range sent {
		if err := peer.WriteIKE(from, to, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	for range sent {
		<-judged
	}
	var got []string
	for deadline := time.After(10 * time.Second); len(got) < 3; {
		d, ok := c.Next()
		if ok {
			got = append(got, string(d.Bytes))
			continue
		}
		select {
		case <-c.Arrivals():
		case <-deadline:
			t.Fatalf("only %q came", got)
		}
	}
	if got[0] != "peer" && len(got) == 3 && got[2] == "peer" {
		t.Errorf("the peer waited for all others: %q", got)
	}
	buffer := make([]byte, 100)
	if n, _, _, err := peer.ReadIKE(buffer); err != nil || !bytes.Equal(buffer[:n], []byte("answer")) {
		t.Errorf("the answer is %q, %v", buffer[:n], err)
	}
}

func TestEndOfTheSocketsEndsTheCarrier(t *testing.T) {
	for name, end := range map[string]func(*Carrier, *transport.Sockets) error{
		"closed":  func(_ *Carrier, s *transport.Sockets) error { return s.Close() },
		"stopped": func(c *Carrier, _ *transport.Sockets) error { c.Stop(); return nil },
	} {
		s := listen(t, 45520)
		c := New(s)
		if err := end(c, s); err != nil {
			t.Error(err)
		}
		select {
		case _, ok := <-c.Datagrams():
			if ok {
				t.Errorf("%s: a datagram came", name)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: the channel is not closed", name)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
