package wire

import (
	"fmt"
	"strings"
)

// Summary is what a trace keeps of a message: the exchange and which payloads there are, no value of any payload. It
// refers to no octets of the message, and its text is made only when it is asked for.
type Summary struct {
	Exchange  ExchangeType
	Response  bool
	MessageID uint32
	parts     []part
}

// part is one payload. detail is the type of a Notify, the protocol of a Delete, or number and total of a Fragment.
type part struct {
	payload PayloadType
	detail  uint32
}

// Summary describes the message.
func (m Message) Summary() Summary {
	s := Summary{Exchange: m.Header.Exchange, Response: m.Header.Response(), MessageID: m.Header.MessageID}
	if len(m.Payloads) > 0 {
		s.parts = make([]part, len(m.Payloads))
	}
	for i, p := range m.Payloads {
		s.parts[i].payload = p.PayloadType()
		switch p := p.(type) {
		case Notify:
			s.parts[i].detail = uint32(p.Type)
		case Delete:
			s.parts[i].detail = uint32(p.Protocol)
		case Fragment:
			s.parts[i].detail = uint32(p.Number)<<16 | uint32(p.Total)
		}
	}
	return s
}

// Empty reports whether the message has no payloads, as liveness checks have.
func (s Summary) Empty() bool { return len(s.parts) == 0 }

// Payloads are the names of the payloads, as String prints them.
func (s Summary) Payloads() []string {
	names := make([]string, len(s.parts))
	for i, p := range s.parts {
		switch p.payload {
		case TypeNotify:
			names[i] = fmt.Sprintf("N(%s)", NotifyType(p.detail))
		case TypeDelete:
			names[i] = fmt.Sprintf("D(%s)", Protocol(p.detail))
		case TypeSKF:
			names[i] = fmt.Sprintf("SKF(%d/%d)", p.detail>>16, p.detail&0xffff)
		default:
			names[i] = p.payload.String()
		}
	}
	return names
}

// String is the form that traces and golden tests use, such as
// "IKE_SA_INIT request 0 SA KE Nonce N(NAT_DETECTION_SOURCE_IP)". It is stable.
func (s Summary) String() string {
	kind := "request"
	if s.Response {
		kind = "response"
	}
	head := fmt.Sprintf("%s %s %d", s.Exchange, kind, s.MessageID)
	return strings.Join(append([]string{head}, s.Payloads()...), " ")
}
