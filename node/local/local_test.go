package local

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/spd"
	"github.com/bailiwick-net/bailiwick/policies/spd/spdtest"
)

const head = "apiVersion: bailiwick.net/v1alpha1\n"

// blockEverything is the rule that would cut a machine off, if rules could.
const blockEverything = head + `kind: FilterList
name: Everything
filters: [{source: any, destination: any}, {source: me, destination: any}]
---
` + head + `kind: FilterAction
name: Drop
action: block
---
` + head + `kind: Policy
name: lockout
rules:
  - {name: All, filterList: Everything, filterAction: Drop}
`

// telnet permits one service that the policy may not.
const telnet = head + `kind: FilterList
name: Telnet
filters: [{source: me, destination: 192.0.2.7, protocol: tcp, destinationPort: 23}]
---
` + head + `kind: FilterAction
name: Let pass
action: permit
---
` + head + `kind: Policy
name: telnet
rules:
  - {name: Out, filterList: Telnet, filterAction: Let pass}
`

func parse(t testing.TB, text string, kind Kind) RuleSet {
	t.Helper()
	s, err := ParseRules("own.yaml", []byte(text), kind)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRulesAreRefusedWithTheirPlace(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"not YAML", "a: [", "own.yaml:1:"},
		{"unknown field", strings.Replace(telnet, "protocol:", "protokoll:", 1), `own.yaml:4:48: unknown field "protokoll"`},
		{"unknown list", strings.Replace(telnet, "filterList: Telnet,", "filterList: Telnt,", 1), "own.yaml:15:"},
		{"no policy", telnet[:strings.LastIndex(telnet, "---\n")], "there are 0 policies"},
		{"two policies", telnet + "---\n" + head + "kind: Policy\nname: b\nrules: []\n", "there are 2 policies"},
		{"a link", telnet + "---\n" + head + "kind: Link\npolicy: telnet\ncontainer: dc=x\norder: 1\n", "own.yaml:17:1: a Link has no place"},
		{"settings", telnet + "---\n" + head + "kind: Settings\nbreakGlassTCP: [22]\n", "a Settings has no place"},
		{"exemptions", telnet + "exemptions: {icmp: true}\n", "own.yaml:11:1: policy \"telnet\" says more than rules"},
		{"default response", telnet + "defaultResponse: {active: true}\n", "says more than rules"},
		{"key exchange", telnet + "keyExchange: {lifetime: 1h}\n", "says more than rules"},
		{"no rule", head + "kind: Policy\nname: empty\nrules: []\n", "has no active rule"},
		{"a DNS name", strings.Replace(telnet, "192.0.2.7", "dns:host.bank.example", 1), "have addresses alone"},
		{"empty", "", "there are 0 policies"},
	} {
		s, err := ParseRules("own.yaml", []byte(tt.text), Dynamic)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, wanted %q", tt.name, err, tt.want)
		}
		if err == nil && len(s.Rules) > 0 {
			t.Errorf("%s: there are rules beside the error", tt.name)
		}
	}
}

// TestRulesDoNotLiftWhatIsExempt puts the rule that blocks everything beside random policies: what the policy exempts is
// as before, and what it does not is blocked unless something more specific decides.
func TestRulesDoNotLiftWhatIsExempt(t *testing.T) {
	lockout := []RuleSet{parse(t, blockEverything, Persistent), parse(t, telnet, Dynamic)}
	exempt := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		base := spdtest.Policy().Draw(t, "policy")
		f := spdtest.Facts().Draw(t, "facts")
		f.Controllers = append(f.Controllers, netip.MustParseAddrPort("198.51.100.9:7443"))
		merged, err := Merge(base, lockout)
		if err != nil {
			t.Fatal(err)
		}
		before, err := spd.Expand(base, f)
		if err != nil {
			t.Fatal(err)
		}
		after, err := spd.Expand(merged, f)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			p := spdtest.Packet().Draw(t, "packet")
			direction := rapid.SampledFrom([]spd.Direction{spd.In, spd.Out}).Draw(t, "direction")
			switch rapid.IntRange(0, 6).Draw(t, "kind") {
			case 0:
				p.Protocol, p.Own = 50, true
			case 1:
				p.Protocol, p.SourcePort, p.DestinationPort, p.Own = 17, 500, 500, true
			case 2:
				p.Loopback = true
			case 3:
				p.Protocol, p.ICMPType = 58, 135
			case 4:
				p.Protocol, p.SourcePort, p.DestinationPort = 17, 68, 67
			case 5:
				p.Protocol, p.Destination, p.DestinationPort, direction = 6, netip.MustParseAddr("198.51.100.9"), 7443, spd.Out
			}
			was, is := before.Lookup(direction, p), after.Lookup(direction, p)
			if was.Exempt == "" {
				continue
			}
			exempt[was.Exempt]++
			if is.Exempt != was.Exempt || is.Action != was.Action {
				t.Fatalf("packet %+v was exempt as %q, and with rules it is %+v", p, was.Exempt, is)
			}
		}
	})
	if len(exempt) < 4 {
		t.Errorf("exempt were %v: too few to show anything", exempt)
	}
}

func TestMergeDecidesByWeightAndLeavesTheBaseAlone(t *testing.T) {
	base, err := LoadPolicy(write(t, strings.ReplaceAll(blockEverything, "lockout", "base")), "")
	if err != nil {
		t.Fatal(err)
	}
	before := len(base.Rest.Rules)
	merged, err := Merge(base.Rest, []RuleSet{parse(t, telnet, Dynamic), parse(t, blockEverything, Persistent)})
	if err != nil {
		t.Fatal(err)
	}
	if len(base.Rest.Rules) != before || len(merged.Rules) != before+2 {
		t.Errorf("the base has %d rules, all together %d", len(base.Rest.Rules), len(merged.Rules))
	}
	me := netip.MustParseAddr("192.0.2.1")
	set, err := spd.Expand(merged, spd.Facts{Addresses: []netip.Addr{me}})
	if err != nil {
		t.Fatal(err)
	}
	packet := spd.Packet{Source: me, Destination: netip.MustParseAddr("192.0.2.7"), Protocol: 6, SourcePort: 1024, DestinationPort: 23}
	if v := set.Lookup(spd.Out, packet); v.Filter == nil || v.Action != spd.ActionPermit || v.Filter.RuleID != "dynamic:telnet/Out" {
		t.Errorf("telnet: %+v, wanted the dynamic rule to permit", v)
	}
	packet.DestinationPort = 24
	if v := set.Lookup(spd.Out, packet); v.Filter == nil || v.Action != spd.ActionBlock {
		t.Errorf("beside telnet: %+v, wanted block", v)
	}
}

// Rules that negotiate do so also beside a policy that does not.
func TestRulesBringWhatTheyNegotiateWith(t *testing.T) {
	text := strings.NewReplacer("action: permit", "action: negotiate\noffers: [\"ESP[AES-GCM-256]\"]").Replace(telnet)
	merged, err := Merge(spd.Policy{Name: policies.NoneName}, []RuleSet{parse(t, text, Dynamic)})
	if err != nil || len(merged.KeyExchange.Offers) == 0 || merged.Name != policies.NoneName {
		t.Errorf("merged is %+v, error %v", merged, err)
	}
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "local.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadPolicy(t *testing.T) {
	p, err := LoadPolicy(write(t, telnet), "")
	if err != nil || p.Name != "telnet" || len(p.Rest.Rules) != 1 {
		t.Errorf("%+v, %v", p, err)
	}
	// A predefined policy by its name, the file being about something else.
	if p, err = LoadPolicy(write(t, "# nothing of its own\n"), "Client (Respond Only)"); err != nil || !p.Rest.DefaultResponse.Active {
		t.Errorf("%+v, %v", p, err)
	}
	path := write(t, strings.Replace(telnet, "action: permit", "action: pormit", 1))
	if _, err := LoadPolicy(path, ""); err == nil || !strings.Contains(err.Error(), path+":9:9: ") {
		t.Errorf("a mistake: %v, wanted its place", err)
	}
	if _, err := LoadPolicy(write(t, telnet+"---\n"+strings.ReplaceAll(telnet, "elnet", "elnet2")), ""); !errors.Is(err, ErrRules) {
		t.Errorf("two policies and no name: %v", err)
	}
	if _, err := LoadPolicy(filepath.Join(t.TempDir(), "none"), ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestPersistentRulesAreKept(t *testing.T) {
	dir := t.TempDir()
	r, err := OpenRules(dir)
	if err != nil || r.Known() {
		t.Fatalf("nothing yet: known %v, %v", r.Known(), err)
	}
	if r, err = r.With(parse(t, telnet, Persistent)); err != nil {
		t.Fatal(err)
	}
	both, err := r.With(parse(t, blockEverything, Dynamic))
	if err != nil || len(r.Sets()) != 1 || len(both.Sets()) != 2 {
		t.Fatalf("%d and %d sets, error %v", len(r.Sets()), len(both.Sets()), err)
	}
	if _, err := both.With(parse(t, telnet, Dynamic)); !errors.Is(err, ErrRules) || !strings.Contains(err.Error(), "already (persistent)") {
		t.Errorf("the same name again: %v", err)
	}
	if err := both.Save(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, rulesFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	again, err := OpenRules(dir)
	if err != nil || len(again.Sets()) != 1 || again.Sets()[0].Name != "telnet" || again.Sets()[0].Kind != Persistent {
		t.Fatalf("after a restart: %+v, %v", again.Sets(), err)
	}
	if _, err := again.Without("lockout"); !errors.Is(err, ErrRules) {
		t.Errorf("deleting what is not there: %v", err)
	}
	if again, err = again.Without("telnet"); err != nil || len(again.Sets()) != 0 {
		t.Fatal(err)
	}
	if err := again.Save(); err != nil {
		t.Fatal(err)
	}
	if again, err = OpenRules(dir); err != nil || len(again.Sets()) != 0 || !again.Known() {
		t.Errorf("after the last one went: %d sets, known %v, %v", len(again.Sets()), again.Known(), err)
	}
	for name, content := range map[string]string{
		"not JSON": "rules", "not valid": `[{"file":"own.yaml","text":"kind: Polcy"}]`, "cut": `[{"file":"own`,
		"twice": `[{"file":"a","text":` + quote(telnet) + `},{"file":"b","text":` + quote(telnet) + `}]`,
	} {
		if err := os.WriteFile(filepath.Join(dir, rulesFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenRules(dir); err == nil || !strings.Contains(err.Error(), rulesFile) {
			t.Errorf("%s: %v, wanted an error with the file's name", name, err)
		}
	}
}

func quote(s string) string { return `"` + strings.NewReplacer("\n", `\n`, `"`, `\"`).Replace(s) + `"` }

func FuzzParseStored(f *testing.F) {
	f.Add([]byte(`[{"file":"a","text":` + quote(telnet) + `}]`))
	f.Add([]byte(`[{"file":"a","text":` + quote(blockEverything) + `}]`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, content []byte) {
		sets, err := parseStored(content)
		if err == nil {
			_, err = Merge(spd.Policy{Name: policies.NoneName}, sets)
			if err != nil {
				t.Errorf("rules that were accepted cannot stand beside no policy: %v", err)
			}
		}
	})
}
