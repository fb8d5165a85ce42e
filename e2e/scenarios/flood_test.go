package scenarios_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/bench/ikeload"
)

// A responder that is flooded with first messages of invented addresses keeps little of them, and who has a real address
// gets in meanwhile. How many it withstands is for e2e/bench to say; here they come as fast as this machine sends them,
// a hundred thousand a second at the most.
func TestFloodKeepsNobodyOut(t *testing.T) {
	const peers = 40
	plan := ikeload.DefaultPlan(ikeload.MethodSharedKey, peers)
	street, err := ikeload.NewStreet("bwflood-", plan)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := street.Close(); err != nil {
			t.Error(err)
		}
	})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	sources := netip.MustParsePrefix("10.32.0.0/12")
	must(street.Invite(sources))
	var initiator, responder *ikeload.Machine
	must(street.Responder.Do(func() (err error) {
		responder, err = ikeload.OnSockets(ikeload.MachineConfig{Plan: plan, Responder: true})
		return err
	}))
	must(street.Initiator.Do(func() (err error) {
		initiator, err = ikeload.OnSockets(ikeload.MachineConfig{Plan: plan})
		return err
	}))
	var flood *ikeload.Flood
	must(street.Initiator.Do(func() (err error) {
		flood, err = ikeload.NewFlood(netip.AddrPortFrom(plan.Responder(0), 500), sources)
		return err
	}))
	heap, _, err := ikeload.Memory()
	must(err)

	ctx, cancel := context.WithTimeout(t.Context(), ikeload.BurstLimit)
	defer cancel()
	flooding, stop := context.WithCancel(ctx)
	type outcome struct {
		sent ikeload.FloodResult
		err  error
	}
	ended := make(chan outcome, 1)
	go func() {
		r, err := flood.Run(flooding, 100_000)
		ended <- outcome{r, err}
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	received := func() uint64 {
		v, err := responder.Snapshot(ctx)
		must(err)
		halfOpen := 0
		for _, s := range v.SAs {
			if s.Established.IsZero() {
				halfOpen++
			}
		}
		// Cookies are asked for above 64, and who brings one may come on top.
		if halfOpen > 64+peers {
			t.Fatalf("%d half-open IKE SAs", halfOpen)
		}
		return v.Counters["init_received"]
	}
	for received() < 20_000 {
		<-tick.C
	}
	for i := range peers { // one after another: each has to get through on its own
		must(ikeload.Burst(ctx, initiator, responder, i, i+1))
	}
	if err := initiator.Rekey(ctx); err != nil { // who is there already goes on
		t.Errorf("rekey during the flood: %v", err)
	}
	for received() < 50_000 {
		<-tick.C
	}
	during, _, err := ikeload.Memory()
	must(err)
	stop()
	o := <-ended
	must(o.err)
	if grown := int64(during) - int64(heap); grown > 16<<20 {
		t.Errorf("the heap has grown by %d octets", grown)
	}
	v, err := responder.Snapshot(ctx)
	must(err)
	t.Logf("%d spoofed requests at %.0f a second, %d received, %d cookies sent", o.sent.Sent, o.sent.PerSecond(),
		v.Counters["init_received"], v.Counters["cookies_sent"])
	if v.Counters["cookies_sent"] == 0 {
		t.Error("no cookie was asked for")
	}
	if err := errors.Join(flood.Close(), initiator.Stop(), responder.Stop()); err != nil {
		t.Error(err)
	}
}
