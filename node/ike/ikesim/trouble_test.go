package ikesim

import (
	"slices"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
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

// A Child SA that turns out to be redundant, because the peer has made the same, is still so when a rekey of it that was
// under way has replaced it.
func TestRedundantChildSAStaysRedundantWhenItIsRekeyed(t *testing.T) {
	redundant := 0
	for seed := uint64(1); seed <= 16; seed++ {
		w, a, b := exchangingPair(seed, Faults{Delay: 10 * time.Millisecond}, []proposal.KeyExchange{hybridKE}, []proposal.KeyExchange{hybridKE})
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(time.Second)
		a.deleteChild()
		w.Run(time.Second)
		w.Hold(messages(create, false, a))
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		b.Do(ike.Acquire{Flow: flow(addrB, addrA)})
		w.Run(500 * time.Millisecond)
		late := w.held
		w.DropHeld()
		w.Hold(messages(follow, false, b))
		b.rekeyChild()
		w.Run(200 * time.Millisecond)
		for _, e := range late {
			w.schedule(0, e)
		}
		w.Run(500 * time.Millisecond)
		w.Release()
		w.Run(time.Minute)
		mirrored(t, w, a, b, 1)
		redundant += count(w, "b.example", "and redundant")
	}
	if redundant == 0 {
		t.Error("in no world the Child SA that is rekeyed was redundant")
	}
}
