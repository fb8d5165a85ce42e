package steering_test

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/e2e/lab/labtest"
	"github.com/bailiwick-net/bailiwick/node/datapath/userspace/steering"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
	"github.com/bailiwick-net/bailiwick/policies/spd/spdtest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var params = steering.Params{
	Device: "bw0", Mask: 0x00ff0000, Protect: 0x00b10000, Own: 0x00b20000, Reinject: 0x00b30000, Tunnel: 0x00b40000, Forward: 0x00b50000,
}

var facts = spd.Facts{
	Addresses:   []netip.Addr{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::10")},
	DNSServers:  []netip.Addr{netip.MustParseAddr("192.0.2.53")},
	Broadcasts:  []netip.Addr{netip.MustParseAddr("192.0.2.255")},
	Controllers: []netip.AddrPort{netip.MustParseAddrPort("198.51.100.1:7443")},
}

var (
	me      = spd.Address{Kind: spd.AddressMe}
	anyone  = spd.Address{Kind: spd.AddressAny}
	secured = spd.FilterAction{Action: spd.ActionNegotiate, Offers: []proposal.ESP{{Encryption: proposal.EncrAESGCM16, KeyBits: 128}}}
	psk     = []spd.Auth{{Method: spd.AuthPSK, Secret: "k"}}
)

func with(change func(*spd.FilterAction)) spd.FilterAction {
	a := secured
	change(&a)
	return a
}

func prefix(s string) spd.Address {
	return spd.Address{Kind: spd.AddressPrefix, Prefix: netip.MustParsePrefix(s)}
}

func policy(rules ...spd.Rule) spd.Policy {
	return spd.Policy{Name: "golden", Rules: rules, KeyExchange: spd.KeyExchange{Offers: []proposal.IKE{{
		Encryption: proposal.EncrAESGCM16, KeyBits: 128, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupX25519,
	}}}}
}

// policies are those whose rules stand in testdata.
var policies = map[string]spd.Policy{
	"empty": policy(),
	"server": policy(
		spd.Rule{ID: "all-ip", Auth: psk, Filters: []spd.Filter{{ID: "f1", Source: me, Destination: anyone, Mirrored: true}},
			Action: with(func(a *spd.FilterAction) { a.Inpass, a.Fallback.Mode = true, spd.FallbackWait })},
		spd.Rule{ID: "all-icmp", Action: spd.FilterAction{Action: spd.ActionPermit},
			Filters: []spd.Filter{{ID: "f2", Source: me, Destination: anyone, Protocol: 1, Mirrored: true}}},
		spd.Rule{ID: "telnet", Action: spd.FilterAction{Action: spd.ActionBlock},
			Filters: []spd.Filter{{ID: "f3", Source: anyone, Destination: me, Protocol: 6, DestinationPort: spd.PortRange{From: 23, To: 23}}}},
	),
	"discover": policy(
		spd.Rule{ID: "lan", Auth: psk, Filters: []spd.Filter{{ID: "f1", Source: me, Destination: prefix("192.0.2.0/24"), Mirrored: true}},
			Action: with(func(a *spd.FilterAction) { a.Inpass, a.Fallback.Mode = true, spd.FallbackDiscover })},
	),
	"classes": policy(
		spd.Rule{ID: "lan", Interfaces: spd.InterfacesLAN, Auth: psk, Action: secured, Filters: []spd.Filter{{ID: "f1", Source: me, Destination: anyone, Mirrored: true}}},
		spd.Rule{ID: "dial-up", Interfaces: spd.InterfacesRemoteAccess, Action: spd.FilterAction{Action: spd.ActionBlock},
			Filters: []spd.Filter{{ID: "f2", Source: me, Destination: anyone, Mirrored: true}}},
		spd.Rule{ID: "site", Interfaces: spd.InterfacesRemoteAccess, Auth: psk, Action: secured, Tunnel: netip.MustParseAddr("203.0.113.1"),
			Filters: []spd.Filter{{ID: "f3", Source: prefix("10.1.0.0/16"), Destination: prefix("10.2.0.0/16")}}},
	),
	"tunnel": policy(
		spd.Rule{ID: "site", Auth: psk, Action: secured, Tunnel: netip.MustParseAddr("203.0.113.1"),
			Filters: []spd.Filter{{ID: "f1", Source: prefix("10.1.0.0/16"), Destination: prefix("10.2.0.0/16")}}},
		spd.Rule{ID: "dns", Action: spd.FilterAction{Action: spd.ActionPermit}, Filters: []spd.Filter{
			{ID: "f2", Source: me, Destination: spd.Address{Kind: spd.AddressDNSServers}, Protocol: 17, DestinationPort: spd.PortRange{From: 53, To: 54}, Mirrored: true},
			{ID: "f3", Source: me, Destination: spd.Address{Kind: spd.AddressRange, From: netip.MustParseAddr("192.0.2.7"), To: netip.MustParseAddr("192.0.2.20")}, Mirrored: true}}},
		spd.Rule{ID: "dial-in", Interfaces: spd.InterfacesRemoteAccess, Action: spd.FilterAction{Action: spd.ActionBlock},
			Filters: []spd.Filter{{ID: "f4", Source: anyone, Destination: me, Mirrored: true}}},
	),
}

func compile(t *testing.T, p spd.Policy) steering.Ruleset {
	t.Helper()
	facts := facts
	if p.Rules != nil && p.Rules[0].Interfaces != spd.InterfacesAll {
		facts.Addresses = append(facts.Addresses, netip.MustParseAddr("198.51.100.7"))
		facts.RemoteAddresses, facts.RemoteInterfaces = []netip.Addr{netip.MustParseAddr("198.51.100.7")}, []string{"ppp*", "wan0"}
	}
	set, err := spd.Expand(p, facts)
	if err != nil {
		t.Fatal(err)
	}
	return steering.Compile(set, params)
}

func TestGolden(t *testing.T) {
	for name, p := range policies {
		t.Run(name, func(t *testing.T) {
			got := compile(t, p).Text("bailiwick")
			file := filepath.Join("testdata", name+".nft")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("rules differ from %s, -update rewrites it (-want +got):\n%s", file, diff)
			}
		})
	}
}

// The text is not only for people: nft must take it.
func TestTextIsNFT(t *testing.T) {
	l := labtest.New(t, "bwdps-")
	h, err := l.Host("nft")
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range policies {
		cmd := exec.Command("ip", "netns", "exec", h.Namespace, "nft", "-c", "-f", "-")
		cmd.Stdin = strings.NewReader(compile(t, p).Text("bailiwick"))
		var out bytes.Buffer
		cmd.Stderr = &out
		if err := cmd.Run(); err != nil {
			t.Errorf("policy %s: nft refuses the rules: %v\n%s", name, err, out.String())
		}
	}
}

// The same policy gives the same rules, whatever it is: a swap that changes nothing changes nothing.
func TestCompileIsDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, f := spdtest.Policy().Draw(t, "policy"), spdtest.Facts().Draw(t, "facts")
		set, err := spd.Expand(p, f)
		if err != nil {
			t.Fatal(err)
		}
		again, err := spd.Expand(p, f)
		if err != nil {
			t.Fatal(err)
		}
		a, b := steering.Compile(set, params), steering.Compile(again, params)
		if diff := cmp.Diff(a.Text("t"), b.Text("t")); diff != "" {
			t.Error(diff)
		}
		for _, c := range a.Chains {
			for _, r := range c.Rules {
				if len(r.Expressions()) == 0 {
					t.Errorf("rule %+v of chain %s has no expressions", r, c.Name)
				}
			}
		}
	})
}

// Every rule that negotiates ends in the protect chain, a soft or inpass rule, or a drop; a chain that ends early would
// let packets pass.
func TestNegotiateNeverAccepts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set, err := spd.Expand(spdtest.Policy().Draw(t, "policy"), spdtest.Facts().Draw(t, "facts"))
		if err != nil {
			t.Fatal(err)
		}
		negotiates := map[string]bool{}
		for _, f := range set.Filters() {
			if f.Action == spd.ActionNegotiate {
				negotiates["filter/"+f.RuleID+"/"+f.FilterID] = true
			}
		}
		for _, c := range steering.Compile(set, params).Chains {
			for _, r := range c.Rules {
				if negotiates[r.Comment] && (r.Verdict == steering.Accept || r.Verdict == steering.Return) {
					t.Errorf("chain %s accepts packets of a negotiate filter: %+v", c.Name, r)
				}
			}
		}
	})
}

// kernelParams leave ESP to the kernel.
var kernelParams = steering.Params{
	Mask: 0x00ff0000, Protect: 0x00b70000, Own: 0x00b20000, Reinject: 0x00b30000, Tunnel: 0x00b80000, Fresh: 0x00ba0000, Forward: 0x00b50000,
	Kernel: true, Queue: 29803,
}

// With the kernel's ESP no rule steers anything to a device, and what is to be protected leaves the chains by an SA, by the
// queue, or not at all.
func TestKernelHoldsWhatHasNoSA(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set, err := spd.Expand(spdtest.Policy().Draw(t, "policy"), spdtest.Facts().Draw(t, "facts"))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range steering.Compile(set, kernelParams).Chains {
			for _, r := range c.Rules {
				for _, m := range r.Matches {
					if device, ok := m.(steering.Interface); ok && device.Name == "" {
						t.Errorf("chain %s asks for a device without a name: %+v", c.Name, r)
					}
				}
				if r.Comment == steering.CounterProtect && (len(r.Matches) != 1 || r.Matches[0] != steering.Match(steering.Secured{}) || r.Verdict != steering.Accept) {
					t.Errorf("chain %s lets pass what has no SA: %+v", c.Name, r)
				}
			}
			if n := len(c.Rules); c.Name == "protect" && (c.Rules[n-1].Verdict != steering.Queue || len(c.Rules[n-1].Matches) > 0) {
				t.Errorf("chain %s ends with %+v, want the queue", c.Name, c.Rules[n-1])
			}
		}
	})
}
