// Package spdtest generates random policies, facts and packets for property tests.
//
// Its invariant: every policy and all facts that it generates are valid, and they come from few addresses and ports, so
// that filters overlap and packets hit them. It leaves the properties to the tests that use it.
package spdtest

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

var addresses = func() []netip.Addr {
	var out []netip.Addr
	for _, s := range []string{
		"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.6", "10.0.1.1", "10.0.1.2", "192.0.2.1", "127.0.0.1",
		"224.0.0.1", "255.255.255.255", "10.0.0.255",
		"2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:1::1", "fe80::1", "fe80::2", "ff02::1", "::1",
	} {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}()

var unicast = func() []netip.Addr {
	var out []netip.Addr
	for _, a := range addresses {
		if !a.IsMulticast() && !a.IsLoopback() && a.As16()[15] != 255 {
			out = append(out, a)
		}
	}
	return out
}()

var ports = []uint16{22, 53, 67, 68, 80, 88, 443, 500, 4500, 6660, 65535}

// Facts generates the facts of a machine.
func Facts() *rapid.Generator[spd.Facts] {
	return rapid.Custom(func(t *rapid.T) spd.Facts {
		some := func(label string) []netip.Addr {
			return rapid.SliceOfNDistinct(rapid.SampledFrom(unicast), 0, 3, rapid.ID[netip.Addr]).Draw(t, label)
		}
		f := spd.Facts{
			Addresses: some("addresses"), DNSServers: some("dns"), DHCPServers: some("dhcp"), DefaultGateways: some("gateways"),
		}
		if rapid.Bool().Draw(t, "broadcast") {
			f.Broadcasts = []netip.Addr{netip.MustParseAddr("10.0.0.255")}
		}
		for _, a := range some("controllers") {
			f.Controllers = append(f.Controllers, netip.AddrPortFrom(a, rapid.SampledFrom(ports).Draw(t, "port")))
		}
		f.RemoteInterfaces = rapid.SampledFrom([][]string{nil, {Interface}, {Interface[:2] + "*", "ppp*"}, {"ppp*"}}).Draw(t, "remote access")
		for _, a := range f.Addresses {
			if f.RemoteInterfaces != nil && rapid.Bool().Draw(t, "remote access address") {
				f.RemoteAddresses = append(f.RemoteAddresses, a)
			}
		}
		f.Names = map[string][]netip.Addr{names[0]: some("first name"), names[1]: some("second name")}
		return f
	})
}

// Interface is the name of an interface that is for remote access with some of the facts.
const Interface = "eth0"

// names are the DNS names of the policies, which all facts resolve.
var names = []string{"one.bank.example", "two.bank.example"}

// Packet generates a packet between the addresses that the policies name.
func Packet() *rapid.Generator[spd.Packet] {
	return rapid.Custom(func(t *rapid.T) spd.Packet {
		p := spd.Packet{
			Source:     rapid.SampledFrom(addresses).Draw(t, "source"),
			Protocol:   rapid.SampledFrom([]uint8{1, 6, 17, 46, 47, 50, 58, 132}).Draw(t, "protocol"),
			Interfaces: rapid.SampledFrom([]spd.Interfaces{0, spd.InterfacesLAN, spd.InterfacesRemoteAccess}).Draw(t, "interface"),
			Loopback:   rapid.IntRange(0, 9).Draw(t, "loopback") == 0,
			Own:        rapid.IntRange(0, 9).Draw(t, "own") == 0,
		}
		p.Destination = rapid.SampledFrom(addresses).Filter(func(a netip.Addr) bool {
			return a.Is4() == p.Source.Is4()
		}).Draw(t, "destination")
		switch {
		case spd.HasPorts(p.Protocol):
			p.SourcePort = rapid.SampledFrom(ports).Draw(t, "source port")
			p.DestinationPort = rapid.SampledFrom(ports).Draw(t, "destination port")
			p.Opens = p.Protocol == spd.ProtocolTCP && rapid.Bool().Draw(t, "opens")
		case p.Protocol == spd.ProtocolICMP || p.Protocol == spd.ProtocolICMPv6:
			p.ICMPType = rapid.SampledFrom([]uint8{0, 2, 3, 8, 128, 134, 135, 143}).Draw(t, "type")
			p.ICMPCode = rapid.SampledFrom([]uint8{0, 1, 4}).Draw(t, "code")
		}
		return p
	})
}

// Policy generates a valid policy.
func Policy() *rapid.Generator[spd.Policy] {
	return rapid.Custom(func(t *rapid.T) spd.Policy {
		p := spd.Policy{Name: rapid.StringN(0, 20, -1).Draw(t, "name")}
		for i := range rapid.IntRange(0, 5).Draw(t, "rules") {
			p.Rules = append(p.Rules, rule(t, fmt.Sprintf("r%d", i)))
		}
		if rapid.Bool().Draw(t, "default response") {
			p.DefaultResponse = spd.DefaultResponse{
				Active: true, Offers: esp(t), Auth: auth(t), PFS: rapid.Bool().Draw(t, "pfs"), Lifetime: lifetime(t),
				Idle: duration(t),
			}
		}
		p.KeyExchange = spd.KeyExchange{Offers: rapid.SliceOfN(IKE(), 1, 3).Draw(t, "ike"), Lifetime: duration(t)}
		p.KeyExchange.Revocation = rapid.SampledFrom([]spd.Revocation{spd.RevocationKnown, spd.RevocationOff, spd.RevocationStrict}).Draw(t, "revocation")
		p.KeyExchange.AnnounceAuthentication = rapid.Bool().Draw(t, "announce authentication")
		p.KeyExchange.Reauthentication = duration(t)
		p.KeyExchange.Transcript = rapid.SampledFrom([]spd.Transcript{spd.TranscriptPrefer, spd.TranscriptRequire, spd.TranscriptNever}).Draw(t, "transcript")
		p.KeyExchange.Mobility = rapid.SampledFrom([]spd.Mobility{spd.MobilityAllow, spd.MobilityWithoutNAT, spd.MobilityNever}).Draw(t, "mobility")
		p.KeyExchange.ChildLimit = rapid.SampledFrom([]int{0, 1, spd.MaxChildLimit}).Draw(t, "child limit")
		p.KeyExchange.Childless = rapid.SampledFrom([]spd.Childless{spd.ChildlessAccept, spd.ChildlessPrefer, spd.ChildlessNever}).Draw(t, "childless")
		p.Exemptions = spd.Exemptions{
			Multicast: rapid.Bool().Draw(t, "multicast"), Broadcast: rapid.Bool().Draw(t, "broadcast"),
			Kerberos: rapid.Bool().Draw(t, "kerberos"), RSVP: rapid.Bool().Draw(t, "rsvp"), ICMP: rapid.Bool().Draw(t, "icmp"),
			BreakGlassTCP: rapid.SliceOfNDistinct(rapid.SampledFrom(ports), -1, 2, rapid.ID[uint16]).Draw(t, "break-glass"),
		}
		if len(p.Exemptions.BreakGlassTCP) == 0 {
			p.Exemptions.BreakGlassTCP = nil
		}
		return p
	})
}

func rule(t *rapid.T, id string) spd.Rule {
	r := spd.Rule{
		ID: id, Name: rapid.StringN(0, 10, -1).Draw(t, "name"),
		Interfaces: rapid.SampledFrom([]spd.Interfaces{0, 0, spd.InterfacesLAN, spd.InterfacesRemoteAccess}).Draw(t, "interfaces"),
		Action: spd.FilterAction{
			Name:   rapid.StringN(0, 10, -1).Draw(t, "action name"),
			Action: rapid.SampledFrom([]spd.Action{spd.ActionBlock, spd.ActionPermit, spd.ActionNegotiate}).Draw(t, "action"),
		},
	}
	if r.Action.Action == spd.ActionNegotiate {
		negotiate(t, &r)
	}
	for i := range rapid.IntRange(1, 4).Draw(t, "filters") {
		r.Filters = append(r.Filters, filter(t, r, fmt.Sprintf("%s.f%d", id, i)))
	}
	return r
}

func negotiate(t *rapid.T, r *spd.Rule) {
	r.Action.Offers, r.Auth = esp(t), auth(t)
	r.Action.Associations = rapid.Uint8Range(0, spd.MaxAssociations).Draw(t, "associations")
	r.Action.PFS, r.Action.Lifetime = rapid.Bool().Draw(t, "pfs"), lifetime(t)
	if rapid.IntRange(0, 3).Draw(t, "tunnel") == 0 {
		r.Tunnel = rapid.SampledFrom(unicast).Draw(t, "remote endpoint")
		if local := rapid.SampledFrom(unicast).Draw(t, "own endpoint"); local.Is4() == r.Tunnel.Is4() {
			r.TunnelLocal = local
		}
		return
	}
	r.Action.Inpass = rapid.Bool().Draw(t, "inpass")
	if !slices.ContainsFunc(r.Auth, func(a spd.Auth) bool { return a.Method != spd.AuthCertificate }) && rapid.IntRange(0, 3).Draw(t, "groups") == 0 {
		r.PeerGroups = []string{"CN=Accounting,DC=example", "CN=Auditors,DC=example"}[:rapid.IntRange(1, 2).Draw(t, "number of groups")]
		return
	}
	switch mode := rapid.SampledFrom([]spd.FallbackMode{0, spd.FallbackWait, spd.FallbackDiscover}).Draw(t, "fallback"); mode {
	case spd.FallbackWait:
		r.Action.Fallback = spd.Fallback{Mode: mode, Delay: duration(t), TTL: duration(t)}
	case spd.FallbackDiscover:
		r.Action.Fallback = spd.Fallback{Mode: mode, TTL: duration(t)}
	case spd.FallbackNone:
	}
}

func filter(t *rapid.T, r spd.Rule, id string) spd.Filter {
	f := spd.Filter{
		ID: id, Description: rapid.StringN(0, 10, -1).Draw(t, "description"), Mirrored: rapid.Bool().Draw(t, "mirrored"),
		Source: address(t, r.Action.Action),
	}
	f.Destination = rapid.Custom(func(t *rapid.T) spd.Address { return address(t, r.Action.Action) }).Filter(func(a spd.Address) bool {
		s, d := first(f.Source), first(a)
		return !s.IsValid() || !d.IsValid() || s.Is4() == d.Is4()
	}).Draw(t, "destination")
	if r.Tunnel.IsValid() {
		return f
	}
	f.Protocol = rapid.SampledFrom([]uint8{0, 1, 6, 17, 58}).Draw(t, "protocol")
	if spd.HasPorts(f.Protocol) {
		f.SourcePort, f.DestinationPort = portRange(t), portRange(t)
	}
	return f
}

func first(a spd.Address) netip.Addr {
	if a.Kind == spd.AddressPrefix {
		return a.Prefix.Addr()
	}
	return a.From
}

func address(t *rapid.T, action spd.Action) spd.Address {
	pool := addresses
	if action == spd.ActionNegotiate {
		pool = unicast
	}
	kind := rapid.SampledFrom([]spd.AddressKind{
		spd.AddressAny, spd.AddressMe, spd.AddressMe, spd.AddressPrefix, spd.AddressPrefix, spd.AddressRange,
		spd.AddressDNSServers, spd.AddressDHCPServer, spd.AddressDefaultGateway, spd.AddressName,
	}).Draw(t, "kind")
	a := spd.Address{Kind: kind}
	switch kind {
	case spd.AddressPrefix:
		base := rapid.SampledFrom(pool).Draw(t, "base")
		bits := rapid.SampledFrom([]int{0, 8, 24, 29, 31, 32, 64, 96, 126, 128}).Filter(func(b int) bool {
			return b <= base.BitLen()
		}).Draw(t, "bits")
		a.Prefix, _ = base.Prefix(bits)
	case spd.AddressRange:
		a.From = rapid.SampledFrom(pool).Draw(t, "from")
		a.To = rapid.SampledFrom(pool).Filter(func(to netip.Addr) bool {
			return to.Is4() == a.From.Is4()
		}).Draw(t, "to")
		if a.To.Less(a.From) {
			a.From, a.To = a.To, a.From
		}
	case spd.AddressName:
		a.Name = rapid.SampledFrom(names).Draw(t, "DNS name")
	default: // a symbol carries no address
	}
	return a
}

func portRange(t *rapid.T) spd.PortRange {
	if rapid.Bool().Draw(t, "every port") {
		return spd.PortRange{}
	}
	from, to := rapid.SampledFrom(ports).Draw(t, "from port"), rapid.SampledFrom(ports).Draw(t, "to port")
	return spd.PortRange{From: min(from, to), To: max(from, to)}
}

func esp(t *rapid.T) []proposal.ESP { return rapid.SliceOfN(ESP(), 1, 3).Draw(t, "offers") }

func auth(t *rapid.T) []spd.Auth {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) spd.Auth {
		a := spd.Auth{
			Method:   rapid.SampledFrom([]spd.AuthMethod{spd.AuthCertificate, spd.AuthPSK}).Draw(t, "method"),
			LocalID:  rapid.SampledFrom([]string{"", "fqdn:a.example"}).Draw(t, "local ID"),
			RemoteID: rapid.SampledFrom([]string{"", "ip:192.0.2.1"}).Draw(t, "remote ID"),
		}
		if a.Method == spd.AuthPSK {
			a.Secret = rapid.StringN(1, 10, -1).Draw(t, "secret")
		} else {
			a.CA = rapid.SampledFrom([]string{"", "CN=Bank CA,O=Bank"}).Draw(t, "CA")
			a.AccountMapping, a.ExcludeCAName = rapid.Bool().Draw(t, "account mapping"), rapid.Bool().Draw(t, "exclude CA name")
		}
		if rapid.Bool().Draw(t, "with a PPK") {
			a.PPK, a.PPKOptional = "bank ppk", rapid.Bool().Draw(t, "PPK optional")
		}
		return a
	}), 1, 2).Draw(t, "auth")
}

func duration(t *rapid.T) time.Duration {
	return rapid.SampledFrom([]time.Duration{0, time.Second, 1500 * time.Millisecond, time.Hour}).Draw(t, "duration")
}

func lifetime(t *rapid.T) spd.Lifetime {
	return spd.Lifetime{Time: duration(t), Bytes: rapid.Uint64().Draw(t, "bytes")}
}

var groups = []proposal.Group{
	proposal.GroupMODP2048, proposal.GroupMODP3072, proposal.GroupMODP4096, proposal.GroupECP256, proposal.GroupECP384, proposal.GroupECP521,
	proposal.GroupX25519, proposal.GroupMLKEM768, proposal.GroupMLKEM1024,
}

// additional draws key exchanges beside first.
func additional(t *rapid.T, first proposal.Group) proposal.Additional {
	if first == proposal.GroupNone {
		return proposal.Additional{}
	}
	others := slices.DeleteFunc(slices.Clone(groups), func(g proposal.Group) bool { return g == first })
	return proposal.AdditionalOf(rapid.Permutation(others).Draw(t, "additional")[:rapid.IntRange(0, 3).Draw(t, "number of additional")]...)
}

var integrity = []proposal.Integrity{
	proposal.IntegHMACSHA256128, proposal.IntegHMACSHA384192, proposal.IntegHMACSHA512256,
}

func cipher(t *rapid.T, choices []proposal.Encryption) (proposal.Encryption, uint16, proposal.Integrity) {
	e := rapid.SampledFrom(choices).Draw(t, "encryption")
	var bits uint16
	if e == proposal.EncrAESCBC || e == proposal.EncrAESGCM16 || e == proposal.EncrNullAESGMAC {
		bits = rapid.SampledFrom([]uint16{128, 192, 256}).Draw(t, "bits")
	}
	if e.AEAD() {
		return e, bits, proposal.IntegNone
	}
	return e, bits, rapid.SampledFrom(integrity).Draw(t, "integrity")
}

// IKE generates a valid offer for an IKE SA.
func IKE() *rapid.Generator[proposal.IKE] {
	return rapid.Custom(func(t *rapid.T) proposal.IKE {
		var o proposal.IKE
		o.Encryption, o.KeyBits, o.Integrity = cipher(t, []proposal.Encryption{
			proposal.EncrAESCBC, proposal.EncrAESGCM16, proposal.EncrChaCha20Poly1305,
		})
		o.PRF = rapid.SampledFrom([]proposal.PRF{proposal.PRFHMACSHA256, proposal.PRFHMACSHA384, proposal.PRFHMACSHA512}).Draw(t, "prf")
		o.Group = rapid.SampledFrom(groups).Draw(t, "group")
		o.Additional = additional(t, o.Group)
		return o
	})
}

// ESP generates a valid offer for a Child SA.
func ESP() *rapid.Generator[proposal.ESP] {
	return rapid.Custom(func(t *rapid.T) proposal.ESP {
		var o proposal.ESP
		o.Encryption, o.KeyBits, o.Integrity = cipher(t, []proposal.Encryption{
			proposal.EncrAESCBC, proposal.EncrAESGCM16, proposal.EncrChaCha20Poly1305, proposal.EncrNULL,
			proposal.EncrNullAESGMAC,
		})
		o.Group = rapid.SampledFrom(append([]proposal.Group{proposal.GroupNone}, groups...)).Draw(t, "group")
		o.Additional = additional(t, o.Group)
		return o
	})
}
