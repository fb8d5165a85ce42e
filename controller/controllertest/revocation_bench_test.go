package controllertest

import (
	"slices"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/pki/trust"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// BenchmarkRevocation joins and connects a thousand nodes, and revokes one machine after the other: from the administrator's
// call until every other node was told, read the set and refuses the machine by its chain as the daemon does, and until the
// machine's own session is over. Controller and nodes share this process and its cores.
func BenchmarkRevocation(b *testing.B) {
	const nodes = 1000
	f := Start(b, large(nodes))
	f.Apply(BankLinks)
	all, _ := joinAll(b, f, nodes)

	// A node reports which round's machine it refuses; what a round is about is set before it begins.
	refuses, ended := make(chan time.Time, nodes), make(chan time.Time, nodes)
	ready := make(chan struct{}, nodes)
	victim := make([]chan *Node, nodes) // of each node, which machine to look for
	for i, n := range all {
		victim[i] = make(chan *Node, 1)
		s := n.Connect(&nodev1.Hello{})
		go func() {
			// Chains of peers are remembered, as by the daemon that has associations with them.
			paths := trust.NewPaths(4)
			var looked *Node
			take := func(peer *Node) {
				if got := judgeBy(b, paths, n, peer, trust.Denials{}); got != 0 {
					b.Errorf("before it is revoked %v is refused as %v", peer.Identity, got)
				}
				looked = peer
				ready <- struct{}{}
			}
			for {
				select {
				case m := <-s.messages:
					d := m.GetDenials()
					if d == nil || looked == nil {
						continue
					}
					set, err := trust.ParseDenials(d.GetContent())
					if err != nil {
						b.Error(err)
						continue
					}
					if judgeBy(b, paths, n, looked, set) == trust.ReasonRevoked {
						refuses <- time.Now()
						looked = nil
					}
				case peer := <-victim[i]:
					take(peer)
				case <-s.failed:
					ended <- time.Now()
					return
				}
			}
		}()
	}
	f.Eventually("all nodes are connected", func() bool { return connected(f) == nodes })

	var firsts, lasts, cuts []time.Duration
	alive := nodes
	for b.Loop() {
		if alive < nodes/2 {
			b.Fatal("too many rounds: run with -benchtime of at most 400x")
		}
		alive--
		for i := range alive {
			victim[i] <- all[alive]
		}
		for range alive {
			<-ready
		}
		start := time.Now()
		f.revoke(all[alive].Identity.UUID().String(), "keyCompromise")
		timer := time.NewTimer(Patience)
		var first, last time.Duration
		for i := range alive {
			select {
			case at := <-refuses:
				if last = max(last, at.Sub(start)); first == 0 {
					first = at.Sub(start)
				}
			case <-timer.C:
				b.Fatalf("%d of %d nodes refuse the machine", i, alive)
			}
		}
		select {
		case at := <-ended:
			cuts = append(cuts, at.Sub(start))
		case <-timer.C:
			b.Fatal("the session of the revoked machine did not end")
		}
		timer.Stop()
		firsts, lasts = append(firsts, first), append(lasts, last)
	}
	for name, all := range map[string][]time.Duration{"first": firsts, "last": lasts, "own-session": cuts} {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, name+"-median-ms")
		b.ReportMetric(float64(all[len(all)-1].Microseconds())/1000, name+"-worst-ms")
	}
}

// connected counts the nodes with a session.
func connected(f *Fleet) int {
	f.t.Helper()
	r, err := f.Machines().ListNodes(f.Context(), &adminv1.ListNodesRequest{})
	if err != nil {
		f.t.Fatal(err)
	}
	n := 0
	for _, x := range r.GetNodes() {
		if x.GetConnectedSince() != nil {
			n++
		}
	}
	return n
}
