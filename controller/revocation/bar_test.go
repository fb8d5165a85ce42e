package revocation

import (
	"context"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/pki"
)

// bars is a store of revocations and of what machines hold.
type bars struct {
	register
	held []store.Holding
}

func (b *bars) Holdings(context.Context) ([]store.Holding, error) { return b.held, nil }

func (b *bars) PutHolding(_ context.Context, h store.Holding) error {
	for i := range b.held {
		if b.held[i].Machine == h.Machine {
			b.held[i] = h
		}
	}
	return nil
}

func (b *bars) PruneRevocations(_ context.Context, before time.Time) (int, error) {
	pruned := len(b.kept.Records)
	b.kept = store.Revocations{Number: b.kept.Number}
	return pruned, nil
}

// The record of a revocation goes a while after the certificate's end. That its machine was shut out is known for good.
func TestBarredOutlivesTheRecord(t *testing.T) {
	now := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	ended, revoked := now.Add(-time.Hour), now.Add(-2*time.Hour)
	b := &bars{}
	want := map[string]struct{ before, after string }{}
	for i, r := range []struct {
		record        store.Revocation
		before, after string
	}{
		{store.Revocation{Reason: "keyCompromise"}, "keyCompromise", "keyCompromise"},
		{store.Revocation{Reason: "unspecified"}, "unspecified", "unspecified"},
		{store.Revocation{Reason: "certificateHold"}, "certificateHold", "certificateHold"},
		{store.Revocation{Reason: "certificateHold", Automatic: true}, "", ""},
		{store.Revocation{Reason: "superseded"}, "", ""},
		{store.Revocation{Reason: "cessationOfOperation", Automatic: true}, "cessationOfOperation", ""},
	} {
		serial := string(rune('a' + i))
		r.record.Serial, r.record.Issuer, r.record.Key, r.record.NotAfter = serial, pki.KeyID{1}, pki.KeyID{byte(i + 2)}, ended
		r.record.At = revoked
		b.kept.Records = append(b.kept.Records, r.record)
		b.held = append(b.held, store.Holding{Machine: pki.UUID{byte(i + 1)}, Serial: serial, Key: r.record.Key, NotAfter: ended})
		want[serial] = struct{ before, after string }{r.before, r.after}
	}
	k, err := Open(t.Context(), Config{Store: b, TrustDomain: "bank.example", Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range b.held {
		if got, since := k.Barred(h); got != want[h.Serial].before || got != "" && !since.Equal(revoked) {
			t.Errorf("certificate %s bars its machine for %q, want %q", h.Serial, got, want[h.Serial].before)
		}
	}
	if n, err := k.Prune(t.Context(), now); n != len(b.held) || err != nil {
		t.Fatalf("pruned %d, error %v", n, err)
	}
	for _, h := range b.held {
		if got, _ := k.Barred(h); got != want[h.Serial].after {
			t.Errorf("once the record is gone certificate %s bars its machine for %q, want %q", h.Serial, got, want[h.Serial].after)
		}
	}
}
