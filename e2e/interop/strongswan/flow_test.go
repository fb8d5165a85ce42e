package strongswan

import (
	"testing"
	"time"

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
		policy policy
		peer   []func(*charon.Config)
	}{
		{"node", policy{esp: "ESP[AES-GCM-256]:8s", ikeLifetime: "20s"}, nil},
		{"peer", policy{}, []func(*charon.Config){
			connection("rekey_time", "20s"), connection("rand_time", "2s"), connection("over_time", "20s"),
			child("rekey_time", "8s"), child("rand_time", "1s"), child("life_time", "16s"),
		}},
		// Both at the same time, so that they collide now and then (RFC 7296 2.8.1, 2.25).
		{"both", policy{esp: "ESP[AES-GCM-256]:8s", ikeLifetime: "20s"}, []func(*charon.Config){
			connection("rekey_time", "17s"), connection("rand_time", "2s"), connection("over_time", "20s"),
			child("rekey_time", "7s"), child("rand_time", "1s"), child("life_time", "16s"),
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t)
			p.startPeer(partner(usualIKE, usualESP, c.peer...))
			p.startNode(c.policy)
			capture := p.capture()
			p.bringUp(fromNode)
			first := p.oursNow()
			stops := []func() int{p.stream(fromNode), p.stream(fromPeer)}
			children, ikes := map[string]bool{}, map[string]bool{}
			tick := time.NewTicker(250 * time.Millisecond)
			defer tick.Stop()
			for end := time.After(duration); end != nil; {
				select {
				case <-end:
					end = nil
				case <-tick.C:
					for _, s := range p.oursNow().IKE {
						ikes[s.SPI] = true
					}
					for _, s := range p.oursNow().Children {
						children[s.In] = true
					}
				}
			}
			messages := stops[0]() + stops[1]()
			w := p.protected(capture)
			t.Logf("%d messages, %d Child SAs, %d IKE SAs, on the wire: %+v", messages, len(children), len(ikes), w)
			if wantChildren, wantIKE := int(duration/(10*time.Second)), int(duration/(25*time.Second)); len(children) <= wantChildren || len(ikes) <= wantIKE {
				t.Errorf("%d Child SAs and %d IKE SAs, want more than %d and %d", len(children), len(ikes), wantChildren, wantIKE)
			}
			if s, err := p.client.Status(p.ctx); err != nil || len(s.Failures) != 0 {
				t.Errorf("the node tells of failures: %+v, %v", s.Failures, err)
			}
			if last := p.oursNow(); len(last.IKE) > 2 || len(last.Children) > 3 || last.IKE[0].SPI == first.IKE[0].SPI {
				t.Errorf("at the end the node has %+v", last)
			}
		})
	}
}
