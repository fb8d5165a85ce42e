package strongswan

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/interop/handmade"
	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

// TestUnknownPayloads sends payloads of types that nobody knows, in clear and protected. Without the critical bit they
// are ignored; with it the message is refused by their number (RFC 7296 2.5), and the SA goes on.
func TestUnknownPayloads(t *testing.T) {
	t.Parallel()
	shows(t, 26)
	targets(t, func(t *testing.T, x *target) {
		peer := handmade.New(t, x.config)
		plain, critical := wire.Unknown{Type: 200, Body: []byte("who?")}, wire.Unknown{Type: 201, Critical: true, Body: []byte("me!")}
		// In clear, critical: nothing is kept, the type is told.
		peer.Send(peer.InitRequest(func(p []wire.Payload) []wire.Payload { return append(p, critical) }))
		m, _ := peer.Expect("the refusal of a critical payload")
		refusesCritical(t, m.Payloads)
		// In clear, not critical; the critical bit of a known payload is ignored.
		peer.Reset()
		request := peer.InitRequest(func(p []wire.Payload) []wire.Payload { return append(p, plain) })
		request[wire.HeaderLen+1] |= 0x80
		peer.Send(request)
		m, datagram := peer.Expect("the response to IKE_SA_INIT")
		peer.Accept(request, m, datagram)
		answer := peer.Request(wire.IKEAuth, append(peer.AuthRequest(x.local, x.remote, ownSPI), plain)...)
		if _, ok := handmade.Child(answer); !ok {
			t.Fatalf("IKE_AUTH with an unknown payload is answered with %s", wire.Message{Payloads: answer})
		}
		refusesCritical(t, peer.Request(wire.Informational, plain, critical))
		if answer := peer.Request(wire.Informational, plain); len(answer) != 0 {
			t.Errorf("an unknown payload is answered with %s", wire.Message{Payloads: answer})
		}
		peer.Alive()
	})
}

func refusesCritical(t *testing.T, payloads []wire.Payload) {
	t.Helper()
	n, ok := wire.FindNotify(payloads, wire.NotifyUnsupportedCriticalPayload)
	if !ok || !bytes.Equal(n.Data, []byte{201}) {
		t.Errorf("a critical payload of type 201 is answered with %s, data %v", wire.Message{Payloads: payloads}, n.Data)
	}
}

// TestRepeatedMessages sends messages again, replays old ones and sends some before their time (RFC 7296 2.1 to 2.3). The
// same request gets the same response, octet for octet, and nothing else gets any.
func TestRepeatedMessages(t *testing.T) {
	t.Parallel()
	shows(t, 27)
	targets(t, func(t *testing.T, x *target) {
		peer := handmade.New(t, x.config)
		again := func(what string, request []byte) (response []byte) {
			t.Helper()
			peer.Send(request)
			_, first := peer.Expect("the response to " + what)
			var second []byte
			if x.isNode {
				peer.Send(request)
				_, second = peer.Expect("the response to the same " + what)
			} else { // it passes over a repetition that comes while it is still at the first
				_, second = peer.Ask("the same "+what, request)
			}
			if !bytes.Equal(first, second) {
				t.Errorf("the same %s is answered with %x, then with %x", what, first, second)
			}
			return first
		}
		init := peer.InitRequest()
		response := again("IKE_SA_INIT", init)
		m, err := wire.ParseMessage(response, wire.LimitBeforeAuth)
		if err != nil {
			t.Fatal(err)
		}
		peer.Accept(init, m, response)
		auth := peer.Seal(wire.IKEAuth, peer.NextID(), false, peer.AuthRequest(x.local, x.remote, ownSPI)...)
		again("IKE_AUTH", auth)
		id := peer.NextID()
		question := peer.Seal(wire.Informational, id, false)
		answer := again("INFORMATIONAL", question)
		// From here on nothing is answered but what Alive asks: it would see anything else first.
		peer.Send(auth)                                                                             // old
		peer.Send(peer.Seal(wire.Informational, id, false, wire.VendorID{Data: []byte("another")})) // used ID, other content
		peer.Send(peer.Seal(wire.Informational, id+7, false))                                       // before its time
		peer.Send(answer)                                                                           // reflected
		peer.Send(peer.Seal(wire.Informational, id+1, true))                                        // a response to nothing
		spoilt := slices.Clone(peer.Seal(wire.Informational, id+1, false))
		spoilt[len(spoilt)-1] ^= 1
		peer.Send(spoilt)
		peer.Alive()
		peer.Alive()
		if x.isNode {
			if n := len(x.Ours().Children); n != 1 {
				t.Errorf("the node has %d children after a repeated IKE_AUTH, want one", n)
			}
		}
	})
}

// TestZeroSPIs sends messages whose SPIs are zero where they must not be (RFC 7296 3.1, RFC 4303 2.1).
func TestZeroSPIs(t *testing.T) {
	t.Parallel()
	shows(t, 28)
	targets(t, func(t *testing.T, x *target) {
		before := uint64(0)
		if x.isNode {
			before = x.counter("ike_dropped_malformed")
		}
		peer := handmade.New(t, x.config)
		request := peer.InitRequest()
		clear(request[:8]) // no initiator SPI
		peer.Send(request)
		auth := peer.InitRequest()
		auth[18] = byte(wire.IKEAuth) // no responder SPI, in what is not the first message
		auth[23] = 1                  // message ID
		peer.Send(auth)
		peer.Init()
		x.counted("ike_dropped_malformed", before, 2)
		// A Child SA without SPI is none; the IKE SA stands.
		answer := peer.Request(wire.IKEAuth, peer.AuthRequest(x.local, x.remote, 0)...)
		if _, ok := handmade.Child(answer); ok && x.isNode {
			t.Error("a Child SA with SPI zero is accepted")
		}
		if x.isNode {
			if n := len(x.Ours().Children); n != 0 {
				t.Errorf("the node has %d children with an SPI of zero", n)
			}
			peer.Alive()
		}
	})
	t.Run("answer", func(t *testing.T) {
		x, peer, m, _ := asked(t)
		// A proper answer, but for the responder's SPI: the node waits for a better one, and repeats its request.
		peer.AnswerUnprotected(m, 0, peer.InitAnswer(m)...)
		m, datagram := peer.AwaitInit()
		x.completes(peer, m, datagram)
	})
}

// TestReservedBits sets every bit that is reserved in what is sent: it is ignored (RFC 7296 2.5), and AUTH covers it as it
// was on the wire.
func TestReservedBits(t *testing.T) {
	t.Parallel()
	shows(t, 29)
	targets(t, func(t *testing.T, x *target) {
		peer := handmade.New(t, x.config)
		request := peer.InitRequest()
		request[17] |= 0x05 // minor version
		request[19] |= 0xc7 // flags
		sa := request[wire.HeaderLen:]
		sa[1] |= 0x7f   // reserved bits of the payload
		sa[4+1] = 0xff  // of the proposal
		sa[12+1] = 0xff // of the first transform
		sa[12+5] = 0xff // and behind its type
		peer.Send(request)
		m, datagram := peer.Expect("the response to a request with reserved bits")
		if m.Header.Flags != wire.FlagResponse || m.Header.Version != wire.Version2 {
			t.Errorf("the response has flags %#x and version %#x, want the bits cleared", m.Header.Flags, m.Header.Version)
		}
		peer.Accept(request, m, datagram)
		auth := peer.AuthRequest(x.local, x.remote, ownSPI)
		answer := peer.Request(wire.IKEAuth, auth...)
		if _, ok := handmade.Child(answer); !ok {
			t.Fatalf("IKE_AUTH is answered with %s", wire.Message{Payloads: answer})
		}
		peer.Alive()
	})
}

// TestFragmentsByHand sends IKE_AUTH in parts: out of order, twice, one of them spoilt (RFC 7383 2.6). Whoever did not
// announce fragmentation is not listened to in fragments.
func TestFragmentsByHand(t *testing.T) {
	t.Parallel()
	shows(t, 25)
	targets(t, func(t *testing.T, x *target) {
		peer := handmade.New(t, x.config)
		peer.Announce = []wire.Payload{wire.Notify{Type: wire.NotifyFragmentationSupported}}
		peer.Init()
		id := peer.NextID()
		parts := peer.Fragments(wire.IKEAuth, id, 60, peer.AuthRequest(x.local, x.remote, ownSPI)...)
		if len(parts) < 3 {
			t.Fatalf("%d parts, want at least 3", len(parts))
		}
		spoilt := slices.Clone(parts[1])
		spoilt[len(spoilt)-1] ^= 1
		for _, part := range slices.Concat([][]byte{spoilt, parts[len(parts)-1]}, parts[1:], parts[1:2], parts[:1]) {
			peer.Send(part)
		}
		if _, ok := handmade.Child(peer.Response(wire.IKEAuth, id)); !ok {
			t.Error("IKE_AUTH in parts makes no Child SA")
		}
		// Only the first part asks for the response again (RFC 7383 2.6.1).
		for _, part := range append(parts[1:], parts[0]) {
			peer.Send(part)
		}
		if m, _ := peer.Expect("the repeated response"); m.Header.Exchange != wire.IKEAuth {
			t.Errorf("%s came, want the response to IKE_AUTH", m)
		}
		peer.Alive()
	})
	t.Run("unsolicited", func(t *testing.T) {
		x := againstNode(t, pair.Policy{})
		peer := handmade.New(t, x.config)
		peer.Init() // announces nothing
		auth := peer.AuthRequest(x.local, x.remote, ownSPI)
		for _, part := range peer.Fragments(wire.IKEAuth, 1, 60, auth...) {
			peer.Send(part)
		}
		if m, _, ok := peer.Read(time.Second); ok {
			t.Errorf("fragments that were not announced are answered with %s", m)
		}
		answer := peer.Request(wire.IKEAuth, auth...)
		if _, ok := handmade.Child(answer); !ok {
			t.Errorf("the whole message is answered with %s", wire.Message{Payloads: answer})
		}
	})
}
