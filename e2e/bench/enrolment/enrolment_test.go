package enrolment

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/sha256"
	"flag"
	"fmt"
	mathrand "math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/controller/controllertest"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

var (
	nodes  = flag.Int("nodes", 1000, "machines of the storm")
	spread = flag.Duration("spread", time.Minute, "longest wait between two attempts of a node, as the nodes' client has it")
)

// fleet is a controller with so many machines, m0 to m(n-1).
func fleet(b *testing.B, n int) *controllertest.Fleet {
	b.Helper()
	var ldif strings.Builder
	ldif.WriteString("dn: dc=bank,dc=example\nobjectClass: domain\ndc: bank\n")
	for i := range n {
		fmt.Fprintf(&ldif, "\ndn: cn=m%d,dc=bank,dc=example\nobjectClass: device\ncn: m%d\n", i, i)
	}
	return controllertest.Start(b, ldif.String())
}

// processor is the time that this process has used on all processors.
func processor(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// operations are the asymmetric operations of one certificate, both ends together.
type operations struct {
	// exchanges are X25519 with ML-KEM-768, both sides of each.
	exchanges, signatures, verifications int
}

// A join: TLS (the server signs; the machine verifies that and the two certificates of its chain), the request (signed,
// verified), the twin and the certificate (signed, and each verified by crypto/x509 before it comes out), and the machine
// verifies the chain of its certificate for the two usages of the test, two signatures each.
var join = operations{exchanges: 1, signatures: 4, verifications: 3 + 1 + 2 + 4}

// A renewal: the machine signs in TLS as well, and the controller verifies that and the two certificates of its chain, for the
// connection's one call.
var renewal = operations{exchanges: 1, signatures: 5, verifications: join.verifications + 3}

// floor measures what the operations cost on one thread.
func floor(b *testing.B, o operations) time.Duration {
	b.Helper()
	const rounds = 300
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	digest := sha256.Sum256([]byte("request"))
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		b.Fatal(err)
	}
	exchange := func() {
		kem, err := mlkem.GenerateKey768()
		if err != nil {
			b.Fatal(err)
		}
		_, sealed := kem.EncapsulationKey().Encapsulate()
		if _, err := kem.Decapsulate(sealed); err != nil {
			b.Fatal(err)
		}
		one, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		two, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		for _, side := range [][2]*ecdh.PrivateKey{{one, two}, {two, one}} {
			if _, err := side[0].ECDH(side[1].PublicKey()); err != nil {
				b.Fatal(err)
			}
		}
	}
	cost := func(times int, do func()) time.Duration {
		start := processor(b)
		for range rounds {
			do()
		}
		return (processor(b) - start) * time.Duration(times) / rounds
	}
	return cost(o.exchanges, exchange) +
		cost(o.signatures, func() { _, _ = ecdsa.SignASN1(rand.Reader, key, digest[:]) }) +
		cost(o.verifications, func() {
			if !ecdsa.VerifyASN1(&key.PublicKey, digest[:], signature) {
				b.Fatal("the signature does not verify")
			}
		})
}

// workers is how many machines ask at the same time.
const workers = 16

// measure does something b.N times, several at once, and reports it beside the floor.
func measure(b *testing.B, o operations, do func(i int) error) {
	b.Helper()
	before := floor(b, o)
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	start, began := processor(b), time.Now()
	for range workers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= b.N {
					return
				}
				if err := do(i); err != nil {
					b.Errorf("machine %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	used, took := processor(b)-start, time.Since(began)
	b.StopTimer()
	each, least := used/time.Duration(b.N), (before+floor(b, o))/2
	b.ReportMetric(float64(each.Microseconds()), "cpu-us/op")
	b.ReportMetric(float64(least.Microseconds()), "floor-us/op")
	b.ReportMetric(100*float64(least)/float64(each), "%floor")
	b.ReportMetric(float64(time.Second)/float64(each), "ops/core-s")
	b.ReportMetric(float64(b.N)/took.Seconds(), "ops/s")
}

// BenchmarkJoin is one TLS connection with both calls of a join for each machine.
func BenchmarkJoin(b *testing.B) {
	f := fleet(b, b.N)
	joins := make([]controllertest.Join, b.N)
	for i := range joins {
		joins[i] = f.Join(f.Token(fmt.Sprintf("m%d", i)))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	measure(b, join, func(i int) error {
		_, err := joins[i].Try(ctx)
		return err
	})
}

// enrolled are so many machines with certificates.
func enrolled(b *testing.B, f *controllertest.Fleet, n int) []*controllertest.Node {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	all := make([]*controllertest.Node, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				token, err := f.Credentials().CreateToken(ctx, &adminv1.CreateTokenRequest{Machine: fmt.Sprintf("m%d", i)})
				if err != nil {
					b.Errorf("token %d: %v", i, err)
					return
				}
				if all[i], err = f.Join(token.GetText()).Try(ctx); err != nil {
					b.Errorf("join %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if b.Failed() {
		b.FailNow()
	}
	return all
}

// BenchmarkRenew is one mutual TLS connection with one renewal for each machine.
func BenchmarkRenew(b *testing.B) {
	f := fleet(b, b.N)
	f.Credentials() // the connection, before several want it
	all := enrolled(b, f, b.N)
	measure(b, renewal, func(i int) error {
		_, err := all[i].Renew(all[i].Identity)
		return err
	})
}

// BenchmarkStorm lets all machines of a fleet renew after an outage that was longer than their longest backoff: the next
// attempt of each is at a time of its own within it (control.Client waits for the upper half of the backoff, so attempts that
// began together have long come apart). It reports how long after the return the last one has its certificate.
func BenchmarkStorm(b *testing.B) {
	f := fleet(b, *nodes)
	f.Credentials()
	all := enrolled(b, f, *nodes)
	for b.Loop() {
		took := make([]time.Duration, len(all))
		var failed, busy atomic.Int64
		var wg sync.WaitGroup
		start, cpu := time.Now(), processor(b)
		for i, n := range all {
			wg.Go(func() {
				<-time.After(mathrand.N(*spread))
				for {
					began := time.Now()
					_, err := n.Renew(n.Identity)
					took[i] = time.Since(began)
					if err == nil {
						return
					}
					if status.Code(err) != codes.Unavailable && failed.Add(1) == 1 {
						b.Logf("the first that failed, after %v: %v", took[i].Round(time.Millisecond), err)
					}
					busy.Add(1)
					<-time.After(*spread/2 + mathrand.N(*spread/2))
				}
			})
		}
		wg.Wait()
		last, used := time.Since(start), processor(b)-cpu
		slices.Sort(took)
		b.ReportMetric(last.Seconds(), "last-s")
		b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "p50-ms")
		b.ReportMetric(float64(took[len(took)*99/100].Milliseconds()), "p99-ms")
		b.ReportMetric(float64(took[len(took)-1].Milliseconds()), "max-ms")
		b.ReportMetric(float64(busy.Load()), "sent-away")
		b.ReportMetric(float64(failed.Load()), "failed")
		b.ReportMetric(float64(used.Microseconds())/float64(len(all)), "cpu-us/node")
	}
}
