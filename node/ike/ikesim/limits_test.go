package ikesim

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Whoever makes this side ask thousands of silent addresses for security, by clear packets with invented sources, does not
// keep a peer out that answers.
func TestSilentPeersDoNotKeepOthersOut(t *testing.T) {
	w, a, b := pair(1, calm, pskAuth, func(r *ike.Rule) { r.Fallback = spd.Fallback{Mode: spd.FallbackWait} })
	w.Tracing, w.unchecked = false, true
	const flows = 4096 // the engine takes no more at a time
	for i := range flows {
		a.Do(ike.Acquire{Flow: flow(addrA, netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}))})
	}
	a.Do(ike.Acquire{Flow: flow(addrA, addrC)})
	if n := len(a.Results); n != 1 {
		t.Fatalf("one flow more than the limit, before anyone was silent for long: want it refused, have %d results", n)
	}
	w.Run(4 * time.Second)
	if n := len(a.Results); n != flows+1 {
		t.Fatalf("want %d flows in clear, have %d results", flows, n-1)
	}
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(time.Second)
	mirroredNow(t, a, b)
	for _, r := range a.Results[flows+1:] {
		t.Errorf("unexpected %T", r)
	}
}

// An SA that failed stays a while to repeat its last answer. Failing again and again does not fill the table.
func TestFailuresDoNotFillTheTable(t *testing.T) {
	w, _, b := pair(1, Faults{Delay: time.Millisecond}, pskAuth, nil)
	w.Tracing = false
	c := w.Add("c.example", addrC, config("c.example", addrC, meshRule(addrC, pskAuth)))
	c.Config.Secrets = map[string]sa.Secret{"shared": sa.NewSecret([]byte("another preshared key, which is wrong"))}
	var first []byte // IKE_AUTH request of the first attempt
	w.Hold(func(from, _ *Node, exchange uint8, _ bool) bool {
		return from == c && wire.ExchangeType(exchange) == wire.IKEAuth && first == nil
	})
	attempt := func() {
		c.Crash()
		c.Do(ike.Acquire{Flow: flow(addrC, addrB)})
		w.Run(20 * time.Millisecond)
	}
	attempt()
	if len(w.held) != 1 {
		t.Fatalf("want one IKE_AUTH request, have %d", len(w.held))
	}
	request := w.held[0].ev.(ike.Datagram)
	first = bytes.Clone(request.Bytes)
	w.Release()
	w.Run(20 * time.Millisecond)
	unknown := func() uint64 { return b.Engine.Snapshot().Counters["dropped_unknown_spi"] }
	repeat := func() (answered bool) {
		before := unknown()
		b.Do(ike.Datagram{Local: request.Local, Remote: request.Remote, Bytes: first})
		return unknown() == before
	}
	if !repeat() {
		t.Error("the answer to a failed IKE_AUTH is not repeated")
	}
	for range 300 {
		attempt()
	}
	if n := b.Engine.Snapshot().Counters["ike_closed"]; n < 300 {
		t.Fatalf("only %d attempts came as far as a failure", n)
	}
	if repeat() {
		t.Error("after 300 failures the first is still remembered")
	}
}
