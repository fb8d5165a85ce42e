package ikev2

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// sel reads "protocol from-to ports".
func sel(from, to string, protocol uint8, ports ...uint16) sa.Selector {
	s := sa.Selector{Protocol: protocol, From: netip.MustParseAddr(from), To: netip.MustParseAddr(to), PortTo: 65535}
	if len(ports) == 2 {
		s.PortFrom, s.PortTo = ports[0], ports[1]
	}
	return s
}

func TestIntersect(t *testing.T) {
	all := sel("0.0.0.0", "255.255.255.255", 0)
	tcp := sel("10.0.0.0", "10.0.0.255", 6, 80, 90)
	opaque := sel("10.0.0.1", "10.0.0.1", 6, 65535, 0)
	for _, c := range []struct {
		a, b, want sa.Selector
		ok         bool
	}{
		{all, tcp, tcp, true},
		{tcp, all, tcp, true},
		{tcp, sel("10.0.0.200", "10.0.1.20", 6, 85, 100), sel("10.0.0.200", "10.0.0.255", 6, 85, 90), true},
		{tcp, sel("10.0.0.0", "10.0.0.255", 17), sa.Selector{}, false},
		{tcp, sel("10.0.0.0", "10.0.0.255", 6, 91, 92), sa.Selector{}, false},
		{tcp, sel("10.0.1.0", "10.0.1.255", 6), sa.Selector{}, false},
		{all, sel("::", "ffff::", 0), sa.Selector{}, false},
		{all, opaque, opaque, true},
		{tcp, opaque, sa.Selector{}, false},
	} {
		got, ok := c.a.Intersect(c.b)
		if ok != c.ok || ok && got != c.want {
			t.Errorf("intersect(%v, %v) = %v, %v; want %v, %v", c.a, c.b, got, ok, c.want, c.ok)
		}
	}
}

func TestNarrow(t *testing.T) {
	me, peer := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	all := sel("0.0.0.0", "255.255.255.255", 0)
	own := sel("10.0.0.1", "10.0.0.1", 0)
	theirs := sel("10.0.0.2", "10.0.0.2", 0)
	web := sel("10.0.0.1", "10.0.0.1", 6, 443, 443)
	rules := []ike.Rule{
		{ID: "web", Mode: sa.Transport, Pairs: []ike.Pair{{Local: web, Remote: sel("0.0.0.0", "255.255.255.255", 6)}}},
		{ID: "all", Mode: sa.Transport, Pairs: []ike.Pair{{Local: own, Remote: all}}},
		{ID: "net", Mode: sa.Tunnel, Tunnel: peer, Pairs: []ike.Pair{{Local: sel("192.168.1.0", "192.168.1.255", 0), Remote: sel("192.168.2.0", "192.168.2.255", 0)}}},
		{ID: "other", Mode: sa.Tunnel, Tunnel: netip.MustParseAddr("10.0.0.9"), Pairs: []ike.Pair{{Local: sel("192.168.1.0", "192.168.1.255", 0), Remote: sel("192.168.9.0", "192.168.9.255", 0)}}},
	}
	for name, c := range map[string]struct {
		transport     bool
		local, remote []sa.Selector
		rule          string // "" is refused
		mode          sa.Mode
		wantL, wantR  []sa.Selector
	}{
		"whole request, first rule":            {true, []sa.Selector{web}, []sa.Selector{sel("10.0.0.2", "10.0.0.2", 6)}, "web", sa.Transport, []sa.Selector{web}, []sa.Selector{sel("10.0.0.2", "10.0.0.2", 6)}},
		"whole request, less specific rule":    {true, []sa.Selector{own}, []sa.Selector{theirs}, "all", sa.Transport, []sa.Selector{own}, []sa.Selector{theirs}},
		"transport is for two hosts":           {true, []sa.Selector{own}, []sa.Selector{all}, "all", sa.Transport, []sa.Selector{own}, []sa.Selector{theirs}},
		"the packet decides":                   {true, []sa.Selector{web, all}, []sa.Selector{sel("10.0.0.2", "10.0.0.2", 6, 4000, 4000), all}, "web", sa.Transport, []sa.Selector{web}, []sa.Selector{sel("10.0.0.2", "10.0.0.2", 6)}},
		"a part":                               {false, []sa.Selector{all}, []sa.Selector{sel("192.168.2.0", "192.168.3.255", 0)}, "net", sa.Tunnel, []sa.Selector{sel("192.168.1.0", "192.168.1.255", 0)}, []sa.Selector{sel("192.168.2.0", "192.168.2.255", 0)}},
		"tunnel to another end":                {false, []sa.Selector{sel("192.168.1.0", "192.168.1.255", 0)}, []sa.Selector{sel("192.168.9.0", "192.168.9.255", 0)}, "", 0, nil, nil},
		"transport asked where tunnel is rule": {true, []sa.Selector{sel("192.168.1.5", "192.168.1.5", 0)}, []sa.Selector{sel("192.168.2.5", "192.168.2.5", 0)}, "net", sa.Tunnel, []sa.Selector{sel("192.168.1.5", "192.168.1.5", 0)}, []sa.Selector{sel("192.168.2.5", "192.168.2.5", 0)}},
		"tunnel asked where transport is rule": {false, []sa.Selector{own}, []sa.Selector{theirs}, "", 0, nil, nil},
		"another host's traffic":               {true, []sa.Selector{own}, []sa.Selector{sel("10.0.0.3", "10.0.0.3", 0)}, "", 0, nil, nil},
		"IPv6":                                 {true, []sa.Selector{sel("::1", "::1", 0)}, []sa.Selector{sel("::2", "::2", 0)}, "", 0, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := &SA{cfg: &ike.Config{Rules: rules}, local: netip.AddrPortFrom(me, 500), remote: netip.AddrPortFrom(peer, 500)}
			got, ok := s.narrow(&childRequest{transport: c.transport, local: c.local, remote: c.remote})
			if !ok {
				if c.rule != "" {
					t.Fatalf("refused, want rule %q", c.rule)
				}
				return
			}
			if got.rule.ID != c.rule || got.mode != c.mode || !slices.Equal(got.local, c.wantL) || !slices.Equal(got.remote, c.wantR) {
				t.Errorf("rule %q %s %v to %v; want %q %s %v to %v", got.rule.ID, got.mode, got.local, got.remote, c.rule, c.mode, c.wantL, c.wantR)
			}
		})
	}
}

// Behind a NAT the peer names the addresses that it knows (RFC 7296 2.23.1).
func TestNarrowBehindNAT(t *testing.T) {
	me, peer := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("203.0.113.7")
	s := &SA{
		cfg: &ike.Config{Rules: []ike.Rule{{ID: "all", Mode: sa.Transport, Pairs: []ike.Pair{{
			Local: sel("10.0.0.1", "10.0.0.1", 0), Remote: sel("0.0.0.0", "255.255.255.255", 0),
		}}}}},
		local: netip.AddrPortFrom(me, 4500), remote: netip.AddrPortFrom(peer, 33000), natRemote: true,
	}
	got, ok := s.narrow(&childRequest{
		transport: true,
		local:     []sa.Selector{sel("198.51.100.1", "198.51.100.1", 6)}, remote: []sa.Selector{sel("192.168.5.5", "192.168.5.5", 6)},
	})
	if !ok {
		t.Fatal("refused")
	}
	for what, pair := range map[string][2][]sa.Selector{
		"installed local":  {got.local, {sel("10.0.0.1", "10.0.0.1", 6)}},
		"installed remote": {got.remote, {sel("203.0.113.7", "203.0.113.7", 6)}},
		"told local":       {got.told, {sel("198.51.100.1", "198.51.100.1", 6)}},
		"told remote":      {got.toldRemote, {sel("192.168.5.5", "192.168.5.5", 6)}},
	} {
		if !slices.Equal(pair[0], pair[1]) {
			t.Errorf("%s: %v, want %v", what, pair[0], pair[1])
		}
	}
}

func TestPeerAuth(t *testing.T) {
	psk, cert := spd.Auth{Method: spd.AuthPSK, Secret: "x"}, spd.Auth{Method: spd.AuthCertificate}
	peer := netip.MustParseAddr("10.0.0.2")
	cfg := &ike.Config{Rules: []ike.Rule{
		{Mode: sa.Transport, Auth: []spd.Auth{psk}, Pairs: []ike.Pair{{Remote: sel("10.0.0.0", "10.0.0.255", 6, 80, 80)}}},
		{Mode: sa.Tunnel, Tunnel: netip.MustParseAddr("10.0.0.9"), Auth: []spd.Auth{cert}},
	}}
	if got := peerAuth(cfg, peer); !slices.Equal(got, []spd.Auth{psk}) {
		t.Errorf("a peer that one rule is about may use %v", got)
	}
	if got := peerAuth(cfg, netip.MustParseAddr("192.0.2.1")); got != nil {
		t.Errorf("a peer that no rule is about may use %v", got)
	}
	cfg.DefaultResponse = &ike.Rule{Auth: []spd.Auth{cert}}
	if got := peerAuth(cfg, netip.MustParseAddr("192.0.2.1")); !slices.Equal(got, []spd.Auth{cert}) {
		t.Errorf("with a default response a stranger may use %v", got)
	}
}
