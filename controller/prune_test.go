package controller

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
)

// fakeRecords are the ends of tokens and certificates.
type fakeRecords struct {
	tokens, issuances, events []time.Time
	err                       error
}

func (f *fakeRecords) PruneTokens(_ context.Context, before time.Time) (int, error) {
	return pruneTimes(&f.tokens, before), f.err
}

func (f *fakeRecords) PruneIssuances(_ context.Context, before time.Time) (int, error) {
	return pruneTimes(&f.issuances, before), f.err
}

func (f *fakeRecords) PruneDirectoryEvents(_ context.Context, before time.Time) (int, error) {
	return pruneTimes(&f.events, before), f.err
}

func pruneTimes(times *[]time.Time, before time.Time) int {
	var kept []time.Time
	for _, t := range *times {
		if !t.Before(before) {
			kept = append(kept, t)
		}
	}
	pruned := len(*times) - len(kept)
	*times = kept
	return pruned
}

// As the clock goes on, tokens go a week after their end and certificates thirty days after the last moment at which they can
// be renewed, and none earlier: who is revoked must not be forgotten while a renewal would still be answered. That one kind
// fails does not keep the other.
func TestRecordsOutliveTheirEnd(t *testing.T) {
	epoch := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	now := epoch
	c := &Controller{config: validated{Config: Config{Now: func() time.Time { return now }}}, log: hclog.NewNullLogger()}
	c.config.Enrollment.RenewalGrace = maxRenewalGrace
	r := &fakeRecords{
		tokens: []time.Time{epoch, epoch.Add(day)}, issuances: []time.Time{epoch, epoch.Add(day)}, err: errors.New("a value cannot be read"),
	}
	type left struct{ Tokens, Issuances int }
	for _, step := range []struct {
		after time.Duration
		want  left
	}{
		{0, left{2, 2}}, {7 * day, left{2, 2}}, {7*day + 1, left{1, 2}}, {8*day + 1, left{0, 2}},
		{120 * day, left{0, 2}}, {120*day + 1, left{0, 1}}, {121*day + 1, left{0, 0}},
	} {
		now = epoch.Add(step.after)
		c.prune(t.Context(), r)
		if diff := cmp.Diff(step.want, left{len(r.tokens), len(r.issuances)}); diff != "" {
			t.Errorf("after %v (-want +got):\n%s", step.after, diff)
		}
	}
}
