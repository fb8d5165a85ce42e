package revocation

import (
	"context"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
)

// register is a store with the certificates of one machine.
type register struct {
	numbers
	entries []ca.Entry
	kept    store.Revocations
}

func (r *register) IssuancesTo(context.Context, string) ([]ca.Entry, error) { return r.entries, nil }

func (r *register) Revocations(context.Context) (store.Revocations, error) { return r.kept, nil }

func (r *register) ChangeRevocations(_ context.Context, c store.RevocationChange) (uint64, error) {
	r.kept.Number, r.kept.Records = r.kept.Number+1, append(r.kept.Records, c.Put...)
	return r.kept.Number, nil
}

// The clock was ahead when the former certificate was issued, and was set back since: the new one looks older, and stays.
func TestSupersedingSparesThePresentCertificate(t *testing.T) {
	now := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	entry := func(serial string, key byte, prepared time.Time) ca.Entry {
		return ca.Entry{Intention: ca.Intention{Serial: serial, Issuer: pki.KeyID{1}, Key: pki.KeyID{key}, Prepared: prepared, NotAfter: now.Add(24 * time.Hour)}}
	}
	ahead := now.Add(time.Hour)
	r := &register{entries: []ca.Entry{entry("a1", 2, ahead), entry("b2", 3, now)}}
	k, err := Open(t.Context(), Config{Store: r, TrustDomain: "bank.example", Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Supersede(t.Context(), store.Holding{Machine: pki.UUID{1}, Serial: "a1", Issued: ahead}, "b2"); err != nil {
		t.Fatal(err)
	}
	_, former := k.Record("a1")
	_, present := k.Record("b2")
	if !former || present {
		t.Errorf("revoked are the former certificate: %v, the present one: %v", former, present)
	}
}
