package ikesim

import (
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
)

// ESP of any Child SA is a sign of life (RFC 7296 2.4): as long as it comes, nobody is asked for another one.
func TestTrafficIsASignOfLife(t *testing.T) {
	w, a, b := pair(1, calm, pskAuth, nil)
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(time.Second)
	mirrored(t, w, a, b, 1)
	before := count(w, "", "send INFORMATIONAL request")
	for range 30 {
		w.Run(10 * time.Second)
		a.Do(ike.Heard{SPI: a.child()})
		b.Do(ike.Heard{SPI: b.child()})
	}
	if n := count(w, "", "send INFORMATIONAL request") - before; n != 0 {
		t.Errorf("%d liveness checks in five minutes of traffic\n%s", n, story(w))
	}
	w.Run(time.Minute)
	if n := count(w, "", "send INFORMATIONAL request") - before; n == 0 {
		t.Error("no liveness check in a minute of silence")
	}
	mirrored(t, w, a, b, 1)
}
