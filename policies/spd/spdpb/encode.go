package spdpb

import (
	"net/netip"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
	policyv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/policy/v1"
)

// ToProto converts a policy that passed spd.Policy.Validate.
func ToProto(p spd.Policy) *policyv1.Policy {
	m := &policyv1.Policy{
		Name: p.Name,
		KeyExchange: &policyv1.KeyExchange{
			Offers: encodeAll(p.KeyExchange.Offers, encodeIKE), LifetimeNs: int64(p.KeyExchange.Lifetime),
			Childless: policyv1.Childless(p.KeyExchange.Childless), Mobility: policyv1.Mobility(p.KeyExchange.Mobility),
			Revocation: policyv1.Revocation(p.KeyExchange.Revocation), ReauthenticationNs: int64(p.KeyExchange.Reauthentication),
			Transcript:             policyv1.Transcript(p.KeyExchange.Transcript),
			AnnounceAuthentication: p.KeyExchange.AnnounceAuthentication,
			ChildLimit:             uint32(p.KeyExchange.ChildLimit),
		},
		Exemptions: &policyv1.Exemptions{
			Multicast: p.Exemptions.Multicast, Broadcast: p.Exemptions.Broadcast,
			Kerberos: p.Exemptions.Kerberos, Rsvp: p.Exemptions.RSVP, Icmp: p.Exemptions.ICMP,
			BreakGlassTcp: encodeAll(p.Exemptions.BreakGlassTCP, func(port uint16) uint32 { return uint32(port) }),
		},
		Rules: encodeAll(p.Rules, encodeRule),
	}
	if d := p.DefaultResponse; d.Active {
		m.DefaultResponse = &policyv1.DefaultResponse{
			Offers: encodeAll(d.Offers, encodeESP), Auth: encodeAll(d.Auth, encodeAuth), Pfs: d.PFS,
			Lifetime: encodeLifetime(d.Lifetime), IdleNs: int64(d.Idle),
		}
	}
	return m
}

func encodeAll[T, M any](list []T, encode func(T) M) []M {
	if len(list) == 0 {
		return nil
	}
	out := make([]M, len(list))
	for i, v := range list {
		out[i] = encode(v)
	}
	return out
}

func encodeRule(r spd.Rule) *policyv1.Rule {
	a := r.Action
	return &policyv1.Rule{
		Id: r.ID, Name: r.Name, Filters: encodeAll(r.Filters, encodeFilter), Auth: encodeAll(r.Auth, encodeAuth),
		Interfaces: interfaceClasses.number(r.Interfaces), Tunnel: encodeAddr(r.Tunnel), TunnelLocal: encodeAddr(r.TunnelLocal),
		PeerGroups: r.PeerGroups,
		Action: &policyv1.FilterAction{
			Name: a.Name, Action: actions.number(a.Action), Inpass: a.Inpass, Fallback: encodeFallback(a.Fallback),
			Offers: encodeAll(a.Offers, encodeESP), Pfs: a.PFS, Lifetime: encodeLifetime(a.Lifetime),
			Associations: uint32(a.Associations),
		},
	}
}

func encodeFilter(f spd.Filter) *policyv1.Filter {
	return &policyv1.Filter{
		Id: f.ID, Description: f.Description, Source: encodeAddress(f.Source), Destination: encodeAddress(f.Destination),
		Protocol: uint32(f.Protocol), SourcePort: encodePorts(f.SourcePort), DestinationPort: encodePorts(f.DestinationPort),
		Mirrored: f.Mirrored,
	}
}

func encodeAddress(a spd.Address) *policyv1.Address {
	m := &policyv1.Address{Kind: addressKinds.number(a.Kind), Name: a.Name}
	switch a.Kind {
	case spd.AddressPrefix:
		m.From, m.Bits = encodeAddr(a.Prefix.Addr()), uint32(a.Prefix.Bits())
	case spd.AddressRange:
		m.From, m.To = encodeAddr(a.From), encodeAddr(a.To)
	default: // a symbol carries no address
	}
	return m
}

func encodeAddr(a netip.Addr) []byte { return a.AsSlice() }

func encodePorts(r spd.PortRange) *policyv1.PortRange {
	if r.Any() {
		return nil
	}
	return &policyv1.PortRange{From: uint32(r.From), To: uint32(r.To)}
}

func encodeFallback(f spd.Fallback) *policyv1.Fallback {
	if f == (spd.Fallback{}) {
		return nil
	}
	return &policyv1.Fallback{Mode: fallbackModes.number(f.Mode), DelayNs: int64(f.Delay), TtlNs: int64(f.TTL)}
}

func encodeLifetime(l spd.Lifetime) *policyv1.Lifetime {
	if l == (spd.Lifetime{}) {
		return nil
	}
	return &policyv1.Lifetime{TimeNs: int64(l.Time), Bytes: l.Bytes}
}

func encodeESP(o proposal.ESP) *policyv1.EspOffer {
	return &policyv1.EspOffer{
		Encryption: uint32(o.Encryption), KeyBits: uint32(o.KeyBits), Integrity: uint32(o.Integrity), Group: uint32(o.Group),
		Additional: encodeAdditional(o.Additional),
	}
}

func encodeIKE(o proposal.IKE) *policyv1.IkeOffer {
	return &policyv1.IkeOffer{
		Encryption: uint32(o.Encryption), KeyBits: uint32(o.KeyBits), Integrity: uint32(o.Integrity), Prf: uint32(o.PRF),
		Group: uint32(o.Group), Additional: encodeAdditional(o.Additional),
	}
}

func encodeAdditional(a proposal.Additional) []uint32 {
	var out []uint32
	for _, g := range a.Methods() {
		out = append(out, uint32(g))
	}
	return out
}

func encodeAuth(a spd.Auth) *policyv1.Auth {
	return &policyv1.Auth{
		Method: authMethods.number(a.Method), Ca: a.CA, Secret: a.Secret, LocalId: a.LocalID, RemoteId: a.RemoteID,
		Ppk: a.PPK, PpkOptional: a.PPKOptional,
		AccountMapping: a.AccountMapping, ExcludeCaName: a.ExcludeCAName,
	}
}
