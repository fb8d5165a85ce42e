package ikesim

import (
	"flag"
	"strings"
	"testing"
)

var (
	oneSeed = flag.Uint64("ikesim.seed", 0, "run this seed of TestRandom alone, with its story, and make it smaller when it fails")
	seeds   = flag.Uint64("ikesim.seeds", 2000, "number of seeds of TestRandom")
)

func TestRandom(t *testing.T) {
	if *oneSeed != 0 {
		p := PlanOf(*oneSeed)
		if w := Play(p, true); len(w.Broken) == 0 {
			t.Log(p.String() + story(w))
			return
		}
		explain(t, p)
		return
	}
	failed := 0
	for seed := uint64(1); seed <= *seeds && failed < 3; seed++ {
		if w := playSeed(seed); len(w.Broken) > 0 {
			failed++
			t.Errorf("%s\nreproduce: %s", strings.Join(w.Broken, "\n"), reproduce(seed))
		}
	}
}
