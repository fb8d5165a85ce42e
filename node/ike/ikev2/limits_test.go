package ikev2

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// quiet is a host that keeps what an SA emits and does no job.
type quiet struct{ actions []ike.Action }

func (*quiet) Random(n int) []byte                    { return make([]byte, n) }
func (*quiet) ChildSPI(sa.Lane) sa.SPI                { return 1000 }
func (*quiet) Do(wire.SPI, ike.Work) ike.JobID        { return 1 }
func (h *quiet) Emit(a ike.Action)                    { h.actions = append(h.actions, a) }
func (*quiet) FirstContact(wire.SPI, netip.Addr) bool { return false }
func (*quiet) Addresses() []netip.Addr                { return nil }
func (*quiet) Room(int) bool                          { return true }

// established is an SA that has come up, without keys: nothing of it can be sent.
func established() (*SA, *quiet) {
	h := &quiet{}
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	return &SA{host: h, cfg: &ike.Config{}, state: StateEstablished, up: true, now: now, own: 1, peer: 2}, h
}

// Message IDs never wrap (RFC 7296 2.2): half way the IKE SA is rekeyed, once; near the end it is closed while its delete
// still has an ID, and at the end it is over without one. The same holds for the IDs of either side.
func TestMessageIDsEnd(t *testing.T) {
	for name, id := range map[string]func(*SA) *uint32{
		"own":    func(s *SA) *uint32 { return &s.win.next },
		"peer's": func(s *SA) *uint32 { return &s.win.expect },
	} {
		s, _ := established()
		*id(s) = rekeyMessageID - 1
		if s.checkMessageIDs(); len(s.queue) != 0 || s.state != StateEstablished {
			t.Errorf("%s message ID %d: %d tasks, %s", name, *id(s), len(s.queue), s.state)
		}
		for range 3 {
			*id(s)++
			s.checkMessageIDs()
			if len(s.queue) != 1 {
				t.Fatalf("%s message ID %d: %d tasks, want one rekey", name, *id(s), len(s.queue))
			}
			if _, ok := s.queue[0].task.(*rekeyIKE); !ok {
				t.Errorf("%s message ID %d: %T, want a rekey", name, *id(s), s.queue[0].task)
			}
		}

		s, _ = established()
		*id(s) = maxMessageID - 4
		s.checkMessageIDs()
		if len(s.queue) != 1 || s.state != StateEstablished {
			t.Fatalf("%s message ID %d: %d tasks, %s; want one delete", name, *id(s), len(s.queue), s.state)
		}
		if d, ok := s.queue[0].task.(*deleteIKE); !ok || d.reason != ike.ReasonExpired {
			t.Errorf("%s message ID %d: %T, want a delete", name, *id(s), s.queue[0].task)
		}

		s, h := established()
		*id(s) = maxMessageID
		s.checkMessageIDs()
		var down ike.Down
		for _, a := range h.actions {
			if d, ok := a.(ike.Down); ok {
				down = d
			}
		}
		if s.state != StateClosed || down.Reason != ike.ReasonMessageIDsUsed {
			t.Errorf("%s message ID %d: %s, down for %q, want it closed for %s", name, *id(s), s.state, down.Reason, ike.ReasonMessageIDsUsed)
		}
	}
}

// CVE-2023-38712 (libreswan): a delete of the IKE SA was followed by another one in the same message, which met what the
// first had freed. Nothing behind the first one counts.
func TestCVE_2023_38712_NothingAfterTheDelete(t *testing.T) {
	s, h := established()
	s.serveInformational(&serving{}, message{payloads: []wire.Payload{
		wire.Delete{Protocol: wire.ProtocolIKE}, wire.Delete{Protocol: wire.ProtocolIKE},
		wire.Delete{Protocol: wire.ProtocolESP, SPIs: []sa.SPI{7}}, wire.Notify{Type: wire.NotifyAuthenticationFailed},
	}})
	var downs []ike.Down
	for _, a := range h.actions {
		if d, ok := a.(ike.Down); ok {
			downs = append(downs, d)
		}
	}
	if s.state != StateClosed || len(downs) != 1 || downs[0].Reason != ike.ReasonDeletedByPeer || len(s.deleted) != 0 {
		t.Errorf("%s, down: %+v, %d Child SAs deleted; want it closed once, by the first delete", s.state, downs, len(s.deleted))
	}
}

// CVE-2023-38710 (libreswan): a rekey of a Child SA with protocol 0 was repeated in the answer, which this side's own code
// does not write. What an answer says is this side's choice: the protocol is ESP, whatever was asked for.
func TestCVE_2023_38710_ProtocolIsNotRepeated(t *testing.T) {
	chosen := proposal.IKE{Encryption: proposal.EncrAESGCM16, KeyBits: 128, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupX25519}
	for _, n := range []wire.Notify{
		{Type: wire.NotifyRekeySA, SPI: []byte{1, 2, 3, 4}},
		{Type: wire.NotifyRekeySA, Protocol: wire.ProtocolIKE, SPI: []byte{1, 2, 3, 4}},
		{Type: wire.NotifyRekeySA, Protocol: 200, SPI: []byte{1, 2, 3, 4}},
	} {
		s, h := established()
		key := func() sa.Secret { return sa.NewSecret(bytes.Repeat([]byte{5}, 20)) }
		var err error
		if s.out, err = suite.NewProtection(chosen, key(), sa.Secret{}); err != nil {
			t.Fatal(err)
		}
		peer, err := suite.NewProtection(chosen, key(), sa.Secret{})
		if err != nil {
			t.Fatal(err)
		}
		v := &serving{id: 3, exchange: wire.CreateChildSA}
		s.win.serving = v
		if !s.refused(v, rekeyChildIn, nil, n) {
			t.Fatal("a rekey of a Child SA that is not there is not refused")
		}
		var sent []byte
		for _, a := range h.actions {
			if a, ok := a.(ike.Send); ok {
				sent = a.Bytes
			}
		}
		m, err := wire.ParseMessage(sent, wire.LimitBeforeAuth)
		if err != nil || len(m.Payloads) != 1 {
			t.Fatalf("the answer %x cannot be read: %v", sent, err)
		}
		e, ok := m.Payloads[0].(wire.Encrypted)
		if !ok {
			t.Fatalf("the answer holds %T", m.Payloads[0])
		}
		inner, err := peer.Open(sent, e)
		if err != nil {
			t.Fatal(err)
		}
		payloads, err := wire.ParsePayloads(e.Next, inner)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := wire.FindNotify(payloads, wire.NotifyChildSANotFound)
		if !ok || got.Protocol != wire.ProtocolESP || s.state != StateEstablished {
			t.Errorf("asked for protocol %d: answered %+v, %s", n.Protocol, payloads, s.state)
		}
	}
}
