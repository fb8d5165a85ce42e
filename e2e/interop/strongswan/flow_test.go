package strongswan

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
)

// TestShortLifetimes runs TCP connections in both directions for a minute while Child SAs live 8 s and IKE SAs 20 s, by
// the decision of either side. No connection may break, and nothing may go in clear.
func TestShortLifetimes(t *testing.T) {
	t.Parallel()
	duration := time.Minute
	if testing.Short() {
		duration = 25 * time.Second
	}
	for _, c := range []struct {
		name   string
		policy pair.Policy
		peer   []func(*charon.Config)
	}{
		{"node", pair.Policy{ESP: "ESP[AES-GCM-256]:8s", IKELifetime: "20s"}, nil},
		{"peer", pair.Policy{}, []func(*charon.Config){
			pair.Connection("rekey_time", "20s"), pair.Connection("rand_time", "2s"), pair.Connection("over_time", "20s"),
			pair.Child("rekey_time", "8s"), pair.Child("rand_time", "1s"), pair.Child("life_time", "16s"),
		}},
		// Both at the same time, so that they collide now and then (RFC 7296 2.8.1, 2.25).
		{"both", pair.Policy{ESP: "ESP[AES-GCM-256]:8s", IKELifetime: "20s"}, []func(*charon.Config){
			pair.Connection("rekey_time", "17s"), pair.Connection("rand_time", "2s"), pair.Connection("over_time", "20s"),
			pair.Child("rekey_time", "7s"), pair.Child("rand_time", "1s"), pair.Child("life_time", "16s"),
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, capture := established(t, pair.FromNode, c.policy, c.peer...)
			first := p.Ours()
			stops := []func() int{p.Stream(pair.FromNode), p.Stream(pair.FromPeer)}
			children, ikes := map[string]bool{}, map[string]bool{}
			tick := time.NewTicker(250 * time.Millisecond)
			defer tick.Stop()
			for end := time.After(duration); end != nil; {
				select {
				case <-end:
					end = nil
				case <-tick.C:
					for _, s := range p.Ours().IKE {
						ikes[s.SPI] = true
					}
					for _, s := range p.Ours().Children {
						children[s.In] = true
					}
				}
			}
			messages := stops[0]() + stops[1]()
			// The peer may let a Child SA run out when its rekey job meets its own rekey of the IKE SA, and its userspace ESP
			// sends in clear until the next one is there. What the node sends is the claim here.
			w := p.SentNothingClear(capture)
			t.Logf("%d messages, %d Child SAs, %d IKE SAs, on the wire: %+v", messages, len(children), len(ikes), w)
			if wantChildren, wantIKE := int(duration/(10*time.Second)), int(duration/(25*time.Second)); len(children) <= wantChildren || len(ikes) <= wantIKE {
				t.Errorf("%d Child SAs and %d IKE SAs, want more than %d and %d", len(children), len(ikes), wantChildren, wantIKE)
			}
			if s, err := p.Client.Status(p.Ctx); err != nil || len(s.Failures) != 0 {
				t.Errorf("the node tells of failures: %+v, %v", s.Failures, err)
			}
			if last := p.Ours(); len(last.IKE) > 2 || len(last.Children) > 3 || last.IKE[0].SPI == first.IKE[0].SPI {
				t.Errorf("at the end the node has %+v", last)
			}
		})
	}
}

// TestChildLimit: a peer that knows no limit of Child SAs for each key exchange is made to wait until the node has rekeyed the
// IKE SA, and goes on; where the node rekeys it does so first. No message is lost meanwhile.
func TestChildLimit(t *testing.T) {
	t.Parallel()
	const limit = "  childLimit: 1\n"
	for _, c := range []struct {
		name   string
		policy pair.Policy
		peer   []func(*charon.Config)
	}{
		{"node", pair.Policy{ESP: "ESP[AES-GCM-256]:6s", KeyExchange: limit}, nil},
		{"peer", pair.Policy{KeyExchange: limit}, []func(*charon.Config){
			pair.Child("rekey_time", "5s"), pair.Child("rand_time", "1s"), pair.Child("life_time", "40s"),
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, capture := established(t, pair.FromNode, c.policy, c.peer...)
			stops := []func() int{p.Stream(pair.FromNode), p.Stream(pair.FromPeer)}
			children, ikes := map[string]bool{}, map[string]bool{}
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for begin := time.Now(); (len(children) < 4 || len(ikes) < 4) && time.Since(begin) < 50*time.Second; {
				<-tick.C
				ours := p.Ours()
				for _, s := range ours.IKE {
					ikes[s.SPI] = true
				}
				for _, s := range ours.Children {
					children[s.In] = true
				}
			}
			messages := stops[0]() + stops[1]()
			w := p.SentNothingClear(capture)
			t.Logf("%d messages, %d Child SAs, %d IKE SAs, on the wire: %+v", messages, len(children), len(ikes), w)
			if len(children) < 4 || len(ikes) < len(children) {
				t.Errorf("%d Child SAs have the keys of %d IKE SAs, want four or more and as many", len(children), len(ikes))
			}
			if s, err := p.Client.Status(p.Ctx); err != nil || len(s.Failures) != 0 {
				t.Errorf("the node tells of failures: %+v, %v", s.Failures, err)
			}
		})
	}
}

// TestBulk moves 32 MB each way through the tunnel: segments that do not fit, or path MTU news that get lost, would stall
// it.
func TestBulk(t *testing.T) {
	t.Parallel()
	const size = 32 << 20
	for _, from := range pair.Sides {
		t.Run(from.String(), func(t *testing.T) {
			p, capture := established(t, pair.FromNode, pair.Policy{})
			conn, err := p.Dial(from, 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			sent := make(chan error, 1)
			go func() {
				for n := 0; n < size; n += len(pair.Marker) {
					if _, err := conn.Write(pair.Marker); err != nil {
						sent <- err
						return
					}
				}
				sent <- nil
			}()
			// The echo goes the other way at the same time.
			start, got, buffer := time.Now(), 0, make([]byte, len(pair.Marker))
			for got < size {
				if _, err := io.ReadFull(conn, buffer); err != nil {
					t.Fatalf("the echo stalls after %d of %d octets: %v", got, size, err)
				}
				if !bytes.Equal(buffer, pair.Marker) {
					t.Fatalf("the echo differs after %d octets", got)
				}
				got += len(buffer)
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}
			t.Logf("%d Mbit/s each way", int(float64(8*got)/time.Since(start).Seconds()/1e6))
			p.Protected(capture)
		})
	}
}
