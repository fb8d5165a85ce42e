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
	ended := now.Add(-time.Hour)
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
		b.kept.Records = append(b.kept.Records, r.record)
		b.held = append(b.held, store.Holding{Machine: pki.UUID{byte(i + 1)}, Serial: serial, Key: r.record.Key, NotAfter: ended})
		want[serial] = struct{ before, after string }{r.before, r.after}
	}
	k, err := Open(t.Context(), Config{Store: b, TrustDomain: "bank.example", Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range b.held {
		if got := k.Barred(h); got != want[h.Serial].before {
			t.Errorf("certificate %s bars its machine for %q, want %q", h.Serial, got, want[h.Serial].before)
		}
	}
	if n, err := k.Prune(t.Context(), now); n != len(b.held) || err != nil {
		t.Fatalf("pruned %d, error %v", n, err)
	}
	for _, h := range b.held {
		if got := k.Barred(h); got != want[h.Serial].after {
			t.Errorf("once the record is gone certificate %s bars its machine for %q, want %q", h.Serial, got, want[h.Serial].after)
		}
	}
}

// What a person revoked is told with its time, and neither what the directory did nor what was superseded.
func TestLastRevoked(t *testing.T) {
	machine := pki.UUID{6: 0x40, 8: 0x80, 15: 1}
	at := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	for i, c := range []struct {
		reason    string
		automatic bool
		want      time.Time
	}{
		{"keyCompromise", false, at}, {"certificateHold", false, at}, {"superseded", false, time.Time{}},
		{"certificateHold", true, time.Time{}}, {"cessationOfOperation", true, time.Time{}},
	} {
		b := &bars{}
		for j, before := range []time.Duration{time.Hour, 0, 2 * time.Hour} {
			b.kept.Records = append(b.kept.Records, store.Revocation{
				Serial: string(rune('a' + j)), Issuer: pki.KeyID{1}, Key: pki.KeyID{byte(j + 2)}, Reason: c.reason, Automatic: c.automatic,
				At: at.Add(-before), Subject: pki.MachineURI("bank.example", machine),
			})
		}
		k, err := Open(t.Context(), Config{Store: b, TrustDomain: "bank.example"})
		if err != nil {
			t.Fatal(err)
		}
		if got := k.LastRevoked(machine); !got.Equal(c.want) {
			t.Errorf("%d: %s, automatic %v: %v, want %v", i, c.reason, c.automatic, got, c.want)
		}
		if got := k.LastRevoked(pki.UUID{1}); !got.IsZero() {
			t.Errorf("another machine: %v, want never", got)
		}
	}
}
