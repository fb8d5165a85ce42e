package predefined

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Every template applies beside the predefined documents and every other template, without an error.
func TestTemplatesAreValid(t *testing.T) {
	all := Documents()
	for _, template := range Templates() {
		d, err := policies.Decode(template.Name, template.Text)
		if err != nil {
			t.Fatal(err)
		}
		if template.Summary == "" || len(d.All()) == 0 || !strings.HasPrefix(string(template.Text), "# ") {
			t.Errorf("%s: summary %q, %d documents", template.Name, template.Summary, len(d.All()))
		}
		all = all.Merge(d)
	}
	for _, f := range policies.Validate(all) {
		if f.Severity == policies.Error || f.Code != policies.CodeIntegrity { // level low says so
			t.Error(f)
		}
	}
	if len(all.Policies) != 9 {
		t.Errorf("there are %d policies", len(all.Policies))
	}
}

// What the policies of the templates do with a packet, and what they would do with a clear one and a silent peer.
func TestTemplatesDoWhatTheySay(t *testing.T) {
	docs := Documents()
	for _, template := range Templates() {
		d, err := policies.Decode(template.Name, template.Text)
		if err != nil {
			t.Fatal(err)
		}
		docs = docs.Merge(d)
	}
	me, peer, dns := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.9"), netip.MustParseAddr("10.1.0.53")
	facts := spd.Facts{
		Addresses: []netip.Addr{me}, DNSServers: []netip.Addr{dns},
		Names: map[string][]netip.Addr{"clock.bank.example": {netip.MustParseAddr("10.9.9.9")}},
	}
	to := func(a netip.Addr, protocol uint8, port uint16) spd.Packet {
		return spd.Packet{Source: me, Destination: a, Protocol: protocol, SourcePort: 40000, DestinationPort: port}
	}
	got := ""
	for _, name := range []string{"Domain Isolation", "Isolation Boundary", "Server Isolation", "Authentication Exemption", "Gateway A", "Gateway B"} {
		p, err := docs.Effective(name)
		if err != nil {
			t.Fatal(err)
		}
		set, err := spd.Expand(p, facts)
		if err != nil {
			t.Fatal(err)
		}
		show := func(k spd.Packet) string {
			m := set.Lookup(spd.Out, k)
			text := m.Action.String()
			if m.Rule == nil {
				return text
			}
			if m.Rule.Action.Inpass {
				text += " inpass"
			}
			if m.Rule.Action.Fallback.Mode != spd.FallbackNone {
				text += " " + m.Rule.Action.Fallback.Mode.String()
			}
			if len(m.Rule.PeerGroups) > 0 {
				text += " group"
			}
			if m.Rule.Tunnel.IsValid() {
				text += " tunnel"
			}
			return text
		}
		got += fmt.Sprintf("%-25s| %-22s| %-8s| %-7s| %s\n", name, show(to(peer, 6, 445)), show(to(dns, 17, 53)), show(to(peer, 1, 0)),
			show(to(netip.MustParseAddr("10.9.9.9"), 17, 123)))
	}
	want := `
Domain Isolation         | negotiate wait        | permit  | permit | negotiate wait
Isolation Boundary       | negotiate inpass wait | permit  | permit | negotiate inpass wait
Server Isolation         | negotiate group       | permit  | negotiate group| negotiate group
Authentication Exemption | permit                | permit  | permit | permit
Gateway A                | negotiate tunnel      | permit  | negotiate tunnel| permit
Gateway B                | permit                | permit  | permit | permit
`
	if got != want[1:] {
		t.Errorf("policy | TCP to a peer | DNS | ping | clock\ngot\n%swant%s", got, want)
	}
}

func TestLevelsFindAnOffer(t *testing.T) {
	for own := proposal.LevelLow; own <= proposal.LevelHigh; own++ {
		for theirs := proposal.LevelLow; theirs <= proposal.LevelHigh; theirs++ {
			common := ""
			for _, o := range own.Offers() {
				for _, p := range theirs.Offers() {
					if common == "" && o == p {
						common = o.String()
					}
				}
			}
			want := "ESP[AES-GCM-256]"
			if own == proposal.LevelLow && theirs == proposal.LevelLow {
				want = "ESP[AES-GMAC-256]"
			}
			if common != want {
				t.Errorf("%s to %s chooses %q, want %q", own, theirs, common, want)
			}
		}
	}
}
