package ikev2

import (
	"flag"
	"os"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

var update = flag.Bool("update", false, "write testdata/tables.txt anew")

func TestTables(t *testing.T) {
	const path = "testdata/tables.txt"
	got := Tables()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the tables differ from %s; review the change, then run the test with -update\n%s", path, got)
	}
}

// Every combination is decided: a message is in the table, or it is dropped.
func TestTableIsComplete(t *testing.T) {
	for _, exchange := range []wire.ExchangeType{
		wire.IKESAInit, wire.IKEIntermediate, wire.IKEAuth, wire.CreateChildSA, wire.IKEFollowupKE, wire.Informational,
	} {
		for _, response := range []bool{false, true} {
			n := 0
			for _, r := range table {
				if r.exchange == exchange && r.response == response {
					n++
					if r.handler == "" || len(r.states) == 0 {
						t.Errorf("%s, response %v: the row is not complete", exchange, response)
					}
				}
			}
			if n != 1 {
				t.Errorf("%s, response %v: %d rows", exchange, response, n)
			}
		}
	}
	for s := range situations {
		for i := range incomings {
			if s < unknownChild && collisions[s][i] == impossible {
				t.Errorf("%s while %s has no verdict", i, s)
			}
		}
	}
}

// CVE-2014-2338 (strongSwan) and CVE-2019-12312 (libreswan): an SA that is not authenticated accepted what only an
// established one may.
func TestCVE_2014_2338_NothingBeforeAuthentication(t *testing.T) {
	for _, state := range []State{StateKeyExchange, StateIntermediate, StateAuthenticating} {
		for _, exchange := range []wire.ExchangeType{wire.CreateChildSA, wire.IKEFollowupKE, wire.Informational} {
			h := wire.Header{Exchange: exchange, Flags: wire.FlagInitiator}
			if err := accepted(state, h, nil); err == nil {
				t.Errorf("%s is accepted while %s", exchange, state)
			}
		}
	}
	// Nobody authenticates before all additional key exchanges are done, and nobody adds one afterwards.
	from := wire.Header{Flags: wire.FlagInitiator}
	from.Exchange = wire.IKEAuth
	if err := accepted(StateIntermediate, from, []wire.Payload{wire.ID{}, wire.Auth{}}); err == nil {
		t.Error("IKE_AUTH is accepted before the additional key exchanges")
	}
	from.Exchange = wire.IKEIntermediate
	if err := accepted(StateAuthenticating, from, []wire.Payload{wire.KE{}}); err == nil {
		t.Error("IKE_INTERMEDIATE is accepted after the last additional key exchange")
	}
	if err := accepted(StateIntermediate, from, []wire.Payload{wire.KE{}}); err != nil {
		t.Errorf("IKE_INTERMEDIATE is not accepted: %v", err)
	}
	h := wire.Header{Exchange: wire.IKEAuth}
	payloads := []wire.Payload{wire.ID{}, wire.Auth{}, wire.SA{}, wire.TS{}, wire.TS{Responder: true}}
	if err := accepted(StateAuthenticating, h, payloads); err == nil {
		t.Error("IKE_AUTH is accepted from the responder")
	}
	h.Flags = wire.FlagInitiator
	if err := accepted(StateAuthenticating, h, payloads); err != nil {
		t.Errorf("IKE_AUTH is not accepted: %v", err)
	}
	if err := accepted(StateAuthenticating, h, append(payloads, wire.Auth{})); err == nil {
		t.Error("two AUTH payloads are accepted")
	}
}

func TestLowestNonce(t *testing.T) {
	for _, c := range []struct {
		a, b Exchange
		want bool
	}{
		{Exchange{Ni: []byte{1}, Nr: []byte{9}}, Exchange{Ni: []byte{2}, Nr: []byte{3}}, true},
		{Exchange{Ni: []byte{9}, Nr: []byte{1}}, Exchange{Ni: []byte{2}, Nr: []byte{3}}, true},
		{Exchange{Ni: []byte{2}, Nr: []byte{3}}, Exchange{Ni: []byte{9}, Nr: []byte{1}}, false},
		{Exchange{Ni: []byte{1}, Nr: []byte{9}}, Exchange{Ni: []byte{1, 0}, Nr: []byte{9}}, true}, // the shorter is lower
		{Exchange{Ni: []byte{0xff}, Nr: []byte{0x80}}, Exchange{Ni: []byte{0x7f, 0xff}, Nr: []byte{0xff}}, false},
	} {
		if got := c.a.lowest(c.b); got != c.want {
			t.Errorf("lowest of %v and %v is in the first: %v, want %v", c.a, c.b, got, c.want)
		}
	}
}
