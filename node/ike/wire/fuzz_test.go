package wire

import (
	"errors"
	"testing"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// FuzzParseMessage feeds datagrams. What parses must be written so that it parses to the same again.
func FuzzParseMessage(f *testing.F) {
	for _, r := range loadRecorded(f, sessions) {
		f.Add(r.datagram)
	}
	f.Add(AppendMessage(nil, Message{Header: Header{SPIi: 1, Exchange: IKESAInit, Flags: FlagInitiator}, Payloads: []Payload{
		SAFromIKE([]proposal.IKE{hybrid(), gcm256x25519}, 0), KE{Group: 36, Data: make([]byte, 1184)}, Nonce{Data: make([]byte, 32)},
		Notify{Type: NotifyIntermediateExchangeSupported}, Notify{Type: NotifyFullTranscriptAuth},
	}}))
	f.Fuzz(func(t *testing.T, datagram []byte) {
		m, err := ParseMessage(datagram, LimitAfterAuth)
		checkError(t, datagram, err)
		if err != nil {
			return
		}
		_ = m.String()
		b := AppendMessage(nil, m)
		again, err := ParseMessage(b, LimitAfterAuth)
		if err != nil {
			t.Fatalf("%x is written as %x, which does not parse: %v", datagram, b, err)
		}
		if diff := same(m, again); diff != "" {
			t.Fatalf("%x changes when written (-want +got):\n%s", datagram, diff)
		}
	})
}

// FuzzParsePayloads feeds what lies inside SK, which an authenticated peer may have made by hand.
func FuzzParsePayloads(f *testing.F) {
	for _, r := range loadRecorded(f, sessions) {
		if r.plaintext != nil {
			f.Add(uint8(r.first), r.plaintext)
		} else if m, err := ParseMessage(r.datagram, LimitAfterAuth); err == nil {
			f.Add(uint8(First(m.Payloads)), r.datagram[HeaderLen:])
		}
	}
	for _, payloads := range [][]Payload{
		{KE{Group: 36, Data: make([]byte, 1088)}, Notify{Type: NotifyAdditionalKeyExchange, Data: make([]byte, 16)}},
		{SAFromIKE([]proposal.IKE{hybrid(), gcm256x25519}, 7), Nonce{Data: make([]byte, 32)}, KE{Group: 31, Data: make([]byte, 32)}},
		{Notify{Type: NotifyStateNotFound}},
	} {
		f.Add(uint8(First(payloads)), AppendPayloads(nil, payloads))
	}
	own := []proposal.IKE{hybrid(), gcm256x25519, gcm128p256, cbcMODP, chacha}
	ownESP := []proposal.ESP{espGCM, espCBC}
	f.Fuzz(func(t *testing.T, first uint8, b []byte) {
		payloads, err := ParsePayloads(PayloadType(first), b)
		checkError(t, b, err)
		if err != nil {
			return
		}
		written := AppendPayloads(nil, payloads)
		if len(written) != len(b) {
			t.Fatalf("%d octets are written as %d", len(b), len(written))
		}
		again, err := ParsePayloads(First(payloads), written)
		if err != nil {
			t.Fatalf("%x is written as %x, which does not parse: %v", b, written, err)
		}
		if diff := same(payloads, again); diff != "" {
			t.Fatalf("%x changes when written (-want +got):\n%s", b, diff)
		}
		for _, p := range payloads {
			offered, ok := p.(SA)
			if !ok {
				continue
			}
			if chosen, number, ok := ChooseIKE(own, offered); ok {
				if _, _, err := AcceptIKE([]proposal.IKE{chosen}, renumber(AnswerIKE(chosen, number, offered, 0)), false); err != nil {
					t.Fatalf("the answer to %x is not acceptable: %v", b, err)
				}
			}
			for _, withGroup := range []bool{false, true} {
				if chosen, number, ok := ChooseESP(ownESP, offered, withGroup); ok {
					if _, _, err := AcceptESP([]proposal.ESP{chosen}, renumber(AnswerESP(chosen, number, offered, 256)), withGroup); err != nil {
						t.Fatalf("the answer to %x is not acceptable: %v", b, err)
					}
				}
			}
			_, _, _ = AcceptIKE(own, offered, false)
			_, _, _ = AcceptESP(ownESP, offered, true)
		}
	})
}

// renumber gives the answer the number of a single offer.
func renumber(p SA) SA {
	p.Proposals[0].Number = 1
	return p
}

// checkError asserts the contract of Parse errors.
func checkError(t *testing.T, b []byte, err error) {
	t.Helper()
	if err == nil {
		return
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%x gives an error of another type: %v", b, err)
	}
	if e.Detail == "" || e.Offset < 0 || e.Offset > len(b) {
		t.Fatalf("%x gives error %+v", b, e)
	}
	switch e.Notify {
	case 0, NotifyInvalidSyntax, NotifyInvalidMajorVersion:
		if len(e.Data) != 0 {
			t.Fatalf("%x gives error data %x", b, e.Data)
		}
	case NotifyUnsupportedCriticalPayload:
		if len(e.Data) != 1 {
			t.Fatalf("%x gives error data %x", b, e.Data)
		}
	default:
		t.Fatalf("%x gives notify %s", b, e.Notify)
	}
}

func BenchmarkParseMessage(b *testing.B) {
	r := loadRecorded(b, sessions)[0]
	b.SetBytes(int64(len(r.datagram)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseMessage(r.datagram, LimitBeforeAuth); err != nil {
			b.Fatal(err)
		}
	}
}
