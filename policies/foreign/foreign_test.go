package foreign_test

import (
	"errors"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/foreign"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
	"github.com/bailiwick-net/bailiwick/policies/spd"
	"github.com/bailiwick-net/bailiwick/policies/spd/spdtest"
)

var machine = foreign.Machine{Name: "gw.bank.example", Facts: spd.Facts{
	Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}, DNSServers: []netip.Addr{netip.MustParseAddr("192.0.2.53")},
}}

// programs are the exports by the name of their golden file.
var programs = map[string]func(spd.Policy) (foreign.Config, error){
	"swanctl.conf": func(p spd.Policy) (foreign.Config, error) { return foreign.StrongSwan(p, machine) },
	"ipsec.conf":   func(p spd.Policy) (foreign.Config, error) { return foreign.Libreswan(p, machine) },
	"ps1":          foreign.Windows,
}

// documents are those of the test data over the predefined ones.
func documents(t testing.TB) policies.Documents {
	t.Helper()
	text, err := os.ReadFile("testdata/policies.yaml")
	if err != nil {
		t.Fatal(err)
	}
	docs, err := policies.Decode("policies.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	docs = docs.Merge(predefined.Documents())
	if err := policies.Check(policies.Validate(docs)); err != nil {
		t.Fatal(err)
	}
	return docs
}

// TestGolden holds what is written of policies with everything that other programs can and cannot say.
func TestGolden(t *testing.T) {
	docs := documents(t)
	for name, policy := range map[string]string{"everything": "Everything", "tunnel": "Tunnel", "secure-server": "Secure Server (Require Security)"} {
		p, err := docs.Effective(policy)
		if err != nil {
			t.Fatal(err)
		}
		for program, export := range programs {
			config, err := export(p)
			if err != nil {
				t.Errorf("%s of %s: %v", program, policy, err)
				continue
			}
			file := "testdata/" + name + "." + program
			if os.Getenv("UPDATE_GOLDEN") != "" {
				if err := os.WriteFile(file, config.Text, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(config.Text)); diff != "" {
				t.Errorf("%s is stale (UPDATE_GOLDEN=1 renews it):\n%s", file, diff)
			}
		}
	}
}

// TestNothingIsLostSilently: every rule that is not weaker than the policy is in the text, and every remark as well.
func TestNothingIsLostSilently(t *testing.T) {
	for program, export := range programs {
		t.Run(program, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				p := spdtest.Policy().Draw(t, "policy")
				config, err := export(p)
				if err != nil {
					if errors.Is(err, spd.ErrFacts) {
						return
					}
					t.Fatalf("%+v: %v", p, err)
				}
				text := string(config.Text)
				for i, line := range strings.Split(text, "\n") {
					if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' }) {
						t.Fatalf("line %d has a control character: %q", i+1, line)
					}
				}
				plain := flat(text)
				for _, r := range config.Remarks {
					if !strings.Contains(plain, flat(r.String())) {
						t.Fatalf("the remark is not in the text: %s\n%s", r, text)
					}
				}
			})
		})
	}
}

// space is white space, and the sign of a comment that goes on.
var space = regexp.MustCompile(`[\s#]+`)

func flat(s string) string {
	return space.ReplaceAllString(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s), " ")
}

// TestWeaker wants what other programs would protect less to be told as such.
func TestWeaker(t *testing.T) {
	p, err := documents(t).Effective("Everything")
	if err != nil {
		t.Fatal(err)
	}
	for program, want := range map[string][]string{
		"swanctl.conf": {"peerGroups", "keyExchange.transcript", "accountMapping"}, "ipsec.conf": {"peerGroups", "keyExchange.transcript"},
		"ps1": {"peerGroups", "keyExchange.transcript"},
	} {
		config, err := programs[program](p)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range want {
			if !slices.ContainsFunc(config.Weaker(), func(r foreign.Remark) bool { return strings.Contains(r.Message, word) }) {
				t.Errorf("%s: no remark about %s among %v", program, word, config.Weaker())
			}
		}
	}
}

func TestReverse(t *testing.T) {
	p, err := documents(t).Effective("Tunnel")
	if err != nil {
		t.Fatal(err)
	}
	back, err := foreign.Reverse(p)
	if err != nil {
		t.Fatal(err)
	}
	if r := back.Rules[0]; r.Tunnel != p.Rules[0].TunnelLocal || r.TunnelLocal != p.Rules[0].Tunnel || r.Filters[0].Source != p.Rules[0].Filters[0].Destination ||
		r.Auth[0].LocalID != p.Rules[0].Auth[0].RemoteID {
		t.Errorf("%+v is not the other end of %+v", r, p.Rules[0])
	}
	again, err := foreign.Reverse(back)
	if err != nil || !cmp.Equal(again.Rules[0].Filters, p.Rules[0].Filters, cmp.Comparer(func(a, b spd.Filter) bool { return a == b })) {
		t.Errorf("turned round twice: %+v, %v; want %+v", again.Rules[0], err, p.Rules[0])
	}
	everything, err := documents(t).Effective("Secure Server (Require Security)")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := foreign.Reverse(everything); !errors.Is(err, foreign.ErrReverse) {
		t.Errorf("a policy without a tunnel: %v", err)
	}
}

func TestMachineRefused(t *testing.T) {
	p, err := documents(t).Effective("Tunnel")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []foreign.Machine{{}, {Name: "gw.bank.example"}, {Name: "a\nb", Facts: machine.Facts}, {Name: "a b", Facts: machine.Facts}} {
		if _, err := foreign.StrongSwan(p, m); !errors.Is(err, foreign.ErrMachine) {
			t.Errorf("%+v: %v", m, err)
		}
		if _, err := foreign.Libreswan(p, m); !errors.Is(err, foreign.ErrMachine) {
			t.Errorf("%+v: %v", m, err)
		}
	}
}
