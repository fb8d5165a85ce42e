package ikesim

import (
	"slices"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
)

// A temporary failure of a rekey that is over, because its Child SA went meanwhile, is no trouble any more: the next one,
// minutes later, does not close the IKE SA as if the peer had answered nothing else since.
func TestTroubleEndsWithWhatWasInTrouble(t *testing.T) {
	w, a, b := pair(1, calm, pskAuth, nil)
	for port := uint16(1); port <= 2; port++ {
		f := flow(addrA, addrB)
		f.LocalTS.Protocol, f.RemoteTS.Protocol = 6, 6
		f.RemoteTS.PortFrom, f.RemoteTS.PortTo = port, port
		a.Do(ike.Acquire{Flow: f})
	}
	w.Run(time.Second)
	mirrored(t, w, a, b, 2)
	for _, spi := range slices.Clone(a.live()) {
		w.Hold(messages(inform, false, b))
		b.Do(ike.ChildExpiring{SPI: a.SADB[spi].Child.Out.SPI, Limit: ike.LimitHard})
		a.Do(ike.ChildExpiring{SPI: spi, Limit: ike.LimitSoft})
		w.Run(100 * time.Millisecond)
		w.Release()
		w.Run(4 * time.Minute)
	}
	if n := count(w, "a.example", "temporary failure, next try"); n != 2 {
		t.Fatalf("want two temporary failures, have %d\n%s", n, story(w))
	}
	verify(t, w)
	if len(a.Downs)+len(b.Downs) != 0 {
		t.Errorf("the IKE SA is down: %+v, %+v\n%s", a.Downs, b.Downs, story(w))
	}
}
