package ikev2

import (
	"errors"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

// CVE-2014-2338 (strongSwan): CREATE_CHILD_SA on a half-open SA made an established one without authentication.
// CVE-2019-12312 (libreswan): INFORMATIONAL before IKE_AUTH crashed. CVE-2021-45079 (strongSwan): success was accepted in
// a state that did not expect it.
func TestCVE_2014_2338_ExchangesWaitForTheirState(t *testing.T) {
	for _, state := range []State{StateKeyExchange, StateAuthenticating} {
		for _, exchange := range []wire.ExchangeType{wire.CreateChildSA, wire.Informational} {
			for _, flags := range []wire.Flags{wire.FlagInitiator, wire.FlagResponse} {
				err := accepted(state, wire.Header{Exchange: exchange, Flags: flags}, []wire.Payload{
					wire.SA{}, wire.Nonce{Data: make([]byte, 32)}, wire.TS{}, wire.TS{Responder: true},
				})
				if !errors.Is(err, errNotNow) {
					t.Errorf("%s with flags %x while %s: %v", exchange, flags, state, err)
				}
			}
		}
	}
	if err := accepted(StateEstablished, wire.Header{Exchange: wire.IKEAuth, Flags: wire.FlagInitiator}, nil); !errors.Is(err, errNotNow) {
		t.Errorf("IKE_AUTH in an established SA: %v", err)
	}
}

// CVE-2016-1287 (Cisco): the lengths of fragments summed up to more than the buffer that they were put together in.
// CVE-2026-25075 (strongSwan): nothing bounded what a reassembly kept. The sum is checked before a fragment is kept.
func TestCVE_2016_1287_FragmentsAreSummedBeforeTheyAreKept(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	var c collector
	const limit = 1000
	for n := uint16(1); n < 64; n++ {
		c.add(now, 1, wire.Fragment{Number: n, Total: 64}, make([]byte, 300), nil, limit)
		if c.octets > limit {
			t.Fatalf("%d octets are kept, %d allowed", c.octets, limit)
		}
	}
	if c.have != 3 {
		t.Errorf("%d fragments of 300 octets are kept in %d", c.have, limit)
	}
	if c.expire(now.Add(fragmentsTimeout)); c.octets != 0 || c.parts != nil {
		t.Error("an incomplete message is kept after its time")
	}
	if c.add(now, 1, wire.Fragment{Number: 1, Total: limitFragments + 1}, nil, nil, limit); c.parts != nil {
		t.Errorf("room is made for %d fragments", limitFragments+1)
	}
}

// A peer that is authenticated does not make this side work without end.
func TestCreateChildSABudget(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	var b budget
	served := func(asked int) (n int) {
		for range asked {
			if b.take(now) {
				n++
			}
		}
		return n
	}
	if n := served(1000); n != createBurst {
		t.Errorf("%d at once, want %d", n, createBurst)
	}
	now = now.Add(time.Second)
	if n := served(1000); n != createRate {
		t.Errorf("%d a second later, want %d", n, createRate)
	}
	now = now.Add(time.Hour)
	if n := served(1000); n != createBurst {
		t.Errorf("%d after an hour, want %d", n, createBurst)
	}
}
