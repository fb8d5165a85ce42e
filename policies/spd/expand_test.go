package spd_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
	"github.com/bailiwick-net/bailiwick/policies/spd/spdtest"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func prefix(s string) spd.Address {
	return spd.Address{Kind: spd.AddressPrefix, Prefix: netip.MustParsePrefix(s)}
}

var (
	me   = spd.Address{Kind: spd.AddressMe}
	anyA = spd.Address{Kind: spd.AddressAny}
)

func negotiating(id string, filters ...spd.Filter) spd.Rule {
	return spd.Rule{
		ID: id, Filters: filters, Auth: []spd.Auth{{Method: spd.AuthCertificate}},
		Action: spd.FilterAction{Action: spd.ActionNegotiate, Offers: proposal.DefaultESP()},
	}
}

func simple(id string, a spd.Action, filters ...spd.Filter) spd.Rule {
	return spd.Rule{ID: id, Filters: filters, Action: spd.FilterAction{Action: a}}
}

func policy(rules ...spd.Rule) spd.Policy {
	return spd.Policy{Name: "test", Rules: rules, KeyExchange: spd.KeyExchange{Offers: proposal.DefaultIKE()}}
}

func dns(name string) spd.Address { return spd.Address{Kind: spd.AddressName, Name: name} }

func expand(t *testing.T, p spd.Policy, f spd.Facts) spd.Set {
	t.Helper()
	s, err := spd.Expand(p, f)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var ownFacts = spd.Facts{
	Addresses:  []netip.Addr{addr("192.0.2.1"), addr("2001:db8::1")},
	Names:      map[string][]netip.Addr{"host.bank.example": {addr("198.51.100.8"), addr("2001:db8::8")}, "gone.bank.example": nil},
	DNSServers: []netip.Addr{addr("192.0.2.53")}, Broadcasts: []netip.Addr{addr("192.0.2.255")},
	Controllers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.9:7443")},
}

func ruleFilters(s spd.Set) string {
	var lines []string
	for _, f := range s.Filters() {
		if f.Exempt == "" {
			lines = append(lines, f.String())
		}
	}
	return strings.Join(lines, "\n")
}

func TestExpand(t *testing.T) {
	tunnel := negotiating("net", spd.Filter{ID: "f", Source: prefix("10.1.0.0/16"), Destination: prefix("10.2.0.0/16"), Mirrored: true})
	tunnel.Tunnel = addr("198.51.100.2")
	for _, test := range []struct {
		name string
		rule spd.Rule
		want string
	}{
		{"me to any, mirrored", negotiating("r", spd.Filter{ID: "f", Source: me, Destination: anyA, Mirrored: true}), `
out 2001:db8::1 -> ::/0 proto any negotiate weight 128.128.0.0.0.1 rule r filter f
in ::/0 -> 2001:db8::1 proto any negotiate weight 128.128.0.0.0.1 rule r filter f
out 192.0.2.1 -> 0.0.0.0/0 proto any negotiate weight 32.32.0.0.0.1 rule r filter f
in 0.0.0.0/0 -> 192.0.2.1 proto any negotiate weight 32.32.0.0.0.1 rule r filter f`},
		{"one way, with ports", simple("r", spd.ActionBlock, spd.Filter{ID: "f", Source: prefix("10.0.0.0/8"), Destination: me, Protocol: 6, DestinationPort: spd.PortRange{From: 6667, To: 6668}}), `
in 10.0.0.0/8 -> 192.0.2.1 port 6667-6668 proto tcp block weight 40.32.1.1.65534.3 rule r filter f`},
		{"mirrored ports", simple("r", spd.ActionPermit, spd.Filter{ID: "f", Source: me, Destination: spd.Address{Kind: spd.AddressDNSServers}, Protocol: 17, DestinationPort: spd.PortRange{From: 53, To: 53}, Mirrored: true}), `
out 192.0.2.1 -> 192.0.2.53 port 53 proto udp permit weight 64.32.1.1.65535.2 rule r filter f
in 192.0.2.53 port 53 -> 192.0.2.1 proto udp permit weight 64.32.1.1.65535.2 rule r filter f`},
		{"neither side is me", simple("r", spd.ActionBlock, spd.Filter{ID: "f", Source: prefix("10.1.0.0/16"), Destination: prefix("10.2.0.0/16")}), `
out 10.1.0.0/16 -> 10.2.0.0/16 proto any block weight 32.16.0.0.0.3 rule r filter f
in 10.1.0.0/16 -> 10.2.0.0/16 proto any block weight 32.16.0.0.0.3 rule r filter f`},
		{"tunnel: one each way, whatever it says", tunnel, `
out 10.1.0.0/16 -> 10.2.0.0/16 proto any negotiate weight 32.16.0.0.0.1 rule net filter f
in 10.2.0.0/16 -> 10.1.0.0/16 proto any negotiate weight 32.16.0.0.0.1 rule net filter f`},
		{"a symbol without an address", simple("r", spd.ActionBlock, spd.Filter{ID: "f", Source: me, Destination: spd.Address{Kind: spd.AddressDefaultGateway}}), ``},
		{"a DNS name", negotiating("r", spd.Filter{ID: "f", Source: me, Destination: dns("host.bank.example"), Mirrored: true}), `
out 2001:db8::1 -> 2001:db8::8 proto any negotiate weight 256.128.0.0.0.1 rule r filter f
in 2001:db8::8 -> 2001:db8::1 proto any negotiate weight 256.128.0.0.0.1 rule r filter f
out 192.0.2.1 -> 198.51.100.8 proto any negotiate weight 64.32.0.0.0.1 rule r filter f
in 198.51.100.8 -> 192.0.2.1 proto any negotiate weight 64.32.0.0.0.1 rule r filter f`},
		{"a DNS name known to have no address", simple("r", spd.ActionBlock, spd.Filter{ID: "f", Source: me, Destination: dns("gone.bank.example")}), ``},
		{"a range", simple("r", spd.ActionBlock, spd.Filter{ID: "f", Source: me, Destination: spd.Address{Kind: spd.AddressRange, From: addr("10.0.0.1"), To: addr("10.0.0.3")}}), `
out 192.0.2.1 -> 10.0.0.1-10.0.0.3 proto any block weight 62.32.0.0.0.3 rule r filter f`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := ruleFilters(expand(t, policy(test.rule), ownFacts)); got != strings.TrimSpace(test.want) {
				t.Errorf("got\n%s\nwant\n%s", got, strings.TrimSpace(test.want))
			}
		})
	}
}

func TestWeightDecides(t *testing.T) {
	filter := func(id string, d spd.Address, change func(f *spd.Filter)) spd.Filter {
		f := spd.Filter{ID: id, Source: me, Destination: d, Mirrored: true}
		if change != nil {
			change(&f)
		}
		return f
	}
	tcp := func(p spd.PortRange) func(f *spd.Filter) {
		return func(f *spd.Filter) { f.Protocol, f.DestinationPort = 6, p }
	}
	s := expand(t, policy(
		simple("any", spd.ActionBlock, filter("any", anyA, nil)),
		simple("net", spd.ActionPermit, filter("net", prefix("10.0.0.0/8"), nil)),
		negotiating("host", filter("host", prefix("10.0.0.7/32"), nil)),
		simple("tcp", spd.ActionPermit, filter("tcp", anyA, tcp(spd.PortRange{}))),
		simple("range", spd.ActionBlock, filter("range", anyA, tcp(spd.PortRange{From: 1, To: 1024}))),
		simple("port", spd.ActionPermit, filter("port", anyA, tcp(spd.PortRange{From: 80, To: 80}))),
		simple("tie-permit", spd.ActionPermit, filter("tie-permit", prefix("203.0.113.0/24"), nil)),
		simple("tie-block", spd.ActionBlock, filter("tie-block", prefix("203.0.113.0/24"), nil)),
		negotiating("tie-negotiate", filter("tie-negotiate", prefix("203.0.113.0/24"), nil)),
	), ownFacts)
	for _, test := range []struct {
		to   string
		port uint16
		want string
	}{
		{"198.51.100.1", 8080, "tcp"}, {"198.51.100.1", 81, "range"}, {"198.51.100.1", 80, "port"},
		{"10.0.0.6", 80, "net"}, {"10.0.0.7", 80, "host"}, {"203.0.113.1", 80, "tie-block"},
	} {
		m := s.Lookup(spd.Out, spd.Packet{Source: addr("192.0.2.1"), Destination: addr(test.to), Protocol: 6, SourcePort: 40000, DestinationPort: test.port})
		if m.Rule == nil || m.Rule.ID != test.want {
			t.Errorf("to %s port %d: got %v, want rule %s", test.to, test.port, m.Filter, test.want)
		}
	}
}

func TestExemptions(t *testing.T) {
	p := policy(simple("all", spd.ActionBlock, spd.Filter{ID: "f", Source: anyA, Destination: anyA, Mirrored: true}))
	p.Exemptions = spd.Exemptions{Multicast: true, Broadcast: true, BreakGlassTCP: []uint16{22}}
	with := expand(t, p, ownFacts)
	p.Exemptions = spd.Exemptions{}
	without := expand(t, p, ownFacts)
	packet := func(from, to string, protocol uint8, sport, dport uint16) spd.Packet {
		return spd.Packet{Source: addr(from), Destination: addr(to), Protocol: protocol, SourcePort: sport, DestinationPort: dport}
	}
	own := func(k spd.Packet) spd.Packet { k.Own = true; return k }
	opens := func(k spd.Packet) spd.Packet { k.Opens = true; return k }
	icmp := func(k spd.Packet, typ, code uint8) spd.Packet { k.ICMPType, k.ICMPCode = typ, code; return k }
	loop := packet("127.0.0.1", "127.0.0.1", 6, 1, 2)
	loop.Loopback = true
	const peer, us, us6, peer6 = "198.51.100.1", "192.0.2.1", "2001:db8::1", "2001:db8::2"
	for _, test := range []struct {
		name             string
		d                spd.Direction
		k                spd.Packet
		with, withoutSet string
	}{
		{"IKE in", spd.In, packet(peer, us, 17, 500, 500), "ike", "ike"},
		{"IKE in through a NAT", spd.In, packet(peer, us, 17, 31337, 4500), "ike", "ike"},
		{"a spoofed IKE source port", spd.In, packet(peer, us, 17, 500, 53), "", ""},
		{"IKE to somebody else, forwarded", spd.In, packet(peer, "192.0.2.77", 17, 500, 500), "", ""},
		{"IKE out of our socket", spd.Out, own(packet(us, peer, 17, 500, 500)), "ike", "ike"},
		{"IKE out of our socket, floating", spd.Out, own(packet(us, peer, 17, 4500, 31337)), "ike", "ike"},
		{"another process with the IKE port", spd.Out, packet(us, peer, 17, 500, 500), "", ""},
		{"our socket with something else", spd.Out, own(packet(us, peer, 6, 1, 2)), "", ""},
		{"ESP in", spd.In, packet(peer, us, 50, 0, 0), "esp", "esp"},
		{"ESP out of our socket", spd.Out, own(packet(us, peer, 50, 0, 0)), "esp", "esp"},
		{"ESP of another process", spd.Out, packet(us, peer, 50, 0, 0), "", ""},
		{"AH in", spd.In, packet(peer, us, 51, 0, 0), "", ""},
		{"loopback out", spd.Out, loop, "loopback", "loopback"},
		{"loopback in", spd.In, loop, "loopback", "loopback"},
		{"loopback addresses on the wire", spd.In, packet("127.0.0.1", "127.0.0.1", 6, 1, 2), "", ""},
		{"to the controller", spd.Out, packet(us, "192.0.2.9", 6, 40000, 7443), "controller", "controller"},
		{"from the controller", spd.In, packet("192.0.2.9", us, 6, 7443, 40000), "controller", "controller"},
		{"a connection from the controller's port", spd.In, opens(packet("192.0.2.9", us, 6, 7443, 445)), "", ""},
		{"to another port of the controller", spd.Out, packet(us, "192.0.2.9", 6, 40000, 22), "", ""},
		{"from another port of the controller", spd.In, packet("192.0.2.9", us, 6, 22, 7443), "", ""},
		{"to the controller by UDP", spd.Out, packet(us, "192.0.2.9", 17, 40000, 7443), "", ""},
		{"DHCP discover", spd.Out, packet("0.0.0.0", "255.255.255.255", 17, 68, 67), "broadcast", "dhcp"},
		{"DHCP offer", spd.In, packet("192.0.2.5", us, 17, 67, 68), "dhcp", "dhcp"},
		{"DHCP server", spd.In, packet("192.0.2.5", us, 17, 68, 67), "", ""},
		{"DHCPv6 solicit", spd.Out, packet("fe80::1", "ff02::1:2", 17, 546, 547), "dhcp", "dhcp"},
		{"DHCPv6 reply", spd.In, packet("fe80::2", "fe80::1", 17, 547, 546), "dhcp", "dhcp"},
		{"neighbour solicitation", spd.Out, icmp(packet(us6, "ff02::1:ff00:2", 58, 0, 0), 135, 0), "multicast", "neighbour-discovery"},
		{"neighbour advertisement", spd.In, icmp(packet(peer6, us6, 58, 0, 0), 136, 0), "neighbour-discovery", "neighbour-discovery"},
		{"listener report", spd.Out, icmp(packet("fe80::1", "ff02::16", 58, 0, 0), 143, 0), "multicast", "multicast-listener"},
		{"redirect", spd.In, icmp(packet("fe80::2", us6, 58, 0, 0), 137, 0), "", ""},
		{"echo", spd.In, icmp(packet(peer6, us6, 58, 0, 0), 128, 0), "", ""},
		{"packet too big in", spd.In, icmp(packet(peer6, us6, 58, 0, 0), 2, 0), "path-mtu", "path-mtu"},
		{"packet too big out", spd.Out, icmp(packet(us6, peer6, 58, 0, 0), 2, 0), "", ""},
		{"fragmentation needed", spd.In, icmp(packet(peer, us, 1, 0, 0), 3, 4), "path-mtu", "path-mtu"},
		{"port unreachable", spd.In, icmp(packet(peer, us, 1, 0, 0), 3, 3), "", ""},
		{"break-glass in", spd.In, packet(peer, us, 6, 40000, 22), "break-glass", ""},
		{"break-glass out", spd.Out, packet(us, peer, 6, 22, 40000), "break-glass", ""},
		{"a spoofed break-glass source port", spd.In, packet(peer, us, 6, 22, 80), "", ""},
		{"multicast", spd.Out, packet(us, "224.0.0.251", 17, 5353, 5353), "multicast", ""},
		{"multicast of IPv6", spd.In, packet("fe80::2", "ff02::fb", 17, 5353, 5353), "multicast", ""},
		{"broadcast", spd.Out, packet(us, "255.255.255.255", 17, 1, 2), "broadcast", ""},
		{"directed broadcast", spd.In, packet(peer, "192.0.2.255", 17, 1, 2), "broadcast", ""},
	} {
		for _, set := range []struct {
			name, want string
			set        spd.Set
		}{{"with", test.with, with}, {"without", test.withoutSet, without}} {
			m := set.set.Lookup(test.d, test.k)
			want := spd.ActionPermit
			if set.want == "" {
				want = spd.ActionBlock
			}
			if m.Exempt != set.want || m.Action != want {
				t.Errorf("%s, %s optional exemptions: got %s by %q, want %s by %q", test.name, set.name, m.Action, m.Exempt, want, set.want)
			}
		}
	}
}

func TestSelectors(t *testing.T) {
	web := negotiating("web", spd.Filter{ID: "f", Source: me, Destination: anyA, Protocol: 6, DestinationPort: spd.PortRange{From: 80, To: 81}, Mirrored: true})
	net := negotiating("net", spd.Filter{ID: "g", Source: prefix("10.1.0.0/16"), Destination: prefix("10.2.0.0/16")})
	net.Tunnel = addr("198.51.100.2")
	s := expand(t, policy(web, net), ownFacts)
	k := spd.Packet{Source: addr("192.0.2.1"), Destination: addr("203.0.113.5"), Protocol: 6, SourcePort: 4000, DestinationPort: 80}
	local := spd.Selector{Protocol: 6, From: addr("192.0.2.1"), To: addr("192.0.2.1"), PortTo: 65535}
	remote := spd.Selector{Protocol: 6, From: addr("203.0.113.5"), To: addr("203.0.113.5"), PortFrom: 80, PortTo: 81}
	check := func(d spd.Direction, k spd.Packet, local, remote spd.Selector) {
		t.Helper()
		l, r := s.Lookup(d, k).Selectors(k)
		if !slices.Equal(l, []spd.Selector{local}) || !slices.Equal(r, []spd.Selector{remote}) {
			t.Errorf("%s: got %+v %+v, want %+v %+v", d, l, r, local, remote)
		}
	}
	check(spd.Out, k, local, remote)
	check(spd.In, k.Reverse(), local, remote)
	inner := spd.Packet{Source: addr("10.1.0.9"), Destination: addr("10.2.0.9"), Protocol: 17, SourcePort: 1, DestinationPort: 2}
	near := spd.Selector{From: addr("10.1.0.0"), To: addr("10.1.255.255"), PortTo: 65535}
	far := spd.Selector{From: addr("10.2.0.0"), To: addr("10.2.255.255"), PortTo: 65535}
	check(spd.Out, inner, near, far)
	check(spd.In, inner.Reverse(), near, far)
	if l, r := (spd.Match{Action: spd.ActionPermit}).Selectors(k); l != nil || r != nil {
		t.Errorf("a permitted packet has selectors %v %v", l, r)
	}
}

func TestZeroSetPermits(t *testing.T) {
	if m := (spd.Set{}).Lookup(spd.In, spd.Packet{Source: addr("192.0.2.1"), Destination: addr("192.0.2.2")}); m.Action != spd.ActionPermit || m.Filter != nil {
		t.Errorf("got %+v", m)
	}
}

func TestExpandRefusesPolicies(t *testing.T) {
	good := spd.Filter{ID: "f", Source: me, Destination: anyA}
	with := func(change func(f *spd.Filter)) spd.Policy {
		f := good
		change(&f)
		return policy(negotiating("r", f))
	}
	rule := func(change func(r *spd.Rule)) spd.Policy {
		r := negotiating("r", good)
		change(&r)
		return policy(r)
	}
	for want, p := range map[string]spd.Policy{
		`rule 1 has no ID`:                                                         policy(negotiating("", good)),
		`rule "r": the ID is used twice`:                                           policy(negotiating("r", good), simple("r", spd.ActionBlock, spd.Filter{ID: "g", Source: me, Destination: anyA})),
		`rule "r", filter "f": the ID is used twice`:                               policy(negotiating("r", good, good)),
		`rule "r": has no filters`:                                                 policy(negotiating("r")),
		`rule "r": unknown action action(9)`:                                       policy(simple("r", 9, good)),
		`rule "r": negotiates without an offer`:                                    rule(func(r *spd.Rule) { r.Action.Offers = nil }),
		`rule "r": negotiates without an authentication method`:                    rule(func(r *spd.Rule) { r.Auth = nil }),
		`rule "r": authentication 1: a preshared key without the name of a secret`: rule(func(r *spd.Rule) { r.Auth[0].Method = spd.AuthPSK }),
		`rule "r": action permit with settings that only negotiate has`:            rule(func(r *spd.Rule) { r.Action.Action = spd.ActionPermit }),
		`rule "r": offer 1: invalid offer: unknown encryption algorithm 3`:         rule(func(r *spd.Rule) { r.Action.Offers = []proposal.ESP{{Encryption: 3}} }),
		`rule "r": lifetime 1ms is below 1s`:                                       rule(func(r *spd.Rule) { r.Action.Lifetime.Time = time.Millisecond }),
		`rule "r": fallback none with a delay or a life that it does not have`:     rule(func(r *spd.Rule) { r.Action.Fallback.TTL = time.Second }),
		`rule "r": unknown interface class interfaces(9)`:                          rule(func(r *spd.Rule) { r.Interfaces = 9 }),
		`rule "r": own tunnel endpoint 192.0.2.1 without a remote one`:             rule(func(r *spd.Rule) { r.TunnelLocal = addr("192.0.2.1") }),
		`rule "r": remote tunnel endpoint 224.0.0.1 is not a plain unicast address`: rule(func(r *spd.Rule) {
			r.Tunnel = addr("224.0.0.1")
		}),
		`rule "r": own tunnel endpoint ::2 is not a plain unicast address of the family of 192.0.2.1`: rule(func(r *spd.Rule) {
			r.Tunnel, r.TunnelLocal = addr("192.0.2.1"), addr("::2")
		}),
		`rule "r": a tunnel with inpass or fallback; what belongs into a tunnel never travels in clear`: rule(func(r *spd.Rule) {
			r.Tunnel, r.Action.Inpass = addr("192.0.2.1"), true
		}),
		`rule "r", filter "f": a tunnel with protocol or ports; tunnel filters are of addresses only`: rule(func(r *spd.Rule) {
			r.Tunnel, r.Filters = addr("192.0.2.1"), []spd.Filter{{ID: "f", Source: me, Destination: anyA, Protocol: 6}}
		}),
		`rule "r", filter "f": source ports 0-5 are not a range within 1-65535`:                                            with(func(f *spd.Filter) { f.Protocol, f.SourcePort = 6, spd.PortRange{To: 5} }),
		`rule "r", filter "f": destination ports 9-5 are not a range within 1-65535`:                                       with(func(f *spd.Filter) { f.Protocol, f.DestinationPort = 6, spd.PortRange{From: 9, To: 5} }),
		`rule "r", filter "f": destination port with protocol icmp, which has none; name tcp, udp, udp-lite, sctp or dccp`: with(func(f *spd.Filter) { f.Protocol, f.DestinationPort = 1, spd.PortRange{From: 9, To: 9} }),
		`rule "r", filter "f": source 10.0.0.0/8 and destination 2001:db8::/32 are of different families`:                  with(func(f *spd.Filter) { f.Source, f.Destination = prefix("10.0.0.0/8"), prefix("2001:db8::/32") }),
		`rule "r", filter "f": source 10.0.0.1/8 is not a prefix with zero host bits`:                                      with(func(f *spd.Filter) { f.Source = prefix("10.0.0.1/8") }),
		`rule "r", filter "f": negotiates with 224.0.0.0/8; IKE cannot negotiate with multicast or broadcast`:              with(func(f *spd.Filter) { f.Destination = prefix("224.0.0.0/8") }),
		`rule "r", filter "f": source: unknown kind address(77)`:                                                           with(func(f *spd.Filter) { f.Source.Kind = 77 }),
		`rule "r", filter "f": source: "host" is not a complete DNS name, as host.bank.example`:                            with(func(f *spd.Filter) { f.Source = dns("host") }),
		`rule "r", filter "f": source me with a DNS name`:                                                                  with(func(f *spd.Filter) { f.Source.Name = "host.bank.example" }),
		`rule "r", filter "f": source dns:a.example with addresses`: with(func(f *spd.Filter) {
			f.Source = dns("a.example")
			f.Source.From = addr("10.0.0.1")
		}),
		`rule "r", filter "f": source me with addresses`: with(func(f *spd.Filter) { f.Source.From = addr("10.0.0.1") }),
		`rule "r", filter "f": source range 10.0.0.2-10.0.0.1 is not of one family and in order`: with(func(f *spd.Filter) {
			f.Source = spd.Address{Kind: spd.AddressRange, From: addr("10.0.0.2"), To: addr("10.0.0.1")}
		}),
		`key exchange: no offer, but the policy negotiates`:          {Name: "test", Rules: []spd.Rule{negotiating("r", good)}},
		`default response: negotiates without an offer`:              {Name: "test", DefaultResponse: spd.DefaultResponse{Active: true, Auth: []spd.Auth{{Method: spd.AuthCertificate}}}, KeyExchange: spd.KeyExchange{Offers: proposal.DefaultIKE()}},
		`default response: not active, but with settings`:            {Name: "test", DefaultResponse: spd.DefaultResponse{PFS: true}},
		`exemptions: break-glass TCP port 0 is zero or listed twice`: {Name: "test", Exemptions: spd.Exemptions{BreakGlassTCP: []uint16{0}}},
	} {
		s, err := spd.Expand(p, ownFacts)
		if !errors.Is(err, spd.ErrPolicy) || err.Error() != `invalid policy "test": `+want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		if len(s.Filters()) != 0 {
			t.Errorf("%s: a Set beside the error", want)
		}
	}
}

func TestExpandRefusesFacts(t *testing.T) {
	for want, f := range map[string]spd.Facts{
		"address 1 is not an address":                              {Addresses: []netip.Addr{{}}},
		"127.0.0.1 is not a unicast address of an interface":       {Addresses: []netip.Addr{addr("127.0.0.1")}},
		"224.0.0.1 is not a unicast address of an interface":       {Addresses: []netip.Addr{addr("224.0.0.1")}},
		"broadcast address ::5 is not of IPv4":                     {Broadcasts: []netip.Addr{addr("::5")}},
		"controller 1 (192.0.2.1:0) is not an address with a port": {Controllers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:0")}},
		"default gateway 1 is not an address":                      {DefaultGateways: []netip.Addr{{}}},
	} {
		if _, err := spd.Expand(policy(), f); !errors.Is(err, spd.ErrFacts) || !strings.HasSuffix(err.Error(), ": "+want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestFactsAreNormalised(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, f := spdtest.Policy().Draw(t, "policy"), spdtest.Facts().Draw(t, "facts")
		want, err := spd.Expand(p, f)
		if err != nil {
			t.Fatal(err)
		}
		for i, a := range f.Addresses {
			if a.Is4() {
				f.Addresses[i] = netip.AddrFrom16(a.As16())
			} else {
				f.Addresses[i] = a.WithZone("eth0")
			}
		}
		f.DNSServers = append(f.DNSServers, f.DNSServers...)
		got, err := spd.Expand(p, f)
		if err != nil || !slices.Equal(want.Filters(), got.Filters()) {
			t.Fatalf("the same facts in another form give another Set: %v", err)
		}
	})
}

func TestRangeText(t *testing.T) {
	for text, r := range map[string]spd.Range{
		"10.0.0.1":              {From: addr("10.0.0.1"), To: addr("10.0.0.1")},
		"10.0.0.0/30":           {From: addr("10.0.0.0"), To: addr("10.0.0.3")},
		"10.0.0.1-10.0.0.4":     {From: addr("10.0.0.1"), To: addr("10.0.0.4")},
		"::/0":                  {From: addr("::"), To: addr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")},
		"2001:db8::-2001:db9::": {From: addr("2001:db8::"), To: addr("2001:db9::")},
	} {
		if r.String() != text {
			t.Errorf("got %s, want %s", r, text)
		}
	}
}

// An address that the kernel has and the facts do not hold yet is none that a filter about Me means. Until they do, a
// policy with such filters lets nothing of it pass but what is exempt.
func TestAnAddressThatIsNotKnownYet(t *testing.T) {
	aboutMe := expand(t, policy(simple("me", spd.ActionPermit, spd.Filter{ID: "f", Source: me, Destination: anyA, Mirrored: true})), ownFacts)
	aboutAll := expand(t, policy(simple("all", spd.ActionPermit, spd.Filter{ID: "f", Source: anyA, Destination: anyA})), ownFacts)
	fresh := spd.Packet{Source: addr("192.0.2.66"), Destination: addr("198.51.100.1"), Protocol: 17, SourcePort: 1, DestinationPort: 2, Unknown: true}
	dhcp := spd.Packet{Source: addr("192.0.2.66"), Destination: addr("192.0.2.5"), Protocol: 17, SourcePort: 68, DestinationPort: 67, Unknown: true}
	for _, test := range []struct {
		name string
		set  spd.Set
		d    spd.Direction
		k    spd.Packet
		want spd.Action
	}{
		{"out", aboutMe, spd.Out, fresh, spd.ActionBlock},
		{"in", aboutMe, spd.In, fresh.Reverse(), spd.ActionBlock},
		{"exempt", aboutMe, spd.Out, dhcp, spd.ActionPermit},
		{"a policy that does not speak of the machine", aboutAll, spd.Out, fresh, spd.ActionPermit},
		{"no policy", spd.Set{}, spd.Out, fresh, spd.ActionPermit},
	} {
		if m := test.set.Lookup(test.d, test.k); m.Action != test.want {
			t.Errorf("%s: got %s by %v, want %s", test.name, m.Action, m.Filter, test.want)
		}
	}
}

// The exemptions of a policy beside the oldest ones: each lets through what it names, and nothing that only looks like it.
func TestKerberosRSVPAndICMP(t *testing.T) {
	const peer, us, us6, peer6 = "198.51.100.1", "192.0.2.1", "2001:db8::1", "2001:db8::2"
	packet := func(from, to string, protocol uint8, sport, dport uint16) spd.Packet {
		return spd.Packet{Source: addr(from), Destination: addr(to), Protocol: protocol, SourcePort: sport, DestinationPort: dport}
	}
	opens := packet(peer, us, 6, 88, 40000)
	opens.Opens = true
	for _, test := range []struct {
		name      string
		d         spd.Direction
		k         spd.Packet
		exemption string // that lets it through
	}{
		{"Kerberos request", spd.Out, packet(us, peer, 17, 40000, 88), "kerberos"},
		{"Kerberos request by TCP over IPv6", spd.Out, packet(us6, peer6, 6, 40000, 88), "kerberos"},
		{"Kerberos answer", spd.In, packet(peer, us, 17, 88, 40000), "kerberos"},
		{"Kerberos answer by TCP", spd.In, packet(peer, us, 6, 88, 40000), "kerberos"},
		{"Kerberos request to us", spd.In, packet(peer, us, 17, 40000, 88), "kerberos"},
		{"our Kerberos answer", spd.Out, packet(us, peer, 17, 88, 40000), "kerberos"},
		{"a service behind source port 88", spd.In, packet(peer, us, 17, 88, 2049), ""},
		{"a TCP service behind source port 88", spd.In, packet(peer, us, 6, 88, 445), ""},
		{"a connection from source port 88", spd.In, opens, ""},
		{"Kerberos of others, forwarded", spd.Out, packet("192.0.2.77", peer, 17, 40000, 88), ""},
		{"RSVP", spd.Out, packet(us, peer, 46, 0, 0), "rsvp"},
		{"RSVP in", spd.In, packet(peer6, us6, 46, 0, 0), "rsvp"},
		{"echo", spd.In, packet(peer, us, 1, 0, 0), "icmp"},
		{"echo of IPv6", spd.Out, packet(us6, peer6, 58, 0, 0), "icmp"},
		{"ICMP in IPv6", spd.Out, packet(us6, peer6, 1, 0, 0), ""},
	} {
		for name, e := range map[string]spd.Exemptions{"kerberos": {Kerberos: true}, "rsvp": {RSVP: true}, "icmp": {ICMP: true}, "none": {}} {
			p := policy(simple("all", spd.ActionBlock, spd.Filter{ID: "f", Source: anyA, Destination: anyA, Mirrored: true}))
			p.Exemptions = e
			want := ""
			if name == test.exemption {
				want = name
			}
			if m := expand(t, p, ownFacts).Lookup(test.d, test.k); m.Exempt != want || (m.Action == spd.ActionPermit) != (want != "") {
				t.Errorf("%s with exemption %s: got %s by %q", test.name, name, m.Action, m.Exempt)
			}
		}
	}
}
