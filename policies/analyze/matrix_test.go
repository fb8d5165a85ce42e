package analyze_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/analyze"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

var addresses = [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}

// predefinedEnd is a machine with one of the policies that are there from the start; "none" is one without the daemon.
func predefinedEnd(t *testing.T, name, policy string, side int) analyze.End {
	t.Helper()
	e := analyze.End{Name: name, Identity: "fqdn:" + name}
	if policy == "none" {
		return e
	}
	docs := predefined.Documents()
	for _, p := range docs.Policies {
		if strings.HasPrefix(p.Name, policy+" (") {
			return end(t, e, docs, p.Name, side)
		}
	}
	t.Fatalf("there is no predefined policy %q", policy)
	return e
}

func end(t testing.TB, e analyze.End, docs policies.Documents, policy string, side int) analyze.End {
	t.Helper()
	effective, err := docs.Effective(policy)
	if err != nil {
		t.Fatal(err)
	}
	set, err := spd.Expand(effective, spd.Facts{Addresses: []netip.Addr{addresses[side]}})
	if err != nil {
		t.Fatal(err)
	}
	e.Set, e.Node = set, true
	return e
}

func tcp(port uint16) spd.Packet {
	return spd.Packet{
		Source: addresses[0], Destination: addresses[1], Protocol: spd.ProtocolTCP, SourcePort: 40000, DestinationPort: port, Opens: true,
	}
}

// The interaction matrix of the three predefined policies: a row is the initiator, whose first packet is in clear.
func TestPredefinedPoliciesInteract(t *testing.T) {
	const want = `
initiator \ responder | none           | Client | Server         | Secure Server
none                  | clear          | clear  | clear, fallback | blocked
Client                | clear          | clear  | IPsec          | IPsec
Server                | clear, fallback | IPsec  | IPsec          | IPsec
Secure Server         | blocked        | IPsec  | IPsec          | IPsec`
	classes := []string{"none", "Client", "Server", "Secure Server"}
	cells := map[analyze.Result]string{analyze.Clear: "clear", analyze.Fallback: "clear, fallback", analyze.IPsec: "IPsec", analyze.Blocked: "blocked"}
	rows := []string{`initiator \ responder | ` + strings.Join(classes, " | ")}
	for _, a := range classes {
		row := []string{a}
		for _, b := range classes {
			o := analyze.Flow(predefinedEnd(t, "a.example", a, 0), predefinedEnd(t, "b.example", b, 1), tcp(443))
			row = append(row, cells[o.Result])
			if o.Sentence == "" || o.Code == "" {
				t.Errorf("%s to %s: no reason is given", a, b)
			}
			ping := spd.Packet{Source: addresses[0], Destination: addresses[1], Protocol: spd.ProtocolICMP, ICMPType: 8}
			if o := analyze.Flow(predefinedEnd(t, "a.example", a, 0), predefinedEnd(t, "b.example", b, 1), ping); o.Result != analyze.Clear {
				t.Errorf("%s to %s: ICMP is permitted by each of them, and comes to %s: %s", a, b, o.Result, o.Sentence)
			}
		}
		rows = append(rows, strings.Join(row, " | "))
	}
	t.Logf("\n%s", strings.Join(rows, "\n"))
	if got := squeeze(strings.Join(rows, "\n")); got != squeeze(want) {
		t.Errorf("got\n%s\nwant\n%s", got, squeeze(want))
	}
}

func squeeze(s string) string {
	var lines []string
	for l := range strings.Lines(strings.TrimSpace(s)) {
		lines = append(lines, strings.Join(strings.Fields(l), " "))
	}
	return strings.Join(lines, "\n")
}

// What happens to the first packets, where it is not what happens to the later ones.
func TestTheFirstPacketsOfTheMatrix(t *testing.T) {
	for _, test := range []struct {
		from, to string
		want     string
	}{
		{"Client", "Server", "clear accepted-in-clear, ipsec protected, ipsec protected, ipsec protected"},
		{"Server", "none", "fallback fallback-silent, clear accepted-in-clear, fallback fallback-silent, clear accepted-in-clear"},
		{"none", "Server", "clear accepted-in-clear, fallback fallback-silent, clear accepted-in-clear, fallback fallback-silent"},
		{"none", "Secure Server", "clear accepted-in-clear, blocked peer-silent, clear accepted-in-clear, blocked peer-silent"},
		{"Secure Server", "none", "blocked peer-silent, blocked no-request, blocked peer-silent, blocked no-request"},
	} {
		o := analyze.Flow(predefinedEnd(t, "a.example", test.from, 0), predefinedEnd(t, "b.example", test.to, 1), tcp(443))
		var got []string
		for _, s := range o.Steps() {
			got = append(got, fmt.Sprintf("%s %s", s.Result, s.Code))
		}
		if have := strings.Join(got, ", "); have != test.want {
			t.Errorf("%s to %s: got %s, want %s", test.from, test.to, have, test.want)
		}
	}
}
