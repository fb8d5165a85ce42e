package enrollment

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
)

// Every certificate is journalled for good: one machine in wrong hands must not fill the store of the fleet.
func TestOneMachineCannotRenewWithoutEnd(t *testing.T) {
	o := newOffice(t)
	id, err := Identity(catest.TrustDomain, sql1)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request, err := enroll.NewRequest(key, id)
	if err != nil {
		t.Fatal(err)
	}
	present := o.certificate(id)
	for n := range machineBurst {
		if _, err := o.Renew(t.Context(), present, request); err != nil {
			t.Fatalf("renewal %d: %v", n+1, err)
		}
	}
	if _, err := o.Renew(t.Context(), present, request); !errors.Is(err, ErrTooOften) {
		t.Errorf("renewal %d at once: %v, want ErrTooOften", machineBurst+1, err)
	}
	if o.authority.issued != machineBurst {
		t.Errorf("%d certificates issued, want %d", o.authority.issued, machineBurst)
	}
	o.clock = o.clock.Add(machineInterval)
	if _, err := o.Renew(t.Context(), present, request); err != nil {
		t.Errorf("renewal after the interval: %v", err)
	}
}

// All certificates of a machine are named when it is revoked, in a set that is bounded for the whole fleet: a machine in wrong
// hands that asks as often as it may must not have so many that nobody can be revoked any more.
func TestOneMachineHoardsFewCertificates(t *testing.T) {
	o := newOffice(t)
	id, err := Identity(catest.TrustDomain, sql1)
	if err != nil {
		t.Fatal(err)
	}
	present := o.certificate(id)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request, err := enroll.NewRequest(key, id)
	if err != nil {
		t.Fatal(err)
	}
	const days = 5
	for range int(days * 24 * time.Hour / machineInterval) {
		o.clock = o.clock.Add(machineInterval)
		switch issued, err := o.Renew(t.Context(), present, request); {
		case err == nil:
			present = issued.Leaf
		case !errors.Is(err, ErrTooOften):
			t.Fatal(err)
		}
	}
	if most := machineHoard + int(days*24*time.Hour/machineHoardInterval); o.authority.issued < machineHoard || o.authority.issued > most {
		t.Errorf("%d certificates in %d days, want %d to %d", o.authority.issued, days, machineHoard, most)
	}
	// What came to nothing does not count.
	o.clock = o.clock.Add(machineHoardInterval)
	o.authority.issueFails = ca.ErrJournal
	if _, err := o.Renew(t.Context(), present, request); !errors.Is(err, ca.ErrJournal) {
		t.Fatalf("got %v, wanted the journal's failure", err)
	}
	o.authority.issueFails = nil
	if _, err := o.Renew(t.Context(), present, request); err != nil {
		t.Errorf("after a failure: %v", err)
	}
	// Whoever stole the key may have used it up. A person who revokes what it got lets the machine in.
	err = nil
	for n := 0; n <= machineHoard && err == nil; n++ {
		o.clock = o.clock.Add(machineInterval)
		_, err = o.Renew(t.Context(), present, request)
	}
	if !errors.Is(err, ErrTooOften) {
		t.Fatalf("used up: %v, wanted ErrTooOften", err)
	}
	revoked := o.clock
	o.config.LastRevoked = func(pki.UUID) time.Time { return revoked }
	for n := range machineHoard {
		o.clock = o.clock.Add(machineInterval)
		if _, err := o.Renew(t.Context(), present, request); err != nil {
			t.Fatalf("certificate %d after a revocation: %v", n, err)
		}
	}
	o.clock = o.clock.Add(machineInterval)
	if _, err := o.Renew(t.Context(), present, request); !errors.Is(err, ErrTooOften) {
		t.Errorf("after as many again: %v, wanted ErrTooOften", err)
	}
}

func TestRenewalsForgetAndOutliveTheClock(t *testing.T) {
	r := newMeter[pki.UUID](machineBurst, machineInterval)
	now := time.Now()
	for n := range byte(100) {
		if err := r.take(now, pki.UUID{n}, "machine"); err != nil {
			t.Fatal(err)
		}
	}
	for range machineBurst - 1 {
		if err := r.take(now, pki.UUID{1}, "machine"); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.take(now, pki.UUID{1}, "machine"); !errors.Is(err, ErrTooOften) {
		t.Fatalf("%v, want ErrTooOften", err)
	}
	if err := r.take(now.AddDate(-1, 0, 0), pki.UUID{1}, "machine"); err != nil {
		t.Errorf("after the clock was set back a year: %v", err)
	}
	if err := r.take(now.Add(machineBurst*machineInterval), pki.UUID{2}, "machine"); err != nil || len(r.full) != 1 {
		t.Errorf("%d machines are held after all may renew again, error %v; want 1", len(r.full), err)
	}
}
