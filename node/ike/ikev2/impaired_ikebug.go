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
	if impair.On(impair.Unknown) && len(payloads) > 0 {
		out = append(out, wire.Unknown{Type: 200, Body: []byte("unknown")})
	}
	for _, p := range payloads {
		switch v := p.(type) {
		case wire.SA:
			p = impairedOffer(v)
		case wire.Notify:
			if impair.On(impair.RekeyAH) && v.Type == wire.NotifyRekeySA {
				v.Protocol = wire.ProtocolAH
				p = v
			}
			if impair.On(impair.RekeySPI) && v.Type == wire.NotifyRekeySA {
				v.SPI = append(slices.Clone(v.SPI), v.SPI...)
				p = v
			}
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
			if impair.On(impair.OtherAuth) {
				v.Method = wire.AuthRSA
				p = v
			}
		case wire.KE:
			if impair.On(impair.OtherGroup) {
				v.Group = 14
				p = v
			}
			if impair.On(impair.ShortKE) {
				v.Data = v.Data[:len(v.Data)-1]
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

// impairedOffer is an SA payload with the violations that a test has switched on.
func impairedOffer(offer wire.SA) wire.SA {
	offer.Proposals = slices.Clone(offer.Proposals)
	for i := range offer.Proposals {
		p := &offer.Proposals[i]
		if impair.On(impair.ZeroSPI) && p.Protocol == wire.ProtocolESP {
			p.SPI = make([]byte, 4)
		}
		if impair.On(impair.OfferAH) && p.Protocol == wire.ProtocolESP {
			p.Protocol = wire.ProtocolAH
		}
		if impair.On(impair.NoKeyBits) {
			p.Transforms = slices.Clone(p.Transforms)
			for j := range p.Transforms {
				p.Transforms[j].KeyBits = 0
			}
		}
	}
	return offer
}
