package controllertest

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/policies/predefined"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// BenchmarkFanOut joins and connects a thousand nodes, then changes the policy of all of them again and again, from the
// administrator's call to the last acknowledgement. Controller and nodes share this process and its cores.
func BenchmarkFanOut(b *testing.B) {
	const nodes = 1000
	f := Start(b, large(nodes))
	f.Apply(BankLinks)
	all, joins := joinAll(b, f, nodes)

	start := time.Now()
	acknowledged := make(chan struct{}, nodes)
	for _, n := range all {
		s := n.Connect(&nodev1.Hello{})
		go func() {
			for m := range s.messages {
				if a := m.GetAssignment(); a != nil {
					s.Send(&nodev1.ConnectRequest{Message: &nodev1.ConnectRequest_Acknowledgement{
						Acknowledgement: &nodev1.Acknowledgement{Revision: a.GetRevision(), Digest: a.GetDigest()},
					}})
				}
				if m.GetConfirmed() != nil {
					acknowledged <- struct{}{}
				}
			}
		}()
	}
	await := func() {
		timer := time.NewTimer(Patience)
		defer timer.Stop()
		for i := range nodes {
			select {
			case <-acknowledged:
			case <-timer.C:
				b.Fatalf("%d of %d nodes acknowledged", i, nodes)
			}
		}
	}
	await()
	connects, goroutines := nodes/time.Since(start).Seconds(), float64(runtime.NumGoroutine())/nodes

	policies := []string{predefined.Server, predefined.Client}
	round := 0
	for b.Loop() {
		doc := fmt.Sprintf("apiVersion: bailiwick.net/v1alpha1\nkind: Link\nname: round\npolicy: %s\ncontainer: ou=Workstations,dc=bank,dc=example\norder: 1\n", policies[round%2])
		if _, err := f.tryApply(false, &adminv1.Source{Name: "round.yaml", Content: []byte(doc)}); err != nil {
			b.Fatal(err)
		}
		await()
		round++
	}
	b.ReportMetric(joins, "joins/s")
	b.ReportMetric(connects, "connects/s")
	b.ReportMetric(goroutines, "goroutines/node")
}

// joinAll joins the machines of large, and tells how many a second.
func joinAll(b *testing.B, f *Fleet, nodes int) (all []*Node, joins float64) {
	b.Helper()
	var tokens []string
	for i := range nodes {
		tokens = append(tokens, f.Token(fmt.Sprintf("pc%d", i)))
	}
	start := time.Now()
	var mu sync.Mutex
	var wg sync.WaitGroup
	next := make(chan string)
	for range 8 {
		wg.Go(func() {
			for token := range next {
				n, err := f.Join(token).Try(b.Context())
				if err != nil {
					b.Error(err)
					continue
				}
				mu.Lock()
				all = append(all, n)
				mu.Unlock()
			}
		})
	}
	for _, token := range tokens {
		next <- token
	}
	close(next)
	wg.Wait()
	if len(all) != nodes {
		b.Fatalf("%d of %d nodes joined", len(all), nodes)
	}
	return all, float64(nodes) / time.Since(start).Seconds()
}
