package ikesim

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

// moment is how far two nodes have come when octets of somebody else arrive.
type moment uint8

const (
	momentBefore      moment = iota // nobody has asked for anything
	momentAsked                     // the initiator waits for the response to IKE_SA_INIT
	momentKeyed                     // IKE_SA_INIT is done, IKE_AUTH under way
	momentEstablished               // they have a Child SA
	moments
)

// until lets the two come that far.
func until(w *World, a *Node, m moment) {
	if m == momentBefore {
		return
	}
	a.Do(ike.Acquire{Flow: between(a, w.Nodes[1])})
	w.Run([moments]time.Duration{momentAsked: time.Millisecond, momentKeyed: 8 * time.Millisecond, momentEstablished: time.Second}[m])
}

// conversation is what two nodes say to each other until they have a Child SA, to the responder and to the initiator.
func conversation(seed uint64) (requests, responses [][]byte) {
	w, a, b := pair(seed, calm, pskAuth, nil)
	w.sniff = func(s ike.Send) {
		if s.Remote.Addr() == b.Addr {
			requests = append(requests, bytes.Clone(s.Bytes))
		} else {
			responses = append(responses, bytes.Clone(s.Bytes))
		}
	}
	until(w, a, momentEstablished)
	return requests, responses
}

// rehearsed is a seed that is another one as soon as two nodes say anything else to each other: what a corpus has kept of
// an older conversation is then protected with keys that nobody has, and is what a stranger says.
func rehearsed() uint64 {
	h := fnv.New64a()
	requests, responses := conversation(9)
	for _, d := range append(requests, responses...) {
		_, _ = h.Write(d)
	}
	return h.Sum64()
}

// FuzzDatagram gives octets of somebody without keys to one of two nodes: how says when, to whom, from where and to which
// port they come, and whether the SPIs and the length of their header are made those of an SA of the receiver. No engine
// panics, the invariants hold, an established SA stays what it was, and whoever has none gets one.
func FuzzDatagram(f *testing.F) {
	seed := rehearsed()
	requests, responses := conversation(seed)
	whole := byte(momentEstablished)
	f.Add(initRequest(1, nil), whole|4)
	f.Add(initRequest(2, []byte("cookie")), whole|4|8)
	f.Add(append(make([]byte, 4), initRequest(3, nil)...), whole|4|8|16)
	for how := range byte(moments) {
		for i := range requests {
			f.Add(requests[i], how|4)
			f.Add(requests[i], how|4|8|32)
			f.Add(responses[i], how)
			f.Add(responses[i], how|8|32)
		}
	}
	for _, n := range []wire.NotifyType{
		wire.NotifyCookie, wire.NotifyInvalidKEPayload, wire.NotifyNoProposalChosen, wire.NotifyInvalidIKESPI, wire.NotifyInvalidMajorVersion,
	} {
		refusal := wire.Message{
			Header:   wire.Header{SPIi: 1, Exchange: wire.IKESAInit, Flags: wire.FlagResponse},
			Payloads: []wire.Payload{wire.Notify{Type: n, Data: []byte{0, 19}}},
		}
		for how := range byte(moments) {
			f.Add(wire.AppendMessage(nil, refusal), how|32)
		}
	}
	f.Fuzz(func(t *testing.T, octets []byte, how byte) {
		w, a, b := pair(seed, calm, pskAuth, nil)
		w.oracle, w.flooded, w.disturbed = true, true, true
		m := moment(how % byte(moments))
		until(w, a, m)
		before := [2]any{a.child(), b.child()}
		to, from := a, b
		if how&4 != 0 {
			to, from = b, a
		}
		if how&32 != 0 {
			octets = fitted(to, octets)
		}
		d := ike.Datagram{Local: netip.AddrPortFrom(to.Addr, 500), Remote: netip.AddrPortFrom(from.Addr, 500), Bytes: octets}
		if how&8 != 0 {
			d.Remote = netip.AddrPortFrom(addrC, 500)
		}
		if how&16 != 0 {
			d.Local, d.Remote = netip.AddrPortFrom(d.Local.Addr(), 4500), netip.AddrPortFrom(d.Remote.Addr(), 4500)
		}
		to.Do(d)
		w.Run(3 * time.Second)
		if now := [2]any{a.child(), b.child()}; m == momentEstablished && (now != before || len(a.SADB) != 1 || len(b.SADB) != 1) {
			t.Fatalf("a stranger has changed what there was from %v to %v\n%s", before, now, story(w))
		}
		if m != momentEstablished {
			w.Run(healTime)
			w.acquireAll()
			w.Run(time.Second)
			if why := w.allConnected(); why != "" {
				t.Fatalf("%s\n%s", why, story(w))
			}
		}
		verify(t, w)
	})
}

// fitted are octets whose header has the SPIs of the node's newest IKE SA, and their length. Octets too short for a header
// stay what they are.
func fitted(n *Node, octets []byte) []byte {
	if len(octets) < wire.HeaderLen {
		return octets
	}
	octets = bytes.Clone(octets)
	for s := range n.Engine.SAs() {
		spii, spir := s.SPI(), s.PeerSPI()
		if !s.Initiator() {
			spii, spir = spir, spii
		}
		binary.BigEndian.PutUint64(octets, uint64(spii))
		if spir != 0 { // the initiator learns it from the first response
			binary.BigEndian.PutUint64(octets[8:], uint64(spir))
		}
	}
	binary.BigEndian.PutUint32(octets[24:], uint32(len(octets)))
	return octets
}
