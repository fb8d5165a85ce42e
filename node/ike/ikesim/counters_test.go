package ikesim

import (
	"net/netip"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/node/statistics"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// TestGuardIsTold lets many begin and never go on: that cookies are wanted is told once, and once that they are not.
func TestGuardIsTold(t *testing.T) {
	w, a, b := pair(1, calm, pskAuth, nil)
	for i := range 200 {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i / 100), byte(i)}), 500)
		b.Do(ike.Datagram{Local: netip.AddrPortFrom(addrB, 500), Remote: from, Bytes: initRequest(uint64(i+1), nil)})
		w.Run(time.Millisecond)
	}
	if on, all := count(w, "b.example", "guard first messages need a cookie"), count(w, "b.example", "] guard "); on != 1 || all != 1 {
		t.Fatalf("that cookies are wanted is told %d times of %d\n%s", on, all, story(w))
	}
	w.Run(40 * time.Second) // the half-open SAs are gone
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(time.Second)
	if off, all := count(w, "b.example", "guard first messages need no cookie"), count(w, "b.example", "] guard "); off != 1 || all != 2 {
		t.Errorf("that cookies are no longer wanted is told %d times of %d", off, all)
	}
}

// figures are the statistics of a node's IKE engine, by name.
func figures(n *Node) map[string]uint64 {
	all := make(map[string]uint64)
	for _, f := range statistics.Figures(statistics.Sources{IKE: n.Engine.Snapshot()}) {
		if f.Group == "ike" {
			all[f.Name] = f.Value
		}
	}
	return all
}

// TestEveryStatisticMoves lets happen what each figure of IKE counts, and nothing counts it before.
func TestEveryStatisticMoves(t *testing.T) {
	elsewhere := map[string]string{
		"active_receive":   "a queue of the transport",
		"receive_failures": "counted by the transport",
		"send_failures":    "counted by the driver",
	}
	established := func(t *testing.T) (w *World, a, b *Node) {
		w, a, b = pair(1, calm, pskAuth, nil)
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(time.Second)
		mirroredNow(t, a, b)
		return w, a, b
	}
	// from gives b a datagram of a.
	from := func(b *Node, octets []byte) {
		b.Do(ike.Datagram{Local: netip.AddrPortFrom(addrB, 500), Remote: netip.AddrPortFrom(addrA, 500), Bytes: octets})
	}
	// lastOf lets a say something and returns its message instead of delivering it.
	lastOf := func(w *World, a *Node) []byte {
		w.Hold(func(f, _ *Node, _ uint8, _ bool) bool { return f == a })
		a.rekeyChild()
		w.Run(time.Millisecond)
		octets := w.held[len(w.held)-1].ev.(ike.Datagram).Bytes
		w.DropHeld()
		w.disturbed = true
		return octets
	}
	moved := make(map[string]bool)
	for _, c := range []struct {
		name   string
		play   func(t *testing.T) (node *Node, before func())
		figure []string
	}{
		{"the initiator of a pair", func(t *testing.T) (*Node, func()) {
			w, a, _ := pair(1, calm, pskAuth, nil)
			return a, func() { a.Do(ike.Acquire{Flow: flow(addrA, addrB)}); w.Run(time.Second) }
		}, []string{
			"total_acquire", "started_main_modes", "main_modes", "quick_modes", "total_get_spi", "key_additions", "key_updates",
			"isadb_list_size", "active_main_modes",
		}},
		{"the responder", func(t *testing.T) (*Node, func()) {
			w, a, b := pair(1, calm, pskAuth, nil)
			return b, func() { a.Do(ike.Acquire{Flow: flow(addrA, addrB)}); w.Run(time.Second) }
		}, []string{"responder_main_modes", "main_modes", "quick_modes"}},
		{"a flow under way", func(t *testing.T) (*Node, func()) {
			_, a, _ := pair(1, calm, pskAuth, nil)
			return a, func() { a.Do(ike.Acquire{Flow: flow(addrA, addrB)}) }
		}, []string{"active_acquire", "active_jobs"}},
		{"rekeys", func(t *testing.T) (*Node, func()) {
			w, a, _ := established(t)
			return a, func() { a.rekeyChild(); a.rekeyIKE(); w.Run(2 * time.Second) }
		}, []string{"quick_mode_rekeys", "main_mode_rekeys"}},
		{"an exchange under way", func(t *testing.T) (*Node, func()) {
			_, a, _ := established(t)
			return a, func() { a.deleteChild() }
		}, []string{"connection_list_size"}},
		{"a wrong key", func(t *testing.T) (*Node, func()) {
			w, a, b := pair(1, calm, pskAuth, nil)
			cfg := b.Config
			cfg.Secrets = map[string]sa.Secret{"shared": sa.NewSecret([]byte("another preshared key, which differs"))}
			b.Do(ike.Reconfigure{Config: cfg})
			return a, func() { a.Do(ike.Acquire{Flow: flow(addrA, addrB)}); w.Run(time.Second) }
		}, []string{"negotiation_failures", "authentication_failures", "main_mode_failures", "acquire_failures"}},
		{"a Child SA that the peer does not allow", func(t *testing.T) (*Node, func()) {
			w, a, b := pair(1, calm, pskAuth, nil)
			cfg := b.Config
			cfg.Rules = []ike.Rule{cfg.Rules[0]}
			cfg.Rules[0].Offers = []proposal.ESP{{Encryption: proposal.EncrChaCha20Poly1305}}
			b.Do(ike.Reconfigure{Config: cfg})
			return a, func() { a.Do(ike.Acquire{Flow: flow(addrA, addrB)}); w.Run(time.Second) }
		}, []string{"quick_mode_failures", "negotiation_failures"}},
		{"a silent peer", func(t *testing.T) (*Node, func()) {
			w, a, b := pair(1, calm, pskAuth, func(r *ike.Rule) { r.Fallback = spd.Fallback{Mode: spd.FallbackWait} })
			b.Off = true
			return a, func() { a.Do(ike.Acquire{Flow: flow(addrA, addrB)}); w.Run(5 * time.Second) }
		}, []string{"soft_associations"}},
		{"a datapath that refuses", func(t *testing.T) (*Node, func()) {
			_, a, _ := established(t)
			return a, func() {
				a.Do(ike.InstallFailed{SPI: a.child(), Outbound: true})
				a.Do(ike.InstallFailed{SPI: 1})
			}
		}, []string{"key_addition_failures", "key_update_failures"}},
		{"garbage", func(t *testing.T) (*Node, func()) {
			_, _, b := pair(1, calm, pskAuth, nil)
			return b, func() { from(b, []byte("this is no IKE message at all")) }
		}, []string{"invalid_packets_received"}},
		{"another version", func(t *testing.T) (*Node, func()) {
			_, _, b := pair(1, calm, pskAuth, nil)
			return b, func() { from(b, replace(initRequest(1, nil), 17, 0x10)) }
		}, []string{"invalid_packets_received"}},
		{"a forged message", func(t *testing.T) (*Node, func()) {
			w, a, b := established(t)
			m := lastOf(w, a)
			return b, func() { from(b, replace(m, len(m)-1, m[len(m)-1]^1)) }
		}, []string{"invalid_packets_received"}},
		{"a message without protection", func(t *testing.T) (*Node, func()) {
			w, a, b := established(t)
			h, err := wire.ParseHeader(lastOf(w, a))
			if err != nil {
				t.Fatal(err)
			}
			return b, func() { from(b, wire.AppendMessage(nil, wire.Message{Header: h})) }
		}, []string{"invalid_packets_received"}},
		{"a message that comes back", func(t *testing.T) (*Node, func()) {
			w, a, _ := established(t)
			m := lastOf(w, a)
			return a, func() { from(a, m) } // it names the SPI of the peer as that of the receiver
		}, []string{"invalid_cookies_received"}},
		{"a message ahead of its time", func(t *testing.T) (*Node, func()) {
			w, a, b := established(t)
			m := lastOf(w, a)
			return b, func() { from(b, replace(m, 23, m[23]+5)) }
		}, []string{"repeated_packets_received"}},
		{"an SA that is not there", func(t *testing.T) (*Node, func()) {
			w, a, b := established(t)
			m := lastOf(w, a)
			return b, func() { from(b, replace(m, 8, m[8]^1)) }
		}, []string{"invalid_cookies_received"}},
		{"many that begin and never go on", func(t *testing.T) (*Node, func()) {
			w, _, b := pair(1, calm, pskAuth, nil)
			return b, func() {
				for i := range 12 {
					port := netip.AddrPortFrom(addrC, uint16(1000+i))
					request := func(cookie []byte) {
						b.Do(ike.Datagram{Local: netip.AddrPortFrom(addrB, 500), Remote: port, Bytes: initRequest(uint64(i+1), cookie)})
					}
					var cookie []byte
					w.sniff = func(s ike.Send) {
						m, err := wire.ParseMessage(s.Bytes, wire.LimitBeforeAuth)
						if n, ok := wire.FindNotify(m.Payloads, wire.NotifyCookie); ok && err == nil {
							cookie = n.Data
						}
					}
					request(nil)
					w.Run(time.Millisecond)
					if cookie != nil {
						request(cookie)
						w.Run(time.Millisecond)
					}
				}
			}
		}, []string{"cookies_sent", "half_open_refusals"}},
		{"one that sends before it can be understood", func(t *testing.T) (*Node, func()) {
			w, _, b := pair(1, calm, pskAuth, nil)
			var own wire.SPI
			w.sniff = func(s ike.Send) {
				if h, err := wire.ParseHeader(s.Bytes); err == nil {
					own = h.SPIr
				}
			}
			from(b, initRequest(1, nil))
			w.Run(time.Millisecond)
			early := wire.AppendMessage(nil, wire.Message{
				Header:   wire.Header{SPIi: 1, SPIr: own, Exchange: wire.IKEAuth, Flags: wire.FlagInitiator, MessageID: 1},
				Payloads: []wire.Payload{wire.Encrypted{Next: wire.TypeIDi, Body: make([]byte, 1000)}},
			})
			return b, func() {
				for range 100 {
					from(b, early)
				}
			}
		}, []string{"buffer_refusals"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			node, happen := c.play(t)
			before := figures(node)
			happen()
			after := figures(node)
			for _, name := range c.figure {
				if _, known := after[name]; !known {
					t.Errorf("there is no figure %s", name)
				}
				if after[name] <= before[name] {
					t.Errorf("%s stays %d", name, after[name])
				}
				moved[name] = true
			}
			for name := range after {
				if after[name] < before[name] && name != "active_main_modes" && name != "isadb_list_size" {
					t.Errorf("%s falls from %d to %d", name, before[name], after[name])
				}
			}
		})
	}
	_, a, _ := pair(1, calm, pskAuth, nil)
	for name := range figures(a) {
		if !moved[name] && elsewhere[name] == "" {
			t.Errorf("nothing here moves %s", name)
		}
	}
}
