package spdpb

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
	policyv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/policy/v1"
)

// decoder converts a message and keeps the first error.
type decoder struct{ err error }

func (d *decoder) fail(err error, format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
	}
}

func decodeAll[M, T any](list []M, decode func(M) T) []T {
	if len(list) == 0 {
		return nil
	}
	out := make([]T, len(list))
	for i, m := range list {
		out[i] = decode(m)
	}
	return out
}

// known converts the number of a closed set.
func known[V comparable, N ~int32](d *decoder, e enumeration[V, N], n N, what string) V {
	v, ok := e.value(n)
	if !ok {
		d.fail(ErrUnknown, "%s %d", what, int32(n))
	}
	return v
}

// narrow converts a number that the wire carries wider than its value.
func narrow[T ~uint8 | ~uint16](d *decoder, n uint32, what string) T {
	v := T(n)
	if uint32(v) != n {
		d.fail(ErrMalformed, "%s %d is out of range", what, n)
	}
	return v
}

func (d *decoder) policy(m *policyv1.Policy) spd.Policy {
	p := spd.Policy{Name: m.GetName(), Rules: decodeAll(m.GetRules(), d.rule)}
	if r := m.GetDefaultResponse(); r != nil {
		p.DefaultResponse = spd.DefaultResponse{
			Active: true, Offers: decodeAll(r.GetOffers(), d.esp), Auth: decodeAll(r.GetAuth(), d.auth), PFS: r.GetPfs(),
			Lifetime: lifetime(r.GetLifetime()), Idle: time.Duration(r.GetIdleNs()),
		}
	}
	k, e := m.GetKeyExchange(), m.GetExemptions()
	p.KeyExchange = spd.KeyExchange{Offers: decodeAll(k.GetOffers(), d.ike), Lifetime: time.Duration(k.GetLifetimeNs())}
	if c := k.GetChildless(); c < 0 || c > policyv1.Childless_CHILDLESS_NEVER {
		d.fail(ErrUnknown, "childless %d", int32(c))
	} else {
		p.KeyExchange.Childless = spd.Childless(c)
	}
	if r := k.GetRevocation(); r < 0 || r > policyv1.Revocation_REVOCATION_STRICT {
		d.fail(ErrUnknown, "revocation %d", int32(r))
	} else {
		p.KeyExchange.Revocation = spd.Revocation(r)
	}
	p.KeyExchange.AnnounceAuthentication = k.GetAnnounceAuthentication()
	p.KeyExchange.ChildLimit = int(k.GetChildLimit())
	p.KeyExchange.Reauthentication = time.Duration(k.GetReauthenticationNs())
	if m := k.GetMobility(); m < 0 || m > policyv1.Mobility_MOBILITY_NEVER {
		d.fail(ErrUnknown, "mobility %d", int32(m))
	} else {
		p.KeyExchange.Mobility = spd.Mobility(m)
	}
	if t := k.GetTranscript(); t < 0 || t > policyv1.Transcript_TRANSCRIPT_NEVER {
		d.fail(ErrUnknown, "transcript %d", int32(t))
	} else {
		p.KeyExchange.Transcript = spd.Transcript(t)
	}
	p.Exemptions = spd.Exemptions{
		Multicast: e.GetMulticast(), Broadcast: e.GetBroadcast(), Kerberos: e.GetKerberos(), RSVP: e.GetRsvp(), ICMP: e.GetIcmp(),
		BreakGlassTCP: decodeAll(e.GetBreakGlassTcp(), func(n uint32) uint16 { return narrow[uint16](d, n, "break-glass port") }),
	}
	return p
}

func (d *decoder) rule(m *policyv1.Rule) spd.Rule {
	a := m.GetAction()
	return spd.Rule{
		ID: m.GetId(), Name: m.GetName(), Filters: decodeAll(m.GetFilters(), d.filter), Auth: decodeAll(m.GetAuth(), d.auth),
		Interfaces: known(d, interfaceClasses, m.GetInterfaces(), "interface class"),
		Tunnel:     d.endpoint(m.GetTunnel()), TunnelLocal: d.endpoint(m.GetTunnelLocal()), PeerGroups: m.GetPeerGroups(),
		Action: spd.FilterAction{
			Name: a.GetName(), Action: known(d, actions, a.GetAction(), "action"), Inpass: a.GetInpass(),
			Fallback: d.fallback(a.GetFallback()), Offers: decodeAll(a.GetOffers(), d.esp), PFS: a.GetPfs(),
			Lifetime: lifetime(a.GetLifetime()), Associations: narrow[uint8](d, a.GetAssociations(), "associations"),
		},
	}
}

func (d *decoder) filter(m *policyv1.Filter) spd.Filter {
	return spd.Filter{
		ID: m.GetId(), Description: m.GetDescription(), Source: d.address(m.GetSource()), Destination: d.address(m.GetDestination()),
		Protocol: narrow[uint8](d, m.GetProtocol(), "protocol"), SourcePort: d.ports(m.GetSourcePort()),
		DestinationPort: d.ports(m.GetDestinationPort()), Mirrored: m.GetMirrored(),
	}
}

func (d *decoder) address(m *policyv1.Address) spd.Address {
	a := spd.Address{Kind: known(d, addressKinds, m.GetKind(), "address kind"), Name: m.GetName()}
	prefix, span := a.Kind == spd.AddressPrefix, a.Kind == spd.AddressRange
	if !prefix && !span && len(m.GetFrom()) > 0 || !span && len(m.GetTo()) > 0 || !prefix && m.GetBits() != 0 ||
		(a.Kind == spd.AddressName) != (a.Name != "") {
		d.fail(ErrMalformed, "address of kind %s with fields of another kind", a.Kind)
	}
	switch {
	case prefix:
		from := d.addr(m.GetFrom())
		if !from.IsValid() || m.GetBits() > uint32(from.BitLen()) {
			d.fail(ErrMalformed, "prefix %s/%d", from, m.GetBits())
			return a
		}
		a.Prefix = netip.PrefixFrom(from, int(m.GetBits()))
	case span:
		a.From, a.To = d.addr(m.GetFrom()), d.addr(m.GetTo())
	}
	return a
}

func (d *decoder) addr(b []byte) netip.Addr {
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		d.fail(ErrMalformed, "an address of %d octets", len(b))
	}
	return a
}

func (d *decoder) endpoint(b []byte) netip.Addr {
	if len(b) == 0 {
		return netip.Addr{}
	}
	return d.addr(b)
}

func (d *decoder) ports(m *policyv1.PortRange) spd.PortRange {
	if m == nil {
		return spd.PortRange{}
	}
	if m.GetFrom() == 0 {
		d.fail(ErrMalformed, "port range %d-%d", m.GetFrom(), m.GetTo())
	}
	return spd.PortRange{From: narrow[uint16](d, m.GetFrom(), "port"), To: narrow[uint16](d, m.GetTo(), "port")}
}

func (d *decoder) fallback(m *policyv1.Fallback) spd.Fallback {
	if m == nil {
		return spd.Fallback{}
	}
	return spd.Fallback{
		Mode: known(d, fallbackModes, m.GetMode(), "fallback mode"), Delay: time.Duration(m.GetDelayNs()), TTL: time.Duration(m.GetTtlNs()),
	}
}

func lifetime(m *policyv1.Lifetime) spd.Lifetime {
	return spd.Lifetime{Time: time.Duration(m.GetTimeNs()), Bytes: m.GetBytes()}
}

func (d *decoder) esp(m *policyv1.EspOffer) proposal.ESP {
	return proposal.ESP{
		Encryption: narrow[proposal.Encryption](d, m.GetEncryption(), "encryption"), KeyBits: narrow[uint16](d, m.GetKeyBits(), "key length"),
		Integrity: narrow[proposal.Integrity](d, m.GetIntegrity(), "integrity"), Group: narrow[proposal.Group](d, m.GetGroup(), "group"),
		Additional: d.additional(m.GetAdditional()),
	}
}

func (d *decoder) additional(list []uint32) proposal.Additional {
	var a proposal.Additional
	if len(list) > len(a) {
		d.fail(ErrMalformed, "%d additional key exchanges", len(list))
		return a
	}
	for i, g := range list {
		if g == 0 {
			d.fail(ErrMalformed, "additional key exchange %d is none", i+1)
		}
		a[i] = narrow[proposal.Group](d, g, "group")
	}
	return a
}

func (d *decoder) ike(m *policyv1.IkeOffer) proposal.IKE {
	return proposal.IKE{
		Encryption: narrow[proposal.Encryption](d, m.GetEncryption(), "encryption"), KeyBits: narrow[uint16](d, m.GetKeyBits(), "key length"),
		Integrity: narrow[proposal.Integrity](d, m.GetIntegrity(), "integrity"), PRF: narrow[proposal.PRF](d, m.GetPrf(), "prf"),
		Group: narrow[proposal.Group](d, m.GetGroup(), "group"), Additional: d.additional(m.GetAdditional()),
	}
}

func (d *decoder) auth(m *policyv1.Auth) spd.Auth {
	return spd.Auth{
		Method: known(d, authMethods, m.GetMethod(), "authentication method"), CA: m.GetCa(), Secret: m.GetSecret(),
		LocalID: m.GetLocalId(), RemoteID: m.GetRemoteId(), PPK: m.GetPpk(), PPKOptional: m.GetPpkOptional(),
		AccountMapping: m.GetAccountMapping(), ExcludeCAName: m.GetExcludeCaName(),
	}
}
