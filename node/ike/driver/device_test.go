package driver

import (
	"crypto"
	"io"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// deviceKey is a key in a device that signs when it is told to.
type deviceKey struct {
	crypto.Signer
	asked, answers chan struct{}
}

func (k deviceKey) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	k.asked <- struct{}{}
	<-k.answers
	return k.Signer.Sign(rand, digest, opts)
}

// TestDeviceThatSignsLate has a device keep as many signatures waiting as there are peers, more than work is done at a time.
// The loop answers meanwhile, another exchange with slow exponentiations gets as far as its own signature, and with the
// answers all associations are there.
func TestDeviceThatSignsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		c := &cable{make(map[netip.Addr]*end)}
		m := f.join("a.example", time.Now().Add(time.Hour))
		key := deviceKey{m.key, make(chan struct{}), make(chan struct{})}
		m.key = key
		const waiting = 12
		peers := make([]netip.Addr, waiting)
		for i := range peers {
			peers[i] = netip.AddrFrom4([4]byte{10, 0, 1, byte(i)})
		}
		a := start(t, c, "a.example", addrA, addrB, m, func(i *ike.Config, cfg *Config) {
			i.Offers[0].Group = proposal.GroupMODP2048
			i.Rules[0].Pairs = []ike.Pair{{Local: host(addrA), Remote: sa.Selector{From: peers[0], To: peers[waiting-1], PortTo: 65535}}}
		})
		if cap(a.slots) >= waiting {
			t.Fatalf("%d jobs run at a time: %d waiting signatures prove nothing", cap(a.slots), waiting)
		}
		nodes := []*node{a}
		for _, peer := range peers {
			n := start(t, c, "b.example", peer, addrA, f.join("b.example", time.Now().Add(time.Hour)), func(i *ike.Config, _ *Config) { i.Offers[0].Group = proposal.GroupMODP2048 })
			nodes = append(nodes, n)
			a.acquire(addrA, peer)
			select {
			case <-key.asked: // the exchange came this far although all before it wait for the device
			case <-time.After(10 * time.Second):
				t.Fatalf("exchange %d does not come to its signature while others wait for the device", len(nodes)-1)
			}
			if _, err := a.Snapshot(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		close(key.answers)
		<-time.After(time.Second)
		synctest.Wait()
		if a.dp.count() != waiting {
			t.Errorf("a holds %d Child SAs, want %d", a.dp.count(), waiting)
		}
		for _, n := range nodes {
			n.finish(t)
		}
	})
}
