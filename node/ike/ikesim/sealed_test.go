package ikesim

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// impostor has the keys of a node and speaks in its place: what it says to the other node is protected as it must be, and
// is otherwise whatever octets make of it.
type impostor struct {
	w        *World
	to, from *Node
	port     uint16
	auth     wire.Auth // that the node itself would send
}

// logged are the keys of one IKE SA as a key log tells them.
type logged struct {
	spii, spir wire.SPI
	initiator  *suite.Protection // of what the initiator sends
	responder  *suite.Protection
}

// keysOf reads key logs, the newer line last: the keys of the newest IKE SA of a node, or of the oldest that is still there.
func keysOf(n *Node, log []string, oldest bool) (found logged, ok bool) {
	live := make(map[wire.SPI]bool)
	for s := range n.Engine.SAs() {
		live[s.SPI()] = true
	}
	for _, line := range log {
		table, rest, _ := strings.Cut(line, ":ikev2_decryption_table:")
		if table != "uat" {
			continue
		}
		fields := strings.Split(rest, ",")
		number := func(s string) wire.SPI {
			v, err := strconv.ParseUint(s, 16, 64)
			if err != nil {
				panic(err)
			}
			return wire.SPI(v)
		}
		protection := func(key string) *suite.Protection {
			octets, err := hex.DecodeString(key)
			if err != nil {
				panic(err)
			}
			p, err := suite.NewProtection(ikeOffer, sa.NewSecret(octets), sa.Secret{})
			if err != nil {
				panic(err)
			}
			return p
		}
		l := logged{spii: number(fields[0]), spir: number(fields[1])}
		if !live[l.spii] && !live[l.spir] {
			continue
		}
		l.initiator, l.responder = protection(fields[2]), protection(fields[3])
		if found, ok = l, true; oldest {
			return found, ok
		}
	}
	return found, ok
}

// exchanges are the exchange types that an octet of a script chooses from; the last stands for time that passes.
var exchanges = [...]wire.ExchangeType{
	wire.CreateChildSA, wire.Informational, wire.IKEAuth, wire.IKEIntermediate, wire.IKEFollowupKE, wire.IKESAInit, 200, 0,
}

// The bits of the octet that begins a message of a script. The lowest three choose the exchange.
const (
	saidResponse = 1 << 3 // it answers the last request; without it, it is a request
	saidAgain    = 1 << 4 // it has the message ID of the last one instead of the next
	saidOldest   = 1 << 5 // it is of the oldest IKE SA instead of the newest
	saidParts    = 1 << 6 // it comes in two fragments
	saidRaw      = 1 << 7 // the octets of a message are one piece, not a list of payloads
)

// The SPIs that a script cannot know are written as these octets.
var (
	spellIn  = []byte{0xff, 0xff, 0xff, 0xf1} // of the node's Child SA, inbound
	spellOut = []byte{0xff, 0xff, 0xff, 0xf2} // outbound
)

// say sends the messages of a script. A message is an octet of the bits above, the number of payloads, and for each of
// them its type, the two octets of its length and its body; or, when it is raw, the type of the first payload, the two
// octets of the length of all, and the octets. An Authentication payload of no octets is that of the node itself.
func (x *impostor) say(script []byte) {
	next := func() byte {
		if len(script) == 0 {
			return 0
		}
		b := script[0]
		script = script[1:]
		return b
	}
	piece := func() []byte {
		n := min(int(next())<<8|int(next()), len(script))
		b := script[:n:n]
		script = script[n:]
		return x.spelled(b)
	}
	for count := 0; len(script) > 0 && count < 16; count++ {
		kind := next()
		exchange := exchanges[kind&7]
		if exchange == 0 {
			x.w.Run(time.Duration(next()) * 200 * time.Millisecond)
			continue
		}
		var inner []byte
		var first wire.PayloadType
		if kind&saidRaw != 0 {
			first = wire.PayloadType(next())
			inner = piece()
		} else {
			first, inner = chained(int(next()&63), func() (wire.PayloadType, []byte) {
				t, body := wire.PayloadType(next()), piece()
				if t == wire.TypeAuth && len(body) == 0 {
					body = x.auth.AppendBody(nil)
				}
				return t, body
			})
		}
		x.send(kind, exchange, first, inner)
		x.w.Run(20 * time.Millisecond)
	}
}

// chained makes a chain of payloads: the type of the first, and their octets.
func chained(n int, payload func() (wire.PayloadType, []byte)) (first wire.PayloadType, inner []byte) {
	at := -1 // of the field that names the type of the payload to come
	for range n {
		t, body := payload()
		if at < 0 {
			first = t
		} else {
			inner[at] = byte(t)
		}
		at = len(inner)
		inner = append(inner, 0, 0)
		inner = binary.BigEndian.AppendUint16(inner, uint16(4+len(body)))
		inner = append(inner, body...)
	}
	return first, inner
}

// spelled puts the SPIs of the node's Child SA where they are spelled. Where there is none, what is spelled is an SPI.
func (x *impostor) spelled(b []byte) []byte {
	child, _ := x.to.with(x.from)
	i := x.to.SADB[child]
	if i == nil {
		return b
	}
	b = bytes.ReplaceAll(b, spellIn, binary.BigEndian.AppendUint32(nil, uint32(i.Child.In.SPI)))
	return bytes.ReplaceAll(b, spellOut, binary.BigEndian.AppendUint32(nil, uint32(i.Child.Out.SPI)))
}

// send protects one message and gives it to the node.
func (x *impostor) send(kind byte, exchange wire.ExchangeType, first wire.PayloadType, inner []byte) {
	// A responder has keys when IKE_AUTH comes, an initiator before.
	keys, ok := keysOf(x.to, slices.Concat(x.from.keyLog, x.to.keyLog), kind&saidOldest != 0)
	if !ok {
		return // everything has ended
	}
	h := wire.Header{SPIi: keys.spii, SPIr: keys.spir, Exchange: exchange}
	own, p := keys.spir, keys.initiator
	h.Flags = wire.FlagInitiator
	for s := range x.to.Engine.SAs() {
		if s.Initiator() && s.SPI() == keys.spii {
			own, p, h.Flags = keys.spii, keys.responder, 0
		}
	}
	v := x.to.window(own)
	if kind&saidResponse != 0 {
		h.Flags |= wire.FlagResponse
		h.MessageID = uint32(max(0, v.requestSent))
		if kind&saidAgain != 0 {
			h.MessageID--
		}
	} else {
		h.MessageID = uint32(v.requestGot + 1)
		if kind&saidAgain != 0 && h.MessageID > 0 {
			h.MessageID--
		}
		// An IKE_SA_INIT request was the first of an initiator.
		if v.requestGot < 0 && h.Flags&wire.FlagInitiator != 0 && x.to.unauthenticated(own) {
			h.MessageID = 1
		}
	}
	var datagrams [][]byte
	if kind&saidParts != 0 {
		half := len(inner) / 2
		for i, part := range [][]byte{inner[:half], inner[half:]} {
			if d, err := p.SealFragment(nil, h, first, uint16(i+1), 2, part, nil); err == nil {
				datagrams = append(datagrams, d)
			}
		}
	} else if d, err := p.Seal(nil, h, first, inner, nil); err == nil {
		datagrams = append(datagrams, d)
	}
	d := ike.Datagram{Local: netip.AddrPortFrom(x.to.Addr, x.port), Remote: netip.AddrPortFrom(x.from.Addr, x.port)}
	for _, d.Bytes = range datagrams {
		x.to.Do(d)
	}
}

func (n *Node) unauthenticated(own wire.SPI) bool {
	for s := range n.Engine.SAs() {
		if s.SPI() == own {
			return s.EstablishedAt().IsZero()
		}
	}
	return false
}

// heardOf is a message that one of two nodes has sent, as they understand it.
type heardOf struct {
	from     *Node
	exchange wire.ExchangeType
	response bool
	oldest   bool // of the IKE SA that another one has replaced
	payloads []wire.Payload
}

// overheard reads what two nodes say to each other with the keys that they log.
func overheard(w *World) *[]heardOf {
	list := new([]heardOf)
	previous := w.sniff
	w.sniff = func(s ike.Send) {
		if previous != nil {
			previous(s)
		}
		from := w.at(s.Local.Addr())
		m, err := wire.ParseMessage(s.Bytes, wire.LimitAfterAuth)
		if err != nil || len(m.Payloads) != 1 || from == nil {
			return
		}
		sk, ok := m.Payloads[0].(wire.Encrypted)
		if !ok {
			return
		}
		for _, oldest := range []bool{false, true} {
			keys, ok := keysOf(from, from.keyLog, oldest)
			if !ok {
				continue
			}
			p := keys.responder
			if m.Header.FromInitiator() {
				p = keys.initiator
			}
			if inner, err := p.Open(s.Bytes, sk); err == nil {
				if payloads, err := wire.ParsePayloads(sk.Next, inner); err == nil {
					*list = append(*list, heardOf{from, m.Header.Exchange, m.Header.Response(), oldest, payloads})
				}
				return
			}
		}
	}
	return list
}

// scripted writes a message as a script would, with the SPIs of the node's Child SA spelled.
func scripted(m heardOf, to *Node) []byte {
	child, _ := to.with(m.from)
	kind := byte(slices.Index(exchanges[:], m.exchange))
	if m.response {
		kind |= saidResponse
	}
	if m.oldest {
		kind |= saidOldest
	}
	script := []byte{kind, byte(len(m.payloads))}
	for _, p := range m.payloads {
		body := p.AppendBody(nil)
		if p.PayloadType() == wire.TypeAuth {
			body = nil
		}
		if i := to.SADB[child]; i != nil {
			body = bytes.ReplaceAll(body, binary.BigEndian.AppendUint32(nil, uint32(i.Child.In.SPI)), spellIn)
			body = bytes.ReplaceAll(body, binary.BigEndian.AppendUint32(nil, uint32(i.Child.Out.SPI)), spellOut)
		}
		script = append(script, byte(p.PayloadType()))
		script = binary.BigEndian.AppendUint16(script, uint16(len(body)))
		script = append(script, body...)
	}
	return script
}
