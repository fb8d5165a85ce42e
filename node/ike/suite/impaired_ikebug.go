//go:build ikebug

package suite

import (
	"github.com/bailiwick-net/bailiwick/node/ike/impair"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

// impairedOutside are payloads before the encrypted one, where a test has switched that on. The check value covers them.
func impairedOutside(h *wire.Header) []byte {
	var p wire.Payload
	switch {
	case impair.On(impair.Outside):
		p = wire.Unknown{Type: 200, Body: []byte("unknown")}
	case impair.On(impair.OutsideCritical):
		p = wire.Unknown{Type: 200, Critical: true, Body: []byte("unknown")}
	case impair.On(impair.OutsideDelete):
		p = wire.Delete{Protocol: wire.ProtocolIKE}
	default:
		return nil
	}
	octets := wire.AppendPayloads(nil, []wire.Payload{p})
	octets[0] = byte(h.NextPayload)
	h.NextPayload = p.PayloadType()
	return octets
}
