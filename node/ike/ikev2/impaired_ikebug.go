//go:build ikebug

package ikev2

import (
	"net/netip"
	"slices"

	"github.com/bailiwick-net/bailiwick/node/ike/impair"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// impaired are the payloads of an own protected message as they go out, with the violations that a test has switched on.
func impaired(payloads []wire.Payload) []wire.Payload {
	var out []wire.Payload
	if impair.On(impair.Unknown) && len(payloads) > 0 {
		out = append(out, wire.Unknown{Type: 200, Body: []byte("unknown")})
	}
	if impair.On(impair.Critical) && len(payloads) > 0 {
		out = append(out, wire.Unknown{Type: 200, Critical: true, Body: []byte("unknown")})
	}
	for _, p := range payloads {
		if t := p.PayloadType(); impair.On(impair.OmitChild) && (t == wire.TypeSA || t == wire.TypeTSi || t == wire.TypeTSr) {
			continue
		}
		switch v := p.(type) {
		case wire.SA:
			p = impairedOffer(v)
			if impair.On(impair.TwoSA) {
				out = append(out, p)
			}
		case wire.TS:
			if impair.On(impair.OmitTS) && v.Responder {
				continue
			}
			p = impairedSelectors(v)
		case wire.Notify:
			if impair.On(impair.OmitNotifies) || impair.On(impair.OmitTransport) && v.Type == wire.NotifyUseTransportMode {
				continue
			}
			if impair.On(impair.RepeatNotifies) {
				out = append(out, p)
			}
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
			switch {
			case impair.On(impair.ZeroKE):
				v.Data = make([]byte, len(v.Data))
				p = v
			case impair.On(impair.EmptyKE):
				v.Data = nil
				p = v
			case impair.On(impair.TwoKE):
				out = append(out, p)
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
		keyBits := func(value ...byte) []wire.Attribute {
			return []wire.Attribute{{Type: 14, Fixed: true, Value: value}}
		}
		p.Transforms = slices.Clone(p.Transforms)
		for j := range p.Transforms {
			switch t := &p.Transforms[j]; {
			case t.KeyBits == 0:
			case impair.On(impair.ZeroKeyBits):
				t.KeyBits, t.Other = 0, keyBits(0, 0)
			case impair.On(impair.TwoKeyBits):
				t.Other = keyBits(byte(t.KeyBits>>8), byte(t.KeyBits))
			}
		}
	}
	return offer
}

// impairedSelectors are traffic selectors with the violations that a test has switched on.
func impairedSelectors(ts wire.TS) wire.TS {
	ts.Selectors = slices.Clone(ts.Selectors)
	for i := range ts.Selectors {
		s := &ts.Selectors[i]
		switch {
		case impair.On(impair.WideTS):
			*s = sa.Selector{From: netip.IPv4Unspecified(), To: netip.AddrFrom4([4]byte{255, 255, 255, 255}), PortTo: 65535}
		case impair.On(impair.SmallTS):
			s.Protocol, s.PortFrom, s.PortTo = 6, 80, 80
		case impair.On(impair.ForeignTS) && ts.Responder:
			s.From, s.To = netip.AddrFrom4([4]byte{203, 0, 113, 1}), netip.AddrFrom4([4]byte{203, 0, 113, 1})
		}
	}
	return ts
}
