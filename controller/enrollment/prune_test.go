package enrollment

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/pki"
)

// fill puts as many requests beside the present ones.
func (o *office) fill(n int, state store.RequestState) {
	for i := range n {
		key := pki.KeyID{1, byte(i >> 16), byte(i >> 8), byte(i)}
		o.queue.known[key] = store.JoinRequest{Key: key, NotAfter: o.clock.Add(time.Hour), Decided: o.clock, State: state}
	}
}

// Requests that were decided wait no more, so a fleet that is let in by a rule does not fill the queue. What they take of the
// store is bounded all the same.
func TestDecidedRequestsDoNotFillTheQueue(t *testing.T) {
	for _, state := range []store.RequestState{store.RequestApproved, store.RequestDenied} {
		o := newOffice(t)
		if err := o.queue.loadLocked(t.Context(), o.requests); err != nil {
			t.Fatal(err)
		}
		o.fill(MaxPending, state)
		if s, err := o.submit(o.request("sql1.bank.example")); err != nil || s.Request.State != store.RequestPending {
			t.Errorf("beside %d %s ones a request gave %+v, error %v; want it to wait", MaxPending, state, s, err)
		}
		o.fill(MaxRequests, state)
		if _, err := o.submit(o.request("sql1.bank.example")); !errors.Is(err, ErrQueueFull) {
			t.Errorf("beside %d %s ones a request gave %v, want ErrQueueFull", MaxRequests, state, err)
		}
	}
}

// An approval is kept for a day after it came to a certificate, and one that nobody collected until it ends.
func TestCollectedApprovalsArePruned(t *testing.T) {
	o := newOffice(t)
	other := directory.Machine{UUID: directory.UUID{2}, DN: directory.MustParseDN("cn=ws1,dc=bank,dc=example"), Name: "ws1"}
	o.put(sql1, other)
	collected, key := o.keyed("sql1.bank.example")
	left, leftKey := o.keyed("ws1.bank.example")
	for csr, key := range map[string]pki.KeyID{string(collected): key, string(left): leftKey} {
		if _, err := o.submit([]byte(csr)); err != nil {
			t.Fatal(err)
		}
		if _, err := o.Approve(t.Context(), key, "alice"); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := o.submit(collected); err != nil || s.Issued == nil {
		t.Fatalf("after the approval: %+v, error %v", s, err)
	}
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{keepCollected, 0}, {1, 1}, {time.Hour, 0}} {
		o.clock = o.clock.Add(step.after)
		if n, err := o.PruneJoinRequests(t.Context(), o.clock); n != step.want || err != nil {
			t.Errorf("at %v %d were pruned, error %v; want %d", o.clock, n, err, step.want)
		}
	}
	if _, ok := o.requests.held[leftKey]; !ok || len(o.requests.held) != 1 {
		t.Errorf("left are %d requests; want the one that was not collected", len(o.requests.held))
	}
}

// Who hangs up while the request is filed does not have the queue read anew.
func TestHangingUpDoesNotForgetTheQueue(t *testing.T) {
	o := newOffice(t)
	if err := o.queue.loadLocked(t.Context(), o.requests); err != nil {
		t.Fatal(err)
	}
	gone, hangUp := context.WithCancel(t.Context())
	hangUp()
	if _, err := o.Submit(gone, o.request("sql1.bank.example"), Submitter{}); err != nil {
		t.Errorf("a request whose sender hung up was not filed: %v", err)
	}
	if _, err := o.submit(o.request("sql1.bank.example")); err != nil || o.requests.listed != 1 {
		t.Errorf("the store was listed %d times, error %v; want once", o.requests.listed, err)
	}
}

// A rule does not let a machine in again whose certificate was revoked, be it that it ended long ago; a person does, and with
// that it counts as any other.
func TestNoRuleForARevokedMachine(t *testing.T) {
	o := newOffice(t)
	o.config.Rules.Auto = []Rule{{Container: directory.MustParseDN("dc=bank,dc=example")}}
	revoked := ""
	o.config.Barred = func(h store.Holding) string {
		if h.Barred != "" || h.Serial == revoked {
			return "keyCompromise"
		}
		return ""
	}
	s, err := o.submit(o.request("sql1.bank.example"))
	if err != nil || s.Issued == nil {
		t.Fatalf("got %+v, error %v; want a certificate by the rule", s, err)
	}
	u := pki.UUID(sql1.UUID)
	revoked = o.holdings[u].Serial
	o.clock = s.Issued.Leaf.NotAfter.Add(time.Hour)
	csr, key := o.keyed("sql1.bank.example")
	if s, err := o.submit(csr); err != nil || s.Issued != nil || s.Request.State != store.RequestPending {
		t.Fatalf("after the end of the revoked certificate: %+v, error %v; want it to wait for a person", s, err)
	}
	held := o.holdings[u]
	held.Barred = "keyCompromise"
	o.holdings[u] = held
	if _, err := o.Approve(t.Context(), key, "alice"); err != nil {
		t.Fatal(err)
	}
	if s, err := o.submit(csr); err != nil || s.Issued == nil || o.holdings[u].Barred != "" {
		t.Fatalf("after the approval: %+v, error %v, barred for %q", s, err, o.holdings[u].Barred)
	}
	o.clock = o.holdings[u].NotAfter.Add(time.Hour)
	if s, err := o.submit(o.request("sql1.bank.example")); err != nil || s.Issued == nil {
		t.Errorf("after the end of the next certificate: %+v, error %v; want one by the rule", s, err)
	}
}

// meanwhile is where holdings are while something else happens once.
type meanwhile struct {
	Holdings
	do func()
}

func (m *meanwhile) Holding(ctx context.Context, u pki.UUID) (store.Holding, error) {
	if do := m.do; do != nil {
		m.do = nil
		do()
	}
	return m.Holdings.Holding(ctx, u)
}

// What is over when it is looked at may not be when it is removed: its key asks again, or somebody denies what was approved.
func TestPruningLeavesWhatChangedMeanwhile(t *testing.T) {
	o := newOffice(t)
	other := directory.Machine{UUID: directory.UUID{2}, DN: directory.MustParseDN("cn=ws1,dc=bank,dc=example"), Name: "ws1"}
	o.put(sql1, other)
	again, againKey := o.keyed("ws1.bank.example")
	if _, err := o.submit(again); err != nil {
		t.Fatal(err)
	}
	o.clock = o.clock.Add(DefaultRequestLifetime - keepCollected - time.Minute)
	first, key := o.keyed("sql1.bank.example")
	if _, err := o.submit(first); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Approve(t.Context(), key, "alice"); err != nil {
		t.Fatal(err)
	}
	// The machine has come to a certificate with another key since.
	u := pki.UUID(sql1.UUID)
	o.holdings[u] = store.Holding{Machine: u, Key: pki.KeyID{9}, Issued: o.clock.Add(time.Second)}
	o.clock = o.clock.Add(keepCollected + 2*time.Minute) // the first one has ended
	o.config.Holdings = &meanwhile{o.holdings, func() {
		if s, err := o.submit(again); err != nil || s.Request.State != store.RequestPending {
			t.Errorf("asking again gave %+v, error %v", s, err)
		}
		if _, err := o.Deny(t.Context(), key, "bob", "not ours"); err != nil {
			t.Error(err)
		}
	}}
	if n, err := o.PruneJoinRequests(t.Context(), o.clock); n != 0 || err != nil {
		t.Errorf("%d were pruned, error %v; want none", n, err)
	}
	if r := o.requests.held[againKey]; r.State != store.RequestPending {
		t.Errorf("of the key that asked again there is %+v, want a request that waits", r)
	}
	if _, err := o.submit(first); !errors.Is(err, ErrRequestDenied) {
		t.Errorf("the key that was denied meanwhile asked again and got %v, want ErrRequestDenied", err)
	}
	// Nothing changes while it is looked at again.
	if n, err := o.PruneJoinRequests(t.Context(), o.clock.Add(DefaultRequestLifetime+1)); n != 2 || err != nil {
		t.Errorf("%d were pruned once both had ended, error %v; want 2", n, err)
	}
}
