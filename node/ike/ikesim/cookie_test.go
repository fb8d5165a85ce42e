package ikesim

import (
	"bytes"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

// With the cookie an initiator repeats its request, and nothing else in it changes (RFC 7296 2.6): not even the hash that
// forces encapsulation, which is random.
func TestOnlyTheCookieChanges(t *testing.T) {
	w, a, b := pair(1, calm, pskAuth, nil)
	cfg := a.Config
	cfg.ForceEncap = true
	a.Do(ike.Reconfigure{Config: cfg})
	w.Hold(func(from, _ *Node, exchange uint8, _ bool) bool {
		return from == a && wire.ExchangeType(exchange) == wire.IKESAInit
	})
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(100 * time.Millisecond)
	if len(w.held) != 1 {
		t.Fatalf("want one request, have %d", len(w.held))
	}
	first := w.held[0].ev.(ike.Datagram)
	request := bytes.Clone(first.Bytes)
	h, err := wire.ParseHeader(request)
	if err != nil {
		t.Fatal(err)
	}
	cookie := bytes.Repeat([]byte{7}, 16)
	a.Do(ike.Datagram{Local: first.Remote, Remote: first.Local, Bytes: wire.AppendMessage(nil, wire.Message{
		Header:   wire.Header{SPIi: h.SPIi, Exchange: wire.IKESAInit, Flags: wire.FlagResponse},
		Payloads: []wire.Payload{wire.Notify{Type: wire.NotifyCookie, Data: cookie}},
	})})
	w.Run(100 * time.Millisecond)
	if len(w.held) != 2 {
		t.Fatalf("want a second request, have %d", len(w.held))
	}
	second := w.held[1].ev.(ike.Datagram).Bytes
	const notify = 8 // octets before the cookie
	if !bytes.Contains(second, cookie) || !bytes.Equal(second[wire.HeaderLen+notify+len(cookie):], request[wire.HeaderLen:]) {
		t.Errorf("the request\n%x changed to\n%x", request, second)
	}
	w.held = w.held[1:] // the responder that wanted the cookie has kept nothing of the first
	w.Release()
	w.Run(5 * time.Second)
	mirrored(t, w, a, b, 1)
}
