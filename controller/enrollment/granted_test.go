package enrollment

import (
	"errors"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
)

// Whoever took a machine may have found a token on it that was never used, or have asked for a second key in time: what was
// granted before the machine's certificate was revoked lets nobody in, and what is granted afterwards does.
func TestWhatWasGrantedBeforeARevocation(t *testing.T) {
	o := newOffice(t)
	var revoked time.Time
	o.config.LastRevoked = func(machine pki.UUID) time.Time {
		if machine != pki.UUID(sql1.UUID) {
			t.Errorf("asked about %v", machine)
		}
		return revoked
	}
	if _, err := o.Enroll(t.Context(), o.token(sql1), o.request("sql1.bank.example")); err != nil {
		t.Fatal(err)
	}
	o.clock = o.clock.Add(time.Minute)
	token := o.token(sql1)
	waiting, key := o.keyed("sql1.bank.example")
	if _, err := o.submit(waiting); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Approve(t.Context(), key, "alice"); err != nil {
		t.Fatal(err)
	}
	o.clock = o.clock.Add(time.Minute)
	revoked = o.clock
	if _, err := o.Enroll(t.Context(), token, o.request("sql1.bank.example")); !errors.Is(err, ErrBarred) {
		t.Errorf("a token of before gave %v, want ErrBarred", err)
	}
	if _, err := o.submit(waiting); !errors.Is(err, ErrBarred) {
		t.Errorf("an approval of before gave %v, want ErrBarred", err)
	}
	if o.authority.issued != 1 || o.tokens.redeemed != 1 {
		t.Errorf("%d certificates were issued, %d tokens redeemed; want those of before", o.authority.issued, o.tokens.redeemed)
	}
	o.clock = o.clock.Add(time.Minute)
	if _, err := o.Enroll(t.Context(), o.token(sql1), o.request("sql1.bank.example")); err != nil {
		t.Errorf("a token of afterwards gave %v", err)
	}
	// Revoked while the certificate is made.
	held := o.holdings[pki.UUID(sql1.UUID)]
	o.authority.before = func() { revoked = o.clock }
	if issued, err := o.Enroll(t.Context(), o.token(sql1), o.request("sql1.bank.example")); !errors.Is(err, ErrBarred) || issued.Leaf != nil {
		t.Errorf("a token of a moment before gave %v, %v, want ErrBarred", issued.Leaf, err)
	}
	if o.holdings[pki.UUID(sql1.UUID)] != held {
		t.Error("what was not given away is told to be held")
	}
}
