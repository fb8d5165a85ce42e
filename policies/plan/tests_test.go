package plan

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

func run(t *testing.T, w World) []TestResult {
	t.Helper()
	results, err := Test(w)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

func TestAssertions(t *testing.T) {
	directory := town(t, "ou=ws", "ou=srv", "ou=sec", "ou=empty", "ws1 in ou=ws", "ws2 in ou=ws", "files1 in ou=srv", "sql1 in ou=sec", "sql2 in ou=sec",
		"gone in ou=ws!", "old1 in ", "desks of ws1 ws2", "none of ")
	for assertion, want := range map[string]string{
		"from: {machine: ws1}, to: {machine: sql1}, traffic: tcp/1433, is: ipsec":                       "holds",
		"from: {machine: WS1.X}, to: {machine: 'cn=sql1,ou=sec,dc=x'}, traffic: tcp/1, is: ipsec":       "holds",
		"from: {group: 'cn=desks,dc=x'}, to: {container: 'ou=sec,dc=x'}, traffic: udp, is: ipsec":       "holds",
		"from: {container: 'dc=x'}, to: {container: 'dc=x'}, traffic: icmp, is: clear":                  "holds",
		"from: {machine: ws1}, to: {machine: ws2}, is: clear":                                           "holds",
		"from: {machine: ws1}, to: {machine: files1}, is: [clear, ipsec]":                               "holds",
		"from: {machine: ws1}, to: {machine: files1}, is: ipsec":                                        "fails: ws1 to files1 icmp is clear (1)",
		"from: {policy: none}, to: {machine: sql1}, traffic: tcp, is: blocked":                          "holds",
		"from: {container: 'ou=ws,dc=x'}, to: {container: 'ou=sec,dc=x'}, traffic: tcp/22, is: clear":   "fails: ws1 to sql2 tcp/22 is ipsec (4)",
		"from: {machine: ws1}, to: {machine: sql1}, traffic: tcp, is: ipsec, offer: 'ESP[AES-GCM-256]'": "holds",
		"from: {machine: ws1}, to: {machine: sql1}, traffic: tcp, is: ipsec, offer: 'ESP[AES-GCM-128]'": "fails: ws1 to sql1 other tcp is ipsec (1)",
		"from: {machine: ws9}, to: {machine: sql1}, is: ipsec":                                          `void: there is no machine "ws9" in the directory`,
		"from: {machine: ws1}, to: {machine: ws1}, is: ipsec":                                           "void: both sides are the same machine",
		"from: {machine: gone}, to: {machine: ws1}, is: ipsec":                                          "void: machine gone has no machines with an enabled account",
		"from: {container: 'ou=empty,dc=x'}, to: {machine: ws1}, is: ipsec":                             "void: container ou=empty,dc=x has no machines with an enabled account",
		"from: {container: 'ou=nowhere,dc=x'}, to: {machine: ws1}, is: ipsec":                           `void: there is no container "ou=nowhere,dc=x" in the directory`,
		"from: {group: 'cn=nobody,dc=x'}, to: {machine: ws1}, is: ipsec":                                `void: there is no group "cn=nobody,dc=x" in the directory`,
		"from: {group: 'cn=none,dc=x'}, to: {machine: ws1}, is: ipsec":                                  "void: group cn=none,dc=x has no machines with an enabled account",
	} {
		t.Run(assertion, func(t *testing.T) {
			text := bankLinks() + "---\napiVersion: bailiwick.net/v1alpha1\nkind: PolicyTest\nname: T\nassertions:\n  - {" + assertion + "}\n"
			got := run(t, World{Documents: docs(t, text), Directory: directory})
			if len(got) != 1 || got[0].Test != "T" || got[0].Number != 1 {
				t.Fatalf("got %v", got)
			}
			r, text := got[0], got[0].State.String()
			switch r.State {
			case TestFails:
				text += fmt.Sprintf(": %s to %s %s is %s (%d)", r.Client, r.Server, r.Traffic, r.Found, r.Pairs)
			case TestVoid:
				text += ": " + r.Why
			case TestHolds:
			}
			if text != want {
				t.Errorf("got  %s (%s)\nwant %s", text, r, want)
			}
		})
	}
}

// The examples of PLANNING.md hold in the Bank that they are about.
func TestDocumentedTestsHold(t *testing.T) {
	page, err := os.ReadFile("../PLANNING.md")
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(page), "```yaml\n")
	if len(parts) < 2 {
		t.Fatal("the page has no example")
	}
	bank := town(t, "ou=Workstations", "ou=Servers", "ou=SecureServers", "ws1 in ou=Workstations", "ws2 in ou=Workstations", "files1 in ou=Servers", "sql1 in ou=SecureServers")
	links := link(client, "ou=Workstations,dc=x", 1) + link(server, "ou=Servers,dc=x", 1) + link(secure, "ou=SecureServers,dc=x", 1)
	for _, part := range parts[1:] {
		example, _, _ := strings.Cut(part, "```")
		results := run(t, World{Documents: docs(t, links+"---\n"+strings.ReplaceAll(example, "dc=bank,dc=example", "dc=x")), Directory: bank})
		if len(results) == 0 {
			t.Errorf("nothing is tested by\n%s", example)
		}
		for _, r := range results {
			if r.State != TestHolds {
				t.Error(r)
			}
		}
	}
}

func TestControllerThatIsCutOffByItsOwnPolicy(t *testing.T) {
	const strict = `---
apiVersion: bailiwick.net/v1alpha1
kind: FilterAction
name: nothing in clear
action: negotiate
offers: ["ESP[AES-GCM-256]"]
---
apiVersion: bailiwick.net/v1alpha1
kind: Policy
name: strict
rules: [{name: all, filterList: All IP Traffic, filterAction: nothing in clear}]
`
	directory := town(t, "ou=ws", "ou=ctl", "ws1 in ou=ws", "ctl1 in ou=ctl")
	before := World{Documents: docs(t, strings.TrimPrefix(strict, "---\n")), Directory: directory}
	after := World{Documents: docs(t, strings.TrimPrefix(strict, "---\n")+link("strict", "ou=ctl,dc=x", 1)), Directory: directory}
	controller := Service{Name: "controller", Host: "ctl1.x", Exempt: true, Traffic: policies.Traffic{Protocol: spd.ProtocolTCP, Ports: spd.PortRange{From: 7443, To: 7443}}}
	p, err := Compare(before, after, []Service{controller})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Services) != 1 || p.Services[0].Witness != "ws1" || p.Services[0].Service != "controller tcp/7443" || !p.Services[0].CutOff() {
		t.Errorf("got %v, wanted ws1 cut off from the controller", p.Services)
	}
}

func TestServicesOfTheDirectoryAreKnownByTheirAddress(t *testing.T) {
	s := Service{Name: "directory", Address: netip.MustParseAddr("10.0.0.9"), Traffic: policies.Traffic{Protocol: spd.ProtocolTCP, Ports: spd.PortRange{From: 636, To: 636}}}
	const text = `apiVersion: bailiwick.net/v1alpha1
kind: FilterList
name: servers
filters: [{source: me, destination: 10.0.0.0/24, protocol: tcp}]
---
apiVersion: bailiwick.net/v1alpha1
kind: FilterAction
name: drop
action: block
---
apiVersion: bailiwick.net/v1alpha1
kind: Policy
name: cut
rules: [{name: servers, filterList: servers, filterAction: drop}]
`
	directory := town(t, "ou=ws", "ws1 in ou=ws", "ws2 in ou=ws")
	p, err := Compare(World{Documents: docs(t, text), Directory: directory}, World{Documents: docs(t, text+link("cut", "ou=ws,dc=x", 1)), Directory: directory}, append(DNS(), s))
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Services) != 1 || p.Services[0].Machines != 2 || p.Services[0].Service != "directory tcp/636" || p.Services[0].Before != policies.OutcomeClear || !p.Services[0].CutOff() {
		t.Errorf("got %v, wanted both machines cut off from the directory and not from DNS", p.Services)
	}
}

func TestLeavingMachinesAreRefused(t *testing.T) {
	d := docs(t, bankLinks())
	before := World{Documents: d, Directory: bankTown(t)}
	after := World{Documents: d, Directory: town(t, "ou=ws", "ou=srv", "ou=sec", "ou=attic", "ws1 in ou=ws", "files1 in ou=srv", "files2 in ou=srv!", "sql1 in ou=sec", "sql2 in ou=sec", "old1 in ou=attic", "new1 in ou=ws")}
	wantPlan(t, compare(t, before, after), `
ws2: Client (Respond Only) (ou=ws,dc=x) => not in the directory ()
new1: not in the directory => Client (Respond Only) (ou=ws,dc=x) (it is the only link that applies)
files2 is disabled
ws2 is removed
`)
}

func TestPlanIDs(t *testing.T) {
	world := World{Documents: docs(t, bankLinks()), Directory: bankTown(t)}
	next := World{Documents: docs(t, bankLinks()+link(client, "ou=attic,dc=x", 1)), Directory: world.Directory}
	p := compare(t, world, next)
	one, two := [32]byte{1}, [32]byte{2}
	id := p.Identify(one, one, one)
	for what, other := range map[string]ID{
		"documents": p.Identify(two, one, one), "directory": p.Identify(one, two, one), "edit": p.Identify(one, one, two),
		"result": compare(t, world, world).Identify(one, one, one),
	} {
		if other == id {
			t.Errorf("plans with another %s have the same ID", what)
		}
	}
	if back, err := ParseID(id.String()); err != nil || back != id {
		t.Errorf("%s reads back as %s: %v", id, back, err)
	}
	for _, bad := range []string{"", "00", strings.Repeat("g", 32), id.String() + "00"} {
		if _, err := ParseID(bad); err == nil {
			t.Errorf("%q names a plan", bad)
		}
	}
}

func TestLabels(t *testing.T) {
	kinds := distinguish(nil, policies.Traffic{Protocol: spd.ProtocolTCP, Ports: spd.PortRange{From: 80, To: 81}}, policies.Traffic{Protocol: spd.ProtocolICMP})
	var all []string
	for _, k := range kinds {
		all = append(all, k.String())
	}
	if got := strings.Join(all, ", "); got != "icmp, tcp/80-81, other tcp, everything else" {
		t.Fatalf("the kinds are %s", got)
	}
	every := []bool{true, true, true, true}
	for want, in := range map[string][]bool{
		"all traffic": every, "icmp": {true, false, false, false}, "except icmp": {false, true, true, true},
		"tcp/80-81, other tcp": {false, true, true, false}, "except icmp, except other tcp": {false, true, false, true},
	} {
		if got := strings.Join(label(kinds, every, in), ", "); got != want {
			t.Errorf("%v reads %s, wanted %s", in, got, want)
		}
	}
	if got := strings.Join(label(kinds, []bool{false, true, true, true}, []bool{false, true, true, true}), ", "); got != "all traffic" {
		t.Errorf("what was not judged is left out: %s", got)
	}
}
