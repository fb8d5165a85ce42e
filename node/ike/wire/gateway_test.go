package wire

import (
	"bytes"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/vectortest"
)

// TestGatewayMessages reads what a gateway that is not strongSwan sent to Android's IKE tests.
func TestGatewayMessages(t *testing.T) {
	var file struct {
		Sessions []struct {
			Class    string `json:"test_class"`
			Messages []struct {
				Name, Hex    string
				Plaintext    *string
				FirstPayload PayloadType `json:"first_payload"`
				PayloadTypes []uint8     `json:"payload_types"`
			}
		}
	}
	vectortest.Decode(t, "aosp/cts_handshakes.json", &file)
	inside := 0
	for _, s := range file.Sessions {
		for _, m := range s.Messages {
			datagram := unhex(t, m.Hex)
			msg, err := ParseMessage(datagram, LimitAfterAuth)
			if err != nil {
				t.Errorf("%s %s: %v", s.Class, m.Name, err)
				continue
			}
			if got := AppendMessage(nil, msg); !bytes.Equal(got, datagram) {
				t.Errorf("%s %s: written as %x, want %x", s.Class, m.Name, got, datagram)
			}
			if _, whole := lastOf(msg.Payloads).(Encrypted); !whole || m.Plaintext == nil {
				continue
			}
			plain := unhex(t, *m.Plaintext)
			payloads, err := ParsePayloads(m.FirstPayload, plain)
			if err != nil {
				t.Errorf("%s inside %s: %v", s.Class, m.Name, err)
				continue
			}
			if got := AppendPayloads(nil, payloads); !bytes.Equal(got, plain) {
				t.Errorf("%s inside %s: written as %x, want %x", s.Class, m.Name, got, plain)
			}
			if n := len(m.PayloadTypes); n > 0 && n != len(payloads) { // some are recorded without the list
				t.Errorf("%s inside %s: %d payloads, want %v", s.Class, m.Name, len(payloads), m.PayloadTypes)
				continue
			}
			for i, p := range payloads {
				if len(m.PayloadTypes) > 0 && p.PayloadType() != PayloadType(m.PayloadTypes[i]) {
					t.Errorf("%s inside %s: payload %d is %s, want %v", s.Class, m.Name, i, p.PayloadType(), m.PayloadTypes)
				}
			}
			inside++
		}
	}
	if inside < 20 {
		t.Errorf("read %d protected messages", inside)
	}
}
