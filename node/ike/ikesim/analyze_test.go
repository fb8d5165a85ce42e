package ikesim

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/node/agent"
	"github.com/bailiwick-net/bailiwick/node/datapath"
	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/analyze"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// What policies/analyze says of a negotiation is what two engines make of it.
func TestNegotiationsComeToWhatAnalysisSays(t *testing.T) {
	seen := map[analyze.Code]int{}
	rapid.Check(t, func(t *rapid.T) {
		names, addresses := [2]string{"a.example", "b.example"}, [2]netip.Addr{addrA, addrB}
		var ends [2]analyze.End
		var configs [2]ike.Config
		for i := range ends {
			p := negotiatingPolicy(t, i)
			set, err := spd.Expand(p, spd.Facts{Addresses: addresses[i : i+1]})
			if err != nil {
				t.Fatal(err)
			}
			ends[i] = analyze.End{Name: names[i], Node: true, Identity: "fqdn:" + names[i], Set: set}
			secrets := map[string]sa.Secret{}
			for _, s := range []string{"one", "two"} {
				if rapid.IntRange(0, 3).Draw(t, "missing") == 0 {
					ends[i].Missing = append(ends[i].Missing, s)
					continue
				}
				secrets[s] = sa.NewSecret([]byte("a preshared key of enough octets: " + s))
			}
			if rapid.Bool().Draw(t, "member") {
				ends[i].Groups = []string{tellers}
			}
			configs[i] = agent.IKEConfig(set, identity.Credentials{}, agent.Negotiation{Secrets: secrets})
			configs[i].Local = ike.Identity{Type: byte(wire.IDFQDN), Data: []byte(names[i])}
			configs[i].Chain = [][]byte{[]byte("certificate of " + names[i])}
		}
		w := New(1, Faults{})
		a, b := w.Add(names[0], addrA, configs[0]), w.Add(names[1], addrB, configs[1])
		a.Groups, b.Groups = map[string][]string{names[1]: ends[1].Groups}, map[string][]string{names[0]: ends[0].Groups}

		packet := spd.Packet{Source: addrA, Destination: addrB, Protocol: spd.ProtocolTCP, SourcePort: 40000, DestinationPort: 443}
		m := ends[0].Set.Lookup(spd.Out, packet)
		flow, err := datapath.FlowOf(m, packet)
		if err != nil {
			return
		}
		if !flow.Local.IsValid() {
			flow.Local = addrA
		}
		o := analyze.Flow(ends[0], ends[1], packet)
		n := o.Request.Negotiation
		if n == nil || n.Elsewhere != "" {
			return
		}
		if n.Mismatch != nil {
			seen[n.Mismatch.Code]++
		} else {
			seen["made"]++
		}
		a.Do(ike.Acquire{Flow: flow})
		w.Run(10 * time.Minute) // an error that anybody can forge counts when no better answer comes
		var made *sa.Child
		for _, in := range a.SADB {
			if in.Child.Rule == m.Rule.ID && slices.ContainsFunc(in.Child.LocalTS, func(s sa.Selector) bool { return s.Contains(packetSelector(packet.Source, packet.SourcePort)) }) &&
				slices.ContainsFunc(in.Child.RemoteTS, func(s sa.Selector) bool {
					return s.Contains(packetSelector(packet.Destination, packet.DestinationPort))
				}) {
				c := in.Child
				made = &c
			}
		}
		describe := func() string {
			return fmt.Sprintf("policies\n%+v\n%+v\nmissing %v %v groups %v %v\n%+v\n%+v", ends[0].Set.Policy(), ends[1].Set.Policy(), ends[0].Missing, ends[1].Missing,
				ends[0].Groups, ends[1].Groups, n, n.Mismatch)
		}
		if (made != nil) != n.Made() {
			t.Fatalf("the engines made an association: %t, analysis says %t\n%s\n%s", made != nil, n.Made(), describe(), story(w))
		}
		if made == nil {
			if len(results[ike.Refuse](a)) == 0 {
				t.Fatalf("nothing was refused\n%s", describe())
			}
			return
		}
		suite := made.Suite
		suite.ESN = false
		if suite != n.ESP || !slices.Equal(made.LocalTS, n.InitiatorSelectors) || !slices.Equal(made.RemoteTS, n.ResponderSelectors) ||
			(made.Mode == sa.Tunnel) != n.Tunnel {
			t.Fatalf("the engines made %s %s %v to %v\n%s", made.Suite, made.Mode, made.LocalTS, made.RemoteTS, describe())
		}
		for s := range b.Engine.SAs() {
			if s.Suite() != n.IKE || s.Auth() != n.ResponderAuth {
				t.Fatalf("the responder has %s by %+v\n%s", s.Suite(), s.Auth(), describe())
			}
		}
	})
	if seen["made"] == 0 || len(seen) < 4 {
		t.Errorf("the policies that were drawn show too little: %v", seen)
	}
}

func packetSelector(a netip.Addr, port uint16) sa.Selector {
	return sa.Selector{Protocol: spd.ProtocolTCP, From: a, To: a, PortFrom: port, PortTo: port}
}

// negotiatingPolicy draws a policy of one side, of few parts, so that two of them often nearly fit.
func negotiatingPolicy(t *rapid.T, side int) spd.Policy {
	pick := func(label string, of int) int { return rapid.IntRange(0, of-1).Draw(t, label) }
	some := func(label string, n int) []int {
		return rapid.SliceOfNDistinct(rapid.IntRange(0, n-1), 1, n, rapid.ID[int]).Draw(t, label)
	}
	x25519, ecp := proposal.GroupX25519, proposal.GroupECP384
	ikeOffers := []proposal.IKE{
		{Encryption: proposal.EncrAESGCM16, KeyBits: 256, PRF: proposal.PRFHMACSHA384, Group: x25519},
		{Encryption: proposal.EncrAESGCM16, KeyBits: 256, PRF: proposal.PRFHMACSHA384, Group: ecp},
		{Encryption: proposal.EncrAESGCM16, KeyBits: 128, PRF: proposal.PRFHMACSHA256, Group: x25519, Additional: proposal.AdditionalOf(proposal.GroupMLKEM768)},
	}
	espOffers := []proposal.ESP{
		{Encryption: proposal.EncrAESGCM16, KeyBits: 256},
		{Encryption: proposal.EncrAESGCM16, KeyBits: 128},
		{Encryption: proposal.EncrAESCBC, KeyBits: 256, Integrity: proposal.IntegHMACSHA256128},
	}
	entries := []spd.Auth{
		{Method: spd.AuthCertificate},
		{Method: spd.AuthPSK, Secret: "one"},
		{Method: spd.AuthPSK, Secret: "two"},
		{Method: spd.AuthCertificate, RemoteID: "fqdn:" + [2]string{"b.example", "a.example"}[side]},
		{Method: spd.AuthCertificate, RemoteID: "fqdn:c.example"},
		{Method: spd.AuthPSK, Secret: "one", RemoteID: "fqdn:c.example"},
		{Method: spd.AuthCertificate, PPK: "one"},
		{Method: spd.AuthCertificate, PPK: "two", PPKOptional: true},
	}
	p := spd.Policy{Name: "p"}
	for _, i := range some("ike", 3) {
		p.KeyExchange.Offers = append(p.KeyExchange.Offers, ikeOffers[i])
	}
	p.KeyExchange.Transcript = spd.Transcript(pick("transcript", 3))
	p.KeyExchange.Childless = spd.Childless(pick("childless", 3))
	esp := func(pfs bool) (list []proposal.ESP) {
		for _, i := range some("esp", 3) {
			o := espOffers[i]
			if pfs {
				o.Group = []proposal.Group{x25519, ecp}[pick("group", 2)]
			}
			list = append(list, o)
		}
		return list
	}
	auth := func() (list []spd.Auth) {
		for _, i := range some("auth", len(entries)) {
			list = append(list, entries[i])
		}
		return list[:min(len(list), 3)]
	}
	for i := range 1 + pick("rules", 2) {
		pfs := pick("pfs", 3) == 0
		r := spd.Rule{ID: fmt.Sprintf("r%d", i), Name: fmt.Sprintf("r%d", i), Auth: auth(), Action: spd.FilterAction{Action: spd.ActionNegotiate, PFS: pfs, Offers: esp(pfs)}}
		me, any := spd.Address{Kind: spd.AddressMe}, spd.Address{Kind: spd.AddressAny}
		f := spd.Filter{ID: r.ID + "/f", Source: me, Destination: any, Mirrored: true}
		switch pick("filter", 5) {
		case 0:
			f.Protocol = spd.ProtocolTCP
		case 1:
			f.Protocol, f.DestinationPort = spd.ProtocolTCP, spd.PortRange{From: 443, To: 443}
			if side == 1 {
				f.DestinationPort, f.SourcePort = f.SourcePort, f.DestinationPort
			}
		case 2:
			f.Destination = spd.Address{Kind: spd.AddressPrefix, Prefix: netip.MustParsePrefix("10.0.0.0/30")}
		}
		switch pick("kind", 6) {
		case 0:
			f.Protocol, f.SourcePort, f.DestinationPort = 0, spd.PortRange{}, spd.PortRange{}
			f.Mirrored = false
			r.Tunnel = [2]netip.Addr{addrB, addrA}[side]
			r.TunnelLocal = [2]netip.Addr{addrA, addrB}[side]
		case 1:
			r.PeerGroups = []string{tellers}
			r.Auth = []spd.Auth{{Method: spd.AuthCertificate}}
		}
		r.Filters = []spd.Filter{f}
		p.Rules = append(p.Rules, r)
	}
	if side == 1 && pick("default", 3) == 0 {
		p.DefaultResponse = spd.DefaultResponse{Active: true, Offers: esp(false), Auth: auth()}
	}
	return p
}
