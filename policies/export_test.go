package policies_test

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
	"github.com/bailiwick-net/bailiwick/policies/spd/spdtest"
)

// compare shows what differs beside the places.
func compare(a, b policies.Documents) string {
	return gocmp.Diff(a, b, cmpopts.IgnoreFields(policies.Meta{}, "At"), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}),
		cmpopts.EquateEmpty(), gocmp.Comparer(func(a, b directory.DN) bool { return a.String() == b.String() }))
}

func TestExportOfPredefinedReadsBack(t *testing.T) {
	d := predefined.Documents()
	text := d.Export()
	again, err := policies.Decode("export", text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := compare(d, again); diff != "" {
		t.Errorf("the export is another document:\n%s", diff)
	}
	if !bytes.Equal(text, again.Export()) {
		t.Error("the export of the export differs")
	}
}

func nameGen() *rapid.Generator[string] {
	odd := []string{
		"true", "No", "null", "~", "1", "1.5", "0x10", "1e3", "- a", "a: b", "a #b", "#", "'", `"`, `\`, "*a", "&a", "!a", "{a}", "[a]", "a,b",
		"%a", "@a", "`a", "é", "日本", "\U0001F512", "---", "...", "?", "a:", "12:30:45", "2026-11-21", "<<", "=", ".inf", "|", ">",
	}
	return rapid.OneOf(rapid.SampledFrom(odd), rapid.StringMatching(`[A-Za-z0-9]([ -~]{0,10}[A-Za-z0-9])?`))
}

func documents() *rapid.Generator[policies.Documents] {
	return rapid.Custom(func(t *rapid.T) policies.Documents {
		name := func() string { return nameGen().Draw(t, "name") }
		flag := func() bool { return rapid.Bool().Draw(t, "flag") }
		description := func() string {
			return rapid.OneOf(rapid.Just(""), nameGen(), rapid.SampledFrom([]string{"two\nlines", " padded ", "tab\there", "ends\n", "\n\n", "a\\nb"})).Draw(t, "description")
		}
		meta := func() policies.Meta { return policies.Meta{Name: name(), Description: description()} }
		duration := func() time.Duration {
			return rapid.SampledFrom([]time.Duration{0, time.Millisecond, 90 * time.Second, 8 * time.Hour}).Draw(t, "duration")
		}
		dn := func() directory.DN {
			d, err := directory.MustParseDN("DC=bank,DC=example").Child("OU", name())
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		offers := func() []policies.Offer {
			return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) policies.Offer {
				return policies.Offer{ESP: spdtest.ESP().Draw(t, "offer"), Life: proposal.Life{Kilobytes: rapid.Uint64Range(0, 1e6).Draw(t, "k")}}
			}), 0, 3).Draw(t, "offers")
		}
		ports := func() []uint16 { return rapid.SliceOfN(rapid.Uint16Range(1, 65535), 0, 3).Draw(t, "ports") }
		source := spdtest.Policy().Draw(t, "policy")
		var d policies.Documents
		p := policies.Policy{Meta: meta(), Exemptions: policies.Exemptions{
			Multicast: flag(), Broadcast: flag(), Kerberos: flag(), RSVP: flag(), ICMP: flag(),
			Level: policies.ExemptionLevel(rapid.Uint8Range(0, 3).Draw(t, "level")), BreakGlassTCP: ports()}}
		p.KeyExchange = policies.KeyExchange{Offers: source.KeyExchange.Offers, Lifetime: duration(), Childless: source.KeyExchange.Childless,
			Mobility: source.KeyExchange.Mobility, Transcript: source.KeyExchange.Transcript, Revocation: source.KeyExchange.Revocation, Reauthentication: duration(),
			AnnounceAuthentication: flag()}
		p.DefaultResponse = policies.DefaultResponse{Active: flag(), Offers: offers(), PFS: flag(), Idle: duration()}
		for _, r := range source.Rules {
			rule := policies.Rule{
				Meta: meta(), Disabled: flag(), FilterList: name(), FilterAction: name(), Authentication: r.Auth, Interfaces: r.Interfaces,
				Tunnel: policies.Tunnel{Remote: r.Tunnel, Local: r.TunnelLocal},
			}
			for i := range rule.Authentication {
				if rule.Authentication[i].Method == spd.AuthPSK {
					rule.Authentication[i].Secret = name()
				}
				if rule.Authentication[i].PPK != "" {
					rule.Authentication[i].PPK = name()
				}
			}
			p.Rules = append(p.Rules, rule)
			l := policies.FilterList{Meta: meta()}
			for _, f := range r.Filters {
				l.Filters = append(l.Filters, policies.Filter{
					Meta: meta(), Source: f.Source, Destination: f.Destination, Protocol: rapid.Uint8().Draw(t, "protocol"),
					SourcePort: f.SourcePort, DestinationPort: f.DestinationPort, Mirrored: f.Mirrored,
				})
			}
			d.FilterLists = append(d.FilterLists, l)
			d.FilterActions = append(d.FilterActions, policies.FilterAction{
				Meta: meta(), Action: r.Action.Action, Inpass: flag(), Level: proposal.Level(rapid.Uint8Range(0, 3).Draw(t, "level")), Fallback: r.Action.Fallback, Offers: offers(), PFS: flag(), Associations: r.Action.Associations,
			})
		}
		d.Policies = append(d.Policies, p)
		d.Links = append(d.Links, policies.Link{
			Meta: meta(), Policy: name(), Container: dn(), Order: rapid.IntRange(1, 1000).Draw(t, "order"), Enforced: flag(), Disabled: flag(),
			Apply: []directory.DN{dn()}, Deny: []directory.DN{dn(), dn()},
		})
		d.Containers = append(d.Containers, policies.Container{Meta: policies.Meta{Description: description()}, DN: dn(), BlockInheritance: flag()})
		d.Sites = append(d.Sites, policies.Site{Meta: meta(), Subnets: []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, rapid.Byte().Draw(t, "octet")}), rapid.IntRange(0, 32).Draw(t, "bits")).Masked(),
			netip.MustParsePrefix("2001:db8::/32"),
		}})
		d.Settings = append(d.Settings, policies.Settings{BreakGlassTCP: ports(), BlockApply: policies.BlockApply(rapid.Uint8Range(0, 2).Draw(t, "block"))})
		d.PolicyTests = append(d.PolicyTests, policyTestGen().Draw(t, "test"))
		return d
	})
}

func TestExportRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := documents().Draw(t, "documents")
		got, err := policies.Decode("export", want.Export())
		if err != nil {
			t.Fatalf("%v\nin\n%s", err, want.Export())
		}
		if diff := compare(want, got); diff != "" {
			t.Fatalf("the documents changed on their way:\n%s\nin\n%s", diff, want.Export())
		}
	})
}

func TestKeysAndKinds(t *testing.T) {
	base := directory.MustParseDN("OU=A,DC=x")
	for want, d := range map[string]policies.Document{
		"Policy P":            policies.Policy{Meta: policies.Meta{Name: "P"}},
		"FilterList L":        policies.FilterList{Meta: policies.Meta{Name: "L"}},
		"FilterAction A":      policies.FilterAction{Meta: policies.Meta{Name: "A"}},
		"Link P -> ou=a,dc=x": policies.Link{Policy: "P", Container: base},
		"Link second":         policies.Link{Meta: policies.Meta{Name: "second"}, Policy: "P", Container: base},
		"Container ou=a,dc=x": policies.Container{DN: base},
		"Site S":              policies.Site{Meta: policies.Meta{Name: "S"}},
		"Settings fleet":      policies.Settings{},
		"PolicyTest T":        policies.PolicyTest{Meta: policies.Meta{Name: "T"}},
	} {
		if got := string(d.Kind()) + " " + d.Key(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if text := string(policies.AppendYAML(nil, d)); !strings.HasPrefix(text, "apiVersion: bailiwick.net/v1alpha1\nkind: "+string(d.Kind())+"\n") {
			t.Errorf("%s is written as\n%s", want, text)
		}
	}
}

// TestBracketsInTexts: what is written reads back, however many brackets stand in names and comments.
func TestBracketsInTexts(t *testing.T) {
	for _, text := range []string{"{", "a [b", "[x] {y}", "{{{{{{{{", "]]]]", "}{", strings.Repeat("[", 300)} {
		f := policies.Filter{Meta: policies.Meta{Description: text}, Source: spd.Address{Kind: spd.AddressMe}, Mirrored: true}
		docs := policies.Documents{FilterLists: []policies.FilterList{{Meta: policies.Meta{Name: "list", Description: text}}}}
		for range 60 { // the reader counts through a whole document
			docs.FilterLists[0].Filters = append(docs.FilterLists[0].Filters, f)
		}
		again, err := policies.Decode("brackets", docs.Export())
		if err != nil {
			t.Errorf("texts %.20q do not read back: %v", text, err)
			continue
		}
		if diff := compare(docs, again); diff != "" {
			t.Errorf("texts %.20q read back otherwise: %s", text, diff)
		}
	}
}
