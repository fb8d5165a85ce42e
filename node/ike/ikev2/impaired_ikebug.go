//go:build ikebug

package ikev2

import (
	"slices"

	"github.com/bailiwick-net/bailiwick/node/ike/impair"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

// impaired are the payloads of an own protected message as they go out, with the violations that a test has switched on.
func impaired(payloads []wire.Payload) []wire.Payload {
	var out []wire.Payload
	for _, p := range payloads {
		switch v := p.(type) {
		case wire.Nonce:
			if impair.On(impair.ShortNonce) {
				v.Data = slices.Clone(v.Data[:8])
				p = v
			}
			if impair.On(impair.TwoNonces) {
				out = append(out, p)
			}
		case wire.Auth:
			if impair.On(impair.NoAuth) {
				continue
			}
			if impair.On(impair.BadAuth) {
				v.Data = slices.Clone(v.Data)
				v.Data[0] ^= 1
				p = v
			}
		case wire.KE:
			if impair.On(impair.OtherGroup) {
				v.Group = 14
				p = v
			}
		case wire.Delete:
			if impair.On(impair.DeleteAH) && v.Protocol == wire.ProtocolESP {
				v.Protocol = wire.ProtocolAH
				p = v
			}
		}
		out = append(out, p)
	}
	return out
}
