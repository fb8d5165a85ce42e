package policies_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

func bank(t testing.TB) policies.Documents {
	t.Helper()
	data, err := os.ReadFile("testdata/bank.yaml")
	if err != nil {
		t.Fatal(err)
	}
	d, err := policies.Decode("bank.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestEffectivePolicy(t *testing.T) {
	d := bank(t)
	if err := policies.Check(policies.Validate(d)); err != nil {
		t.Fatal(err)
	}
	p, err := d.Effective("Bank")
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Rules) != 2 || p.Rules[0].ID != "Chat" || p.Rules[1].ID != "Branch office" {
		t.Fatalf("got rules %+v; the inactive one must not be among them", p.Rules)
	}
	chat, branch := p.Rules[0], p.Rules[1]
	if chat.Filters[0].ID != "Chat/to chat servers" || !chat.Filters[0].Mirrored || chat.Filters[0].DestinationPort != (spd.PortRange{From: 6667, To: 6668}) {
		t.Errorf("got filter %+v", chat.Filters[0])
	}
	if f := chat.Filters[1]; f.Mirrored || f.Source.Kind != spd.AddressRange || f.SourcePort != (spd.PortRange{From: 161, To: 161}) {
		t.Errorf("got filter %+v", f)
	}
	if want := (spd.Fallback{Mode: spd.FallbackWait, Delay: time.Second, TTL: 10 * time.Minute}); chat.Action.Fallback != want || !chat.Action.Inpass {
		t.Errorf("got action %+v", chat.Action)
	}
	if want := (spd.Lifetime{Time: time.Hour, Bytes: 1000000 * 1024}); chat.Action.Lifetime != want {
		t.Errorf("got lifetime %+v, want %+v", chat.Action.Lifetime, want)
	}
	var offers []string
	for _, o := range chat.Action.Offers {
		offers = append(offers, o.String())
	}
	if got := strings.Join(offers, " "); got != "ESP[AES-GCM-256]-ecp384 ESP[AES-GCM-256]-x25519 ESP[AES-256,SHA256]-ecp384" {
		t.Errorf("with pfs every offer has its groups: got %s", got)
	}
	if len(chat.Auth) != 2 || chat.Auth[1].Secret != "chat" || chat.Auth[1].LocalID != "fqdn:alice.bank.example" || chat.Interfaces != spd.InterfacesLAN {
		t.Errorf("got authentication %+v on %s", chat.Auth, chat.Interfaces)
	}
	if branch.Tunnel.String() != "198.51.100.2" || branch.TunnelLocal.String() != "198.51.100.1" || branch.Action.PFS || branch.Auth[0].Method != spd.AuthCertificate {
		t.Errorf("got tunnel rule %+v", branch)
	}
	if r := p.DefaultResponse; !r.Active || len(r.Offers) != 6 || r.Idle != 10*time.Minute || len(r.Auth) != 1 {
		t.Errorf("got default response %+v", r)
	}
	if got := p.Exemptions.BreakGlassTCP; len(got) != 2 || got[0] != 22 || got[1] != 2222 {
		t.Errorf("got break-glass ports %v", got)
	}
	if p.KeyExchange.Lifetime != 4*time.Hour || len(p.KeyExchange.Offers) != 2 {
		t.Errorf("got key exchange %+v", p.KeyExchange)
	}
	if _, err := d.Effective("Nobody"); !errors.Is(err, policies.ErrReference) {
		t.Errorf("got %v, want %v", err, policies.ErrReference)
	}
}

func TestFilterOrderDoesNotChangeTheirIDs(t *testing.T) {
	d := bank(t)
	before, err := d.Effective("Bank")
	if err != nil {
		t.Fatal(err)
	}
	list := &d.FilterLists[0]
	list.Filters[0], list.Filters[1] = list.Filters[1], list.Filters[0]
	after, err := d.Effective("Bank")
	if err != nil {
		t.Fatal(err)
	}
	if before.Rules[0].Filters[1].ID != after.Rules[0].Filters[0].ID {
		t.Errorf("the filter is %s and then %s", before.Rules[0].Filters[1].ID, after.Rules[0].Filters[0].ID)
	}
}

const header = "apiVersion: bailiwick.net/v1alpha1\nkind: "

func TestValidate(t *testing.T) {
	const (
		list    = header + "FilterList\nname: L\nfilters: [{source: me, destination: any}]\n---\n"
		secure  = header + "FilterAction\nname: A\naction: negotiate\noffers: [\"ESP[AES-GCM-256]\"]\n---\n"
		permit  = header + "FilterAction\nname: A\naction: permit\n---\n"
		policy  = header + "Policy\nname: P\nrules: [{name: r, filterList: L, filterAction: A}]\n---\n"
		tunnel  = header + "Policy\nname: P\nrules: [{name: r, filterList: L, filterAction: A, tunnel: {remote: 192.0.2.1}}]\n---\n"
		minimal = header + "Policy\nname: P\ndefaultResponse: {active: true}\n---\n"
	)
	filters := func(s string) string { return header + "FilterList\nname: L\nfilters: [" + s + "]\n---\n" }
	action := func(s string) string { return header + "FilterAction\nname: A\n" + s + "\n---\n" }
	rule := func(s string) string {
		return header + "Policy\nname: P\nrules: [{name: r, filterList: L, filterAction: A, " + s + "}]\n"
	}
	link := func(s string) string { return header + "Link\npolicy: P\n" + s + "\n---\n" }
	for _, test := range []struct{ name, text, want string }{
		{"nothing wrong", list + secure + policy, ""},
		{"remote access", list + secure + rule("interfaces: remote-access"), ""},
		{"remote access, not active", list + secure + rule("interfaces: remote-access, active: false"), ""},
		{"a level", list + action("action: negotiate\nlevel: high") + policy, ""},
		{"a level and offers", list + action("action: negotiate\nlevel: high\noffers: [\"ESP[AES-GCM-128]\"]") + policy, `error offers: has level high and offers; the level stands for offers of its own, write one of the two
error offers: has offers of different lifetimes; an action has one`},
		{"a level of a permit", list + action("action: permit\nlevel: high") + policy, `error action: has action permit with inpass, fallback, level, offers, pfs or associations, which only negotiate has`},
		{"account mapping without a certificate", list + secure + rule("authentication: [{method: psk, secretRef: s, accountMapping: true}]"), `error authentication: authentication 1 of rule "r" is by preshared key, but has accountMapping or excludeCAName
warning preshared-key: rule "r" authenticates with a preshared key, which every holder can use in the name of every other`},
		{"no filter list", secure + policy, `error dangling: rule "r" names filter list "L", which does not exist`},
		{"a near name", strings.Replace(list, "name: L", "name: LL", 1) + secure + policy, `error dangling: rule "r" names filter list "L", which does not exist; did you mean "LL"?`},
		{"no filter action", list + policy, `error dangling: rule "r" names filter action "A", which does not exist`},
		{"no policy", link("container: DC=x\norder: 1"), `error dangling: links policy "P", which does not exist`},
		{"an empty list", filters("") + secure + policy, "error empty: has no filters\nerror policy: invalid policy \"P\": rule \"r\": has no filters"},
		{"an empty policy", header + "Policy\nname: P\n", `warning empty: has no rule and no default response, so it permits everything`},
		{"a list twice", list + list, `error duplicate: already stands at f:1:1, as "L"`},
		{"a policy twice, in other letters", minimal + strings.Replace(minimal, "name: P", "name: p", 1), `error duplicate: already stands at f:1:1, as "P"`},
		{"the reserved name", strings.Replace(minimal, "name: P", "name: None", 1), `error policy: has the name that means that a machine has no policy`},
		{"two rules of a name", list + secure + header + "Policy\nname: P\nrules: [{name: r, filterList: L, filterAction: A}, {name: R, filterList: L, filterAction: A}]\n", `error duplicate: has two rules named "R"`},
		{"a filter twice", filters("{source: me, destination: any}, {source: me, destination: any}"), `error duplicate: filter 2 says the same as another one`},
		{"a filter name twice", filters("{name: a, source: me, destination: any}, {name: a, source: any, destination: me}"), `error duplicate: filter 2 has the name of another one`},
		{"mixed families", filters("{source: 10.0.0.1, destination: 2001:db8::1}"), `error filter: source 10.0.0.1 and destination 2001:db8::1 are of different families`},
		{"ports without a protocol", filters("{source: me, destination: any, destinationPort: 80}"), `error filter: names ports with protocol any, which has none; name tcp, udp, udp-lite, sctp or dccp`},
		{"ports on a tunnel", filters("{source: me, destination: any, protocol: tcp, destinationPort: 80}") + secure + tunnel, `error tunnel: rule "r" is a tunnel, but filter 1 of "L" names a protocol or ports; tunnel filters are of addresses only`},
		{"a tunnel that permits", list + permit + tunnel, `error tunnel: rule "r" is a tunnel, but its action "A" does not negotiate`},
		{"a tunnel with fallback", list + action("action: negotiate\nfallback: wait\noffers: [\"ESP[AES-GCM-256]\"]") + tunnel, `error tunnel: rule "r" is a tunnel, but its action "A" lets clear traffic pass`},
		{"negotiate on multicast", filters("{source: me, destination: 224.0.0.251}") + secure + policy, `error multicast: rule "r" negotiates with 224.0.0.251 of filter list "L"; IKE cannot negotiate with multicast or broadcast`},
		{"negotiate on multicast of IPv6", filters("{source: me, destination: ff02::/16}") + secure + policy, `error multicast: rule "r" negotiates with ff02::/16 of filter list "L"; IKE cannot negotiate with multicast or broadcast`},
		{"block on multicast", filters("{source: me, destination: 224.0.0.0/4}") + action("action: block") + policy, ""},
		{"no offers", list + action("action: negotiate"), `error offers: negotiates without a level and without an offer; the usual offers are ESP[AES-GCM-256], ESP[AES-GCM-128], ESP[AES-256,SHA256]`},
		{"offers of a permit", action("action: permit\noffers: [\"ESP[AES-GCM-256]\"]"), `error action: has action permit with inpass, fallback, level, offers, pfs or associations, which only negotiate has`},
		{"offers that differ in life", action("action: negotiate\noffers: [\"ESP[AES-GCM-256]:60s\", \"ESP[AES-GCM-128]\"]"), `error offers: has offers of different lifetimes; an action has one`},
		{"an offer twice", action("action: negotiate\noffers: [\"ESP[AES-GCM-256]\", \"ESP[AES-GCM-256]\"]"), `error offers: offers ESP[AES-GCM-256] twice`},
		{"a group without pfs", action("action: negotiate\noffers: [\"ESP[AES-GCM-256]-x25519\"]"), `error offers: offers ESP[AES-GCM-256]-x25519 with a group, but without pfs`},
		{"GMAC", action("action: negotiate\noffers: [\"ESP[AES-GMAC-128]\"]"), `warning integrity-only: offers ESP[AES-GMAC-128], which protects against change and hides nothing`},
		{"integrity alone", action("action: negotiate\noffers: [\"ESP[None,SHA256]\"]"), `warning integrity-only: offers ESP[None,SHA256], which protects against change and hides nothing`},
		{"a delay for discover", action("action: negotiate\nfallback: {mode: discover, delay: 3s}\noffers: [\"ESP[AES-GCM-256]\"]"), `error action: has fallback discover with a delay or ttl that it does not have`},
		{"authentication of a permit", list + permit + rule("authentication: [{method: certificate}]"), `error authentication: rule "r" authenticates, but its action "A" does not negotiate`},
		{"a preshared key without a secret", list + secure + rule("authentication: [{method: psk}]"), "error authentication: authentication 1 of rule \"r\" is by preshared key, but has no secretRef\nwarning preshared-key: rule \"r\" authenticates with a preshared key, which every holder can use in the name of every other"},
		{"a certificate with a secret", list + secure + rule("authentication: [{method: certificate, secretRef: s}]"), `error authentication: authentication 1 of rule "r" is by certificate, but names a secret`},
		{"an inactive default response with settings", header + "Policy\nname: P\ndefaultResponse: {active: false, pfs: true}\n", "warning empty: has no rule and no default response, so it permits everything\nerror action: has settings for a default response that is not active"},
		{"a weak group", header + "Policy\nname: P\ndefaultResponse: {active: true}\nkeyExchange: {offers: [AES256-SHA256-modp2048]}\n", `warning weak: offers AES256-SHA256-modp2048, which has a strength of 112 bits`},
		{"a first message too large for one packet", header + "Policy\nname: P\ndefaultResponse: {active: true}\nkeyExchange: {offers: [AES-GCM-256-SHA384-ML-KEM-1024, AES-GCM-256-SHA384-x25519+mlkem1024]}\n", `warning offers: offers AES-GCM-256-SHA384-mlkem1024, whose first message is too large for one packet; as x25519+mlkem1024 it fits`},
		{"a container that is no scope", minimal + link("container: CN=Computers,DC=x\norder: 1"), `error scope: CN=Computers,DC=x is neither an organizational unit (OU=) nor a domain (DC=); only these have links`},
		{"an order twice", minimal + link("container: DC=x\norder: 1\nname: a") + link("container: dc=X\norder: 1\nname: b"), `error duplicate: has order 1 at dc=X, as has "a"`},
		{"a link twice", minimal + link("container: DC=x\norder: 1") + link("container: DC=x\norder: 2"), `error duplicate: already stands at f:6:1, as "P -> dc=x"`},
		{"apply and deny", minimal + link("container: DC=x\norder: 1\ngroups: {apply: [\"CN=g,DC=x\"], deny: [\"CN=G,DC=x\"]}"), `warning unlinked: both applies to and denies CN=g,DC=x; deny wins`},
		{"settings twice", header + "Settings\nbreakGlassTCP: [22]\n---\n" + header + "Settings\nbreakGlassTCP: [23]\n", `error duplicate: already stands at f:1:1, as "fleet"`},
		{"what only a node would notice", list + secure + rule("tunnel: {remote: 224.0.0.1}"), `error policy: invalid policy "P": rule "r": remote tunnel endpoint 224.0.0.1 is not a plain unicast address`},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, err := policies.Decode("f", []byte(test.text))
			if err != nil {
				t.Fatal(err)
			}
			findings := policies.Validate(d)
			var got []string
			failed := false
			for _, f := range findings {
				got = append(got, f.Severity.String()+" "+string(f.Code)+": "+f.Message)
				failed = failed || f.Severity == policies.Error
				if f.At.Line == 0 || f.Object == "" {
					t.Errorf("a finding without its place: %+v", f)
				}
			}
			if g := strings.Join(got, "\n"); g != test.want {
				t.Errorf("got\n%s\nwant\n%s", g, test.want)
			}
			if err := policies.Check(findings); failed != errors.Is(err, policies.ErrInvalid) {
				t.Errorf("the findings %q give error %v", got, err)
			}
			if failed {
				return
			}
			for _, p := range d.Policies {
				if _, err := d.Effective(p.Name); err != nil {
					t.Errorf("valid documents do not give policy %q: %v", p.Name, err)
				}
			}
		})
	}
}

func TestMergeKeepsBoth(t *testing.T) {
	d := bank(t).Merge(predefined.Documents())
	if got, want := len(d.All()), len(bank(t).All())+len(predefined.Documents().All()); got != want {
		t.Errorf("got %d documents, want %d", got, want)
	}
	if err := policies.Check(policies.Validate(d)); err != nil {
		t.Error(err)
	}
}
