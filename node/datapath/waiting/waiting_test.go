package waiting

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-net/bailiwick/node/ike"
)

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func room(limits Limits) *Room[[]byte] {
	return New(limits, func(b []byte) int { return len(b) }, slices.Clone)
}

func testFlow(n byte) ike.Flow {
	return ike.Flow{Rule: "r", Local: netip.AddrFrom4([4]byte{10, 0, 0, 1}), Remote: netip.AddrFrom4([4]byte{10, 0, 1, n})}
}

func TestRoomKeepsTheFirstPacketsInOrder(t *testing.T) {
	w := room(Limits{FlowPackets: 3, Flows: 2, Octets: 100})
	q := w.Open(testFlow(1), start)
	for i, want := range []bool{true, true, true, false} {
		if got := w.Put(q, []byte{byte(i)}, start); got != want {
			t.Errorf("put of packet %d gave %v, want %v", i, got, want)
		}
	}
	other := testFlow(1)
	other.Packet.SourcePort = 7
	if w.Get(other) != q {
		t.Error("another packet of the same flow has another queue")
	}
	if diff := cmp.Diff([][]byte{{0}, {1}, {2}}, w.Take(q)); diff != "" {
		t.Error(diff)
	}
	if flows, packets := w.Count(); flows != 0 || packets != 0 {
		t.Errorf("%d packets of %d flows wait after Take, want none", packets, flows)
	}
	if w.octets != 0 || len(w.flows) != 0 {
		t.Errorf("%d octets in %d flows wait after take, want none", w.octets, len(w.flows))
	}
}

func TestRoomIsBoundedInOctets(t *testing.T) {
	w := room(Limits{FlowPackets: 10, Flows: 2, Octets: 100})
	q := w.Open(testFlow(1), start)
	if !w.Put(q, make([]byte, 60), start) || w.Put(q, make([]byte, 60), start) || !w.Put(q, make([]byte, 40), start) {
		t.Errorf("100 octets of packets of 60, 60 and 40 hold %d octets, want the first and the last", w.octets)
	}
}

func TestRoomEvictsFlowsOfWhichNothingWaits(t *testing.T) {
	w := room(Limits{FlowPackets: 1, Flows: 2, Octets: 100})
	w.Put(w.Open(testFlow(1), start), []byte{1}, start)
	w.Open(testFlow(2), start)
	if w.Open(testFlow(3), start) == nil {
		t.Error("an empty flow was not evicted for a new one")
	}
	w.Put(w.Get(testFlow(3)), []byte{3}, start)
	if w.Open(testFlow(4), start) != nil {
		t.Error("a flow with packets was evicted")
	}
}

func TestRoomExpires(t *testing.T) {
	w := room(Limits{FlowPackets: 10, Flows: 10, Octets: 100})
	q := w.Open(testFlow(1), start)
	q.Acquired = true
	w.Put(q, []byte{1}, start)
	if n := len(w.Expire(start.Add(waitFor - 1))); n != 0 {
		t.Errorf("%d packets expired too early", n)
	}
	if n := len(w.Expire(start.Add(waitFor))); n != 1 {
		t.Errorf("%d packets expired, want 1", n)
	}
	if w.Get(testFlow(1)) == nil {
		t.Error("flow was forgotten before its Acquire was answered")
	}
	w.Expire(start.Add(askAgain))
	if w.Get(testFlow(1)) != nil {
		t.Error("flow that nobody answered for was not forgotten")
	}
}

func TestRoomRefuses(t *testing.T) {
	w := room(Limits{FlowPackets: 10, Flows: 10, Octets: 100})
	q := w.Open(testFlow(1), start)
	q.Acquired = true
	w.Put(q, []byte{1}, start)
	if n := len(w.Refuse(testFlow(1), start)); n != 1 {
		t.Errorf("refusal dropped %d packets, want 1", n)
	}
	if !q.IsRefused(start.Add(refusedFor-1)) || q.IsRefused(start.Add(refusedFor)) || q.Acquired {
		t.Error("refusal does not end when it should, or the next packet would not ask again")
	}
	w.Expire(start.Add(refusedFor))
	if len(w.flows) != 0 {
		t.Error("refused flow was not forgotten")
	}
}

// TestRoomKeepsItsOwn: what waits does not change with the buffer that it came in.
func TestRoomKeepsItsOwn(t *testing.T) {
	w := room(Limits{})
	q := w.Open(testFlow(1), start)
	buffer := []byte{1}
	w.Put(q, buffer, start)
	buffer[0] = 2
	if got := w.Take(q); len(got) != 1 || got[0][0] != 1 {
		t.Errorf("what waited is %v, want 1", got)
	}
}
