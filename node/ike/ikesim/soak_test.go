package ikesim

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	soakSeeds  = flag.Uint64("ikesim.soak", 0, "number of seeds of TestSoak")
	soakFrom   = flag.Uint64("ikesim.from", 1, "first seed of TestSoak, to go on where it was interrupted")
	soakShards = flag.Int("ikesim.shards", runtime.GOMAXPROCS(0), "how many seeds TestSoak runs at a time")
)

// twice is how many seeds there are to one that is run twice, for I9.
const twice = 64

// playSeed runs one seed; I9 is checked for some.
func playSeed(seed uint64) *World {
	p := PlanOf(seed)
	w := Play(p, false)
	if seed%twice == 0 && len(w.Broken) == 0 {
		if again := Play(p, false); again.fingerprint != w.fingerprint {
			w.broken("I9 the same seed makes two different worlds")
		}
	}
	return w
}

func reproduce(seed uint64) string {
	return fmt.Sprintf("go test ./node/ike/ikesim -run TestRandom -ikesim.seed %d -v", seed)
}

// explain fails the test with the smallest plan that still breaks, and its story.
func explain(t *testing.T, p Plan) {
	t.Helper()
	p = Shrink(p, 2000)
	w := Play(p, true)
	t.Errorf("%s\n%s\n%s", strings.Join(w.Broken, "\n"), p, story(w))
}

// TestSoak runs as many seeds as it is told, in parallel, and says where to go on.
func TestSoak(t *testing.T) {
	if *soakSeeds == 0 {
		t.Skip("TestSoak is for make soak: -ikesim.soak tells how many seeds to run")
	}
	debug.SetGCPercent(800) // worlds live for a millisecond
	var next, done, steps, failed atomic.Uint64
	next.Store(*soakFrom)
	end := *soakFrom + *soakSeeds
	begin := time.Now()
	running := make([]atomic.Uint64, *soakShards)
	safe := func() uint64 { // every seed before this one has been run
		least := min(next.Load(), end)
		for i := range running {
			if s := running[i].Load(); s != 0 {
				least = min(least, s)
			}
		}
		return least
	}
	figures := func() string {
		took := time.Since(begin)
		return fmt.Sprintf("%d seeds, %d events, %d failed, %s, %.0f seeds a second",
			done.Load(), steps.Load(), failed.Load(), took.Round(time.Second), float64(done.Load())/took.Seconds())
	}
	var wg sync.WaitGroup
	for i := range running {
		wg.Go(func() {
			for {
				seed := next.Add(1) - 1
				if seed >= end || failed.Load() >= 10 {
					running[i].Store(0)
					return
				}
				running[i].Store(seed)
				w := playSeed(seed)
				done.Add(1)
				steps.Add(uint64(w.seq))
				if len(w.Broken) > 0 {
					failed.Add(1)
					t.Errorf("%s\nreproduce: %s", strings.Join(w.Broken, "\n"), reproduce(seed))
					fmt.Fprintf(os.Stderr, "seed %d fails: %s\n", seed, w.Broken[0])
				}
			}
		})
	}
	over := make(chan struct{})
	go func() {
		wg.Wait()
		close(over)
	}()
	every := time.NewTicker(10 * time.Second)
	defer every.Stop()
	for {
		select {
		case <-every.C:
			fmt.Fprintf(os.Stderr, "%s; go on with FROM=%d\n", figures(), safe())
		case <-over:
			fmt.Fprintf(os.Stderr, "from %d: %s; go on with FROM=%d\n", *soakFrom, figures(), safe())
			return
		}
	}
}
