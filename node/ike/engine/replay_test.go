package engine_test

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/engine"
	"github.com/bailiwick-net/bailiwick/node/ike/sessiontest"
	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// player is an engine that takes the part of one side of a recorded conversation: it draws that side's SPIs and nonces,
// and its key exchanges give the recorded secrets, so that every key, MAC and signature must come out as recorded and
// what the recorded peer sent must open.
type player struct {
	t       *testing.T
	s       sessiontest.Session
	own     netip.Addr
	addrs   []netip.Addr // all addresses of this side
	engine  *engine.Engine
	now     time.Time
	random  randomness
	publics [][]byte          // own public values, in order
	shared  map[string][]byte // by the peer's public value

	sent     []message
	keys     map[sa.SPI]sa.Child // installed, by inbound SPI
	up, down int
	verified int // signatures of the peer
	reasons  []string
}

// message is what an engine sent, opened.
type message struct {
	id       saID
	exchange wire.ExchangeType
	number   uint32
	response bool
	payloads []wire.Payload
}

type saID struct{ i, r wire.SPI }

// randomness gives recorded values to who asks for as many octets, and a fixed stream otherwise.
type randomness struct {
	byLength map[int][][]byte
	rest     byte
}

func (r *randomness) Read(b []byte) (int, error) {
	if q := r.byLength[len(b)]; len(q) > 0 {
		copy(b, q[0])
		r.byLength[len(b)] = q[1:]
		return len(b), nil
	}
	for i := range b {
		r.rest++
		b[i] = r.rest
	}
	return len(b), nil
}

// inner returns the payloads of a recorded packet: those inside the Encrypted payload when there is one.
func inner(t *testing.T, p sessiontest.Packet) []wire.Payload {
	t.Helper()
	m, err := wire.ParseMessage(p.Hex, wire.LimitAfterAuth)
	if err != nil {
		t.Fatalf("recorded packet: %v", err)
	}
	first, plain := p.FirstPayload, []byte(p.Plaintext)
	if len(p.Fragment) == 2 {
		if p.Fragment[0] != p.Fragment[1] || len(p.Reassembled) == 0 {
			return nil // the last one stands for all
		}
		plain = p.Reassembled
		first = wire.TypeIDi
		if p.Response {
			first = wire.TypeIDr
		}
	} else if len(m.Payloads) > 0 {
		if _, ok := m.Payloads[len(m.Payloads)-1].(wire.Encrypted); !ok {
			return m.Payloads
		}
	}
	payloads, err := wire.ParsePayloads(first, plain)
	if err != nil {
		t.Fatalf("recorded payloads: %v", err)
	}
	return payloads
}

// newPlayer reads out of the recording what one side drew.
func newPlayer(t *testing.T, s sessiontest.Session, initiator bool) *player {
	t.Helper()
	first := s.Packets[slices.IndexFunc(s.Packets, func(p sessiontest.Packet) bool { return p.Kind == "ike" })]
	p := &player{
		t: t, s: s, now: time.Date(2025, 9, 1, 0, 0, 0, 0, time.UTC),
		shared: map[string][]byte{}, keys: map[sa.SPI]sa.Child{},
		random: randomness{byLength: map[int][][]byte{}},
	}
	p.own = first.Source.Addr()
	if !initiator {
		p.own = first.Destination.Addr()
	}
	p.addrs = []netip.Addr{p.own}
	// publicOf finds the KE payload beside a nonce.
	publicOf := map[string][]byte{}
	for _, k := range s.Packets {
		if k.Kind != "ike" {
			continue
		}
		payloads := inner(t, k)
		nonce, ok := wire.Find[wire.Nonce](payloads, nil)
		if !ok {
			continue
		}
		ke, haveKE := wire.Find[wire.KE](payloads, nil)
		if haveKE {
			publicOf[string(nonce.Data)] = ke.Data
		}
		if !p.mine(k) {
			continue
		}
		draw := func(n int, b []byte) {
			list := p.random.byLength[n]
			if len(list) == 0 || !bytes.Equal(list[len(list)-1], b) {
				p.random.byLength[n] = append(list, bytes.Clone(b))
			}
		}
		draw(32, nonce.Data)
		if haveKE {
			p.publics = append(p.publics, ke.Data)
		}
		if k.Exchange == wire.IKESAInit {
			own := k.SPIi
			if k.Response {
				own = k.SPIr
			}
			draw(8, own)
		} else if sap, ok := wire.Find[wire.SA](payloads, nil); ok {
			for _, o := range sap.Proposals {
				if o.Protocol == wire.ProtocolIKE {
					draw(8, o.SPI)
				}
			}
		}
	}
	for _, k := range s.Packets { // Child SPIs, those of IKE_AUTH included
		if k.Kind != "ike" || !p.mine(k) || k.Exchange == wire.IKESAInit {
			continue
		}
		if sap, ok := wire.Find[wire.SA](inner(t, k), nil); ok && sap.Proposals[0].Protocol == wire.ProtocolESP {
			p.random.byLength[4] = append(p.random.byLength[4], sap.Proposals[0].SPI)
		}
	}
	secret := func(ni, nr, shared []byte) {
		for _, n := range [][]byte{ni, nr} {
			if ke := publicOf[string(n)]; ke != nil && len(shared) > 0 {
				p.shared[string(ke)] = shared
			}
		}
	}
	for _, k := range s.IKE {
		secret(k.NonceI, k.NonceR, k.Shared)
	}
	for _, c := range s.Child {
		secret(c.NonceI, c.NonceR, c.Shared)
	}
	return p
}

// mine tells which side sent a packet: what has the flag of the original initiator follows the roles of the IKE SA.
func (p *player) mine(k sessiontest.Packet) bool { return slices.Contains(p.addrs, k.Source.Addr()) }

// step gives an event to the engine and does what it asks for.
func (p *player) step(ev ike.Event) {
	p.t.Helper()
	p.now = p.now.Add(time.Millisecond)
	queue := []ike.Event{ev}
	for len(queue) > 0 {
		ev, queue = queue[0], queue[1:]
		for _, a := range slices.Clone(p.engine.Step(p.now, ev)) {
			switch a := a.(type) {
			case ike.Send:
				p.heard(a.Bytes)
			case ike.Job:
				queue = append(queue, ike.JobDone{ID: a.ID, Result: p.work(a.Work)})
			case ike.InstallIn:
				p.keys[a.Child.In.SPI] = a.Child
			case ike.Up:
				p.up++
			case ike.Down:
				p.down++
				p.reasons = append(p.reasons, fmt.Sprintf("%s: %s", a.Reason, a.Detail))
			case ike.Refuse:
				p.reasons = append(p.reasons, fmt.Sprintf("refused: %s: %s", a.Reason, a.Detail))
			}
		}
	}
}

// work does the recorded side's key exchanges, and judges signatures for what they are.
func (p *player) work(work ike.Work) ike.Result {
	switch w := work.(type) {
	case ike.Generate:
		if len(p.publics) == 0 {
			return ike.Generated{Err: fmt.Errorf("the recording has no further public value")}
		}
		public := p.publics[0]
		p.publics = p.publics[1:]
		return ike.Generated{Public: public, Private: "recorded"}
	case ike.Agree:
		shared, ok := p.shared[string(w.Peer)]
		if !ok {
			return ike.Agreed{Err: fmt.Errorf("the recording has no secret for this public value")}
		}
		return ike.Agreed{Shared: sa.NewSecret(bytes.Clone(shared))}
	case ike.Sign:
		return ike.Signed{Method: byte(wire.AuthDigitalSignature), Data: []byte("a signature that nobody looks at")}
	case ike.Verify:
		leaf, err := x509.ParseCertificate(w.Chain[0])
		if err != nil {
			return ike.Verified{Reason: ike.ReasonAuthFailed, Detail: err.Error()}
		}
		var announced []wire.HashAlgorithm
		for _, h := range w.Hashes {
			announced = append(announced, wire.HashAlgorithm(h))
		}
		if err := suite.Verify(leaf.PublicKey, wire.AuthMethod(w.Method), w.Data, w.Octets, announced); err != nil {
			return ike.Verified{Reason: ike.ReasonAuthFailed, Detail: err.Error()}
		}
		p.verified++
		return ike.Verified{Peer: leaf.Subject.String()}
	}
	p.t.Fatalf("unknown work %T", work)
	return nil
}

// heard opens what the engine sent with the recorded keys.
func (p *player) heard(datagram []byte) {
	p.t.Helper()
	m, err := wire.ParseMessage(datagram, wire.LimitAfterAuth)
	if err != nil {
		p.t.Fatalf("the engine sent %x: %v", datagram, err)
	}
	id := saID{m.Header.SPIi, m.Header.SPIr}
	out := message{id: id, exchange: m.Header.Exchange, number: m.Header.MessageID, response: m.Header.Response(), payloads: m.Payloads}
	if len(m.Payloads) > 0 {
		switch sk := m.Payloads[len(m.Payloads)-1].(type) {
		case wire.Encrypted:
			plain, err := p.protection(id, m.Header.FromInitiator()).Open(datagram, sk)
			if err != nil {
				p.t.Fatalf("%s %d of the engine does not open with the recorded keys: %v", m.Header.Exchange, m.Header.MessageID, err)
			}
			if out.payloads, err = wire.ParsePayloads(sk.Next, plain); err != nil {
				p.t.Fatalf("%s %d of the engine: %v", m.Header.Exchange, m.Header.MessageID, err)
			}
		case wire.Fragment:
			if _, err := p.protection(id, m.Header.FromInitiator()).OpenFragment(datagram, sk); err != nil {
				p.t.Fatalf("fragment %d of the engine does not open with the recorded keys: %v", sk.Number, err)
			}
			out.payloads = nil
		}
	}
	p.sent = append(p.sent, out)
}

func (p *player) protection(id saID, initiator bool) *suite.Protection {
	p.t.Helper()
	for _, k := range p.s.IKE {
		if i, r := k.SPIs(); i == id.i && r == id.r {
			encr, integ := k.ER, k.AR
			if initiator {
				encr, integ = k.EI, k.AI
			}
			protection, err := suite.NewProtection(k.Suite(), sa.NewSecret(bytes.Clone(encr)), sa.NewSecret(bytes.Clone(integ)))
			if err != nil {
				p.t.Fatal(err)
			}
			return protection
		}
	}
	p.t.Fatalf("the engine uses the IKE SA %s %s, which is not in the recording", id.i, id.r)
	return nil
}

// find takes a message that the engine sent.
func (p *player) find(k sessiontest.Packet) (message, bool) {
	i := slices.IndexFunc(p.sent, func(m message) bool {
		return m.exchange == k.Exchange && m.number == k.MessageID && m.response == k.Response && m.id.i == k.SPIi.SPI() &&
			(m.id.r == k.SPIr.SPI() || k.Exchange == wire.IKESAInit)
	})
	if i < 0 {
		return message{}, false
	}
	m := p.sent[i]
	p.sent = slices.Delete(p.sent, i, i+1)
	return m, true
}

// shape is what must be the same in the engine's message as in the recorded one.
func shape(payloads []wire.Payload) string {
	var list []string
	for _, p := range payloads {
		switch p := p.(type) {
		case wire.SA, wire.KE, wire.Nonce, wire.Auth, wire.TS, wire.Delete:
			list = append(list, p.PayloadType().String())
		case wire.Notify:
			if p.Type < 16384 || p.Type == wire.NotifyRekeySA || p.Type == wire.NotifyCookie {
				list = append(list, p.Type.String())
			}
		}
	}
	slices.Sort(list)
	return fmt.Sprint(list)
}

// checkKeys compares every installed Child SA with the recorded one.
func (p *player) checkKeys() (checked int) {
	p.t.Helper()
	for _, c := range p.s.Child {
		for _, side := range []struct{ in, out, encrIn, integIn, encrOut, integOut sessiontest.Octets }{
			{c.InI, c.InR, c.EncrR, c.IntegR, c.EncrI, c.IntegI}, {c.InR, c.InI, c.EncrI, c.IntegI, c.EncrR, c.IntegR},
		} {
			have, ok := p.keys[sa.SPI(binary.BigEndian.Uint32(side.in))]
			if !ok || have.Out.SPI != sa.SPI(binary.BigEndian.Uint32(side.out)) {
				continue
			}
			checked++
			for _, k := range []struct {
				name string
				got  sa.Secret
				want []byte
			}{
				{"inbound encryption", have.In.Encryption, side.encrIn}, {"inbound integrity", have.In.Integrity, side.integIn},
				{"outbound encryption", have.Out.Encryption, side.encrOut}, {"outbound integrity", have.Out.Integrity, side.integOut},
			} {
				if !bytes.Equal(k.got.Expose(), k.want) {
					p.t.Errorf("Child SA %s: %s key is %x, recorded is %x", have.In.SPI, k.name, k.got.Expose(), k.want)
				}
			}
		}
	}
	return checked
}
