// Package handmade is an IKEv2 peer that does what a test tells it and nothing of its own: it can say what no
// implementation says, one message at a time, to the node and to other implementations alike.
//
// Its invariant: what it sends is what the test made, octet for octet; what comes back is shown as it came. Only
// requests of the other side are answered without being asked, and only as long as the test wants it. It leaves encoding
// to node/ike/wire and cryptography to node/ike/suite: who doubts those tests them elsewhere, against other peers.
package handmade

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// patience bounds the wait for an answer that must come; a busy machine takes a while.
const patience = 10 * time.Second

// Config says who the peer is.
type Config struct {
	Host          *lab.Host
	Local, Remote netip.AddrPort // with port 4500 messages carry the non-ESP marker
	Offer         proposal.IKE
	PSK           []byte
	ID, PeerID    string // FQDNs
}

// Peer is one end of one IKE SA.
type Peer struct {
	t    testing.TB
	cfg  Config
	conn *net.UDPConn

	// Initiator tells the role; SPIi and SPIr, Keys and the nonces are those of the SA.
	Initiator bool
	SPIi      wire.SPI
	SPIr      wire.SPI
	Keys      suite.Keys
	Ni, Nr    []byte

	private           *suite.PrivateValue
	public            []byte
	request, response []byte // IKE_SA_INIT as they were on the wire
	in, out           *suite.Protection
	next              uint32 // message ID of the next request
	// copies counts, for an answer, how many more of the same may come.
	copies map[string]int
	// Announce are further notifies of the own IKE_SA_INIT message.
	Announce []wire.Payload
	// Answer answers requests of the other side while the peer waits for something else; nil answers them empty.
	Answer func(m wire.Message, payloads []wire.Payload) []wire.Payload
}

// New opens the socket. It is closed when the test ends.
func New(t testing.TB, cfg Config) *Peer {
	t.Helper()
	p := &Peer{t: t, cfg: cfg, copies: make(map[string]int)}
	err := cfg.Host.Do(func() (err error) {
		p.conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(cfg.Local))
		return err
	})
	if err != nil {
		t.Fatalf("open the socket of a handmade peer: %v", err)
	}
	t.Cleanup(func() { _ = p.conn.Close() })
	p.Reset()
	return p
}

// Reset forgets the SA, so that the next Init makes another one.
func (p *Peer) Reset() {
	p.SPIi, p.SPIr, p.next = wire.SPI(binary.BigEndian.Uint64(Random(8))), 0, 0
	p.Ni, p.Nr, p.Initiator = Random(32), nil, true
	p.Keys, p.in, p.out = suite.Keys{}, nil, nil
	p.generate()
}

func (p *Peer) generate() {
	p.t.Helper()
	var err error
	if p.private, p.public, err = suite.NewKeyExchange(p.cfg.Offer.Group); err != nil {
		p.t.Fatal(err)
	}
}

// Random returns random octets.
func Random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// Send sends a datagram as it is.
func (p *Peer) Send(datagram []byte) {
	p.t.Helper()
	if p.cfg.Local.Port() == 4500 {
		datagram = append(make([]byte, 4), datagram...) // the non-ESP marker
	}
	if _, err := p.conn.WriteToUDPAddrPort(datagram, p.cfg.Remote); err != nil {
		p.t.Fatalf("send a handmade message: %v", err)
	}
}

// Read waits for the next IKE message. ok is false when none comes in time.
func (p *Peer) Read(timeout time.Duration) (m wire.Message, datagram []byte, ok bool) {
	p.t.Helper()
	deadline := time.Now().Add(timeout)
	buffer := make([]byte, 1<<16)
	for {
		if err := p.conn.SetReadDeadline(deadline); err != nil {
			p.t.Fatal(err)
		}
		n, from, err := p.conn.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return wire.Message{}, nil, false
		}
		if err != nil {
			p.t.Fatalf("wait for an answer to a handmade message: %v", err)
		}
		octets := buffer[:n]
		if p.cfg.Local.Port() == 4500 {
			if n < 4 || binary.BigEndian.Uint32(octets) != 0 { // ESP, or a keepalive
				continue
			}
			octets = octets[4:]
		}
		if from.Addr().Unmap() != p.cfg.Remote.Addr() {
			continue
		}
		datagram = slices.Clone(octets)
		if p.copies[string(datagram)] > 0 {
			p.copies[string(datagram)]--
			continue
		}
		m, err := wire.ParseMessage(datagram, wire.LimitAfterAuth)
		if err != nil {
			p.t.Fatalf("the answer %x does not parse: %v", datagram, err)
		}
		return m, datagram, true
	}
}

// Expect is Read of a message that must come.
func (p *Peer) Expect(what string) (wire.Message, []byte) {
	p.t.Helper()
	m, datagram, ok := p.Read(patience)
	if !ok {
		p.t.Fatalf("waited in vain for %s", what)
	}
	return m, datagram
}

// Ask sends a request again and again until it is answered: refusals may come seldom (RFC 7296 2.21). A slow answerer may
// answer each of them, with the same octets: what comes later than the first is passed over.
func (p *Peer) Ask(what string, request []byte) (wire.Message, []byte) {
	p.t.Helper()
	sent := 0
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		p.Send(request)
		sent++
		if m, datagram, ok := p.Read(time.Second / 4); ok {
			p.copies[string(datagram)] += sent - 1
			return m, datagram
		}
	}
	p.t.Fatalf("waited in vain for an answer to %s", what)
	return wire.Message{}, nil
}

// header is that of an own message.
func (p *Peer) header(exchange wire.ExchangeType, id uint32, response bool) wire.Header {
	h := wire.Header{SPIi: p.SPIi, SPIr: p.SPIr, Exchange: exchange, MessageID: id}
	if p.Initiator {
		h.Flags |= wire.FlagInitiator
	}
	if response {
		h.Flags |= wire.FlagResponse
	}
	return h
}

// Seal makes a protected message.
func (p *Peer) Seal(exchange wire.ExchangeType, id uint32, response bool, payloads ...wire.Payload) []byte {
	return p.SealRaw(p.header(exchange, id, response), wire.First(payloads), wire.AppendPayloads(nil, payloads))
}

// SealRaw makes a protected message of any header and content.
func (p *Peer) SealRaw(h wire.Header, first wire.PayloadType, inner []byte) []byte {
	p.t.Helper()
	d, err := p.out.Seal(nil, h, first, inner, Random(p.out.RandomIVLen()))
	if err != nil {
		p.t.Fatal(err)
	}
	return d
}

// Fragments makes a protected message in parts of at most size octets of content (RFC 7383).
func (p *Peer) Fragments(exchange wire.ExchangeType, id uint32, size int, payloads ...wire.Payload) [][]byte {
	p.t.Helper()
	inner, first := wire.AppendPayloads(nil, payloads), wire.First(payloads)
	total := (len(inner) + size - 1) / size
	var list [][]byte
	for n := range total {
		part := inner[n*size : min((n+1)*size, len(inner))]
		d, err := p.out.SealFragment(nil, p.header(exchange, id, false), first, uint16(n+1), uint16(total), part, Random(p.out.RandomIVLen()))
		if err != nil {
			p.t.Fatal(err)
		}
		list, first = append(list, d), wire.NoNextPayload
	}
	return list
}

// Open decrypts a protected message, whole ones only.
func (p *Peer) Open(m wire.Message, datagram []byte) []wire.Payload {
	p.t.Helper()
	if len(m.Payloads) == 0 {
		p.t.Fatalf("message %s is not protected", m)
	}
	sk, ok := m.Payloads[len(m.Payloads)-1].(wire.Encrypted)
	if !ok {
		p.t.Fatalf("message %s is not protected as a whole", m)
	}
	inner, err := p.in.Open(datagram, sk)
	if err != nil {
		p.t.Fatalf("open %s: %v", m, err)
	}
	payloads, err := wire.ParsePayloads(sk.Next, inner)
	if err != nil {
		p.t.Fatalf("read what %s holds: %v", m, err)
	}
	return payloads
}

// NextID takes the message ID of the next request.
func (p *Peer) NextID() uint32 {
	p.next++
	return p.next - 1
}

// Request sends a protected request, again when it stays without an answer for long, and returns what its response holds.
// strongSwan passes over a request while it is busy with another one of the same message ID, however malformed.
func (p *Peer) Request(exchange wire.ExchangeType, payloads ...wire.Payload) []wire.Payload {
	p.t.Helper()
	id := p.NextID()
	request := p.Seal(exchange, id, false, payloads...)
	sent := 0
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		p.Send(request)
		sent++
		if m, datagram, ok := p.await(exchange, id, patience/4); ok {
			p.copies[string(datagram)] += sent - 1
			return p.Open(m, datagram)
		}
	}
	p.t.Fatalf("waited in vain for the response to %s %d", exchange, id)
	return nil
}

// Response waits for the response to a request, and answers requests of the other side meanwhile.
func (p *Peer) Response(exchange wire.ExchangeType, id uint32) []wire.Payload {
	p.t.Helper()
	m, datagram, ok := p.await(exchange, id, patience)
	if !ok {
		p.t.Fatalf("waited in vain for the response to %s %d", exchange, id)
	}
	return p.Open(m, datagram)
}

// await is Response as it came. ok is false when nothing comes for a time.
func (p *Peer) await(exchange wire.ExchangeType, id uint32, timeout time.Duration) (m wire.Message, datagram []byte, ok bool) {
	p.t.Helper()
	for {
		m, datagram, ok = p.Read(timeout)
		switch {
		case !ok:
			return m, nil, false
		case !m.Header.Response():
			p.serve(m, datagram)
		case m.Header.Exchange != exchange || m.Header.MessageID != id:
			p.t.Fatalf("%s came, want the response to %s %d", m, exchange, id)
		default:
			return m, datagram, true
		}
	}
}

func (p *Peer) serve(m wire.Message, datagram []byte) {
	p.t.Helper()
	if p.in == nil {
		p.t.Fatalf("%s came out of nothing", m)
	}
	payloads := p.Open(m, datagram)
	var answer []wire.Payload
	if p.Answer != nil {
		answer = p.Answer(m, payloads)
	}
	p.Send(p.Seal(m.Header.Exchange, m.Header.MessageID, true, answer...))
}

// Await waits for a request of the other side in the SA, answers it with what answer makes of it and returns it.
func (p *Peer) Await(exchange wire.ExchangeType, answer func([]wire.Payload) []wire.Payload) []wire.Payload {
	p.t.Helper()
	for {
		m, datagram := p.Expect("a request " + exchange.String())
		if m.Header.Response() {
			continue
		}
		if m.Header.Exchange != exchange {
			p.serve(m, datagram)
			continue
		}
		payloads := p.Open(m, datagram)
		p.Send(p.Seal(m.Header.Exchange, m.Header.MessageID, true, answer(payloads)...))
		return payloads
	}
}

// Alive requires that the other side answers in the SA, and that it answered nothing else that it was sent before.
func (p *Peer) Alive() {
	p.t.Helper()
	if answer := p.Request(wire.Informational); len(answer) != 0 {
		p.t.Fatalf("a liveness check is answered with %v", wire.Message{Payloads: answer})
	}
}

func (p *Peer) derive(peerPublic []byte) {
	p.t.Helper()
	shared, err := suite.Agree(p.private, peerPublic)
	if err != nil {
		p.t.Fatal(err)
	}
	if p.Keys, err = suite.DeriveIKE(p.cfg.Offer, shared, p.Ni, p.Nr, p.SPIi, p.SPIr); err != nil {
		p.t.Fatal(err)
	}
	p.UseKeys(p.Keys, p.Initiator)
}

// UseKeys protects what follows with other keys, after a rekey.
func (p *Peer) UseKeys(keys suite.Keys, initiator bool) {
	p.t.Helper()
	fromInitiator, err1 := suite.NewProtection(p.cfg.Offer, keys.EI, keys.AI)
	fromResponder, err2 := suite.NewProtection(p.cfg.Offer, keys.ER, keys.AR)
	if err := errors.Join(err1, err2); err != nil {
		p.t.Fatal(err)
	}
	p.Keys, p.Initiator = keys, initiator
	p.out, p.in = fromInitiator, fromResponder
	if !initiator {
		p.out, p.in = fromResponder, fromInitiator
	}
}

// Secret is the preshared key.
func (p *Peer) secret() sa.Secret { return sa.NewSecret(slices.Clone(p.cfg.PSK)) }

// Continue goes on with the SA that took the place of the former one, as its initiator.
func (p *Peer) Continue(spii, spir wire.SPI, keys suite.Keys) {
	p.t.Helper()
	p.SPIi, p.SPIr, p.next = spii, spir, 0
	p.UseKeys(keys, true)
}
