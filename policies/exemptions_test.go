package policies_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// The levels of default exemptions, as a table of what each exempts.
func TestExemptionLevels(t *testing.T) {
	got := "exemptions          multicast broadcast kerberos rsvp  icmp\n"
	for _, level := range []string{"level: 0", "level: 1", "level: 2", "level: 3", "icmp: true", "breakGlassTCP: [22]"} {
		text := "apiVersion: bailiwick.net/v1alpha1\nkind: Policy\nname: P\ndefaultResponse: {active: true}\nexemptions:\n  " + level + "\n"
		d, err := policies.Decode("f", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		p, err := d.Effective("P")
		if err != nil {
			t.Fatal(err)
		}
		e := p.Exemptions
		got += fmt.Sprintf("%-19s %-9t %-9t %-8t %-5t %t\n", level, e.Multicast, e.Broadcast, e.Kerberos, e.RSVP, e.ICMP)
		warned := false
		for _, f := range policies.Validate(d) {
			warned = warned || f.Code == policies.CodeExempt
		}
		if warned != e.Kerberos {
			t.Errorf("%s: warned of Kerberos %t", level, warned)
		}
	}
	want := `exemptions          multicast broadcast kerberos rsvp  icmp
level: 0            true      true      true     true  false
level: 1            true      true      false    false false
level: 2            false     false     true     true  false
level: 3            false     false     false    false false
icmp: true          false     false     false    false true
breakGlassTCP: [22] false     false     false    false false
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// What testdata/language.yaml says becomes what it means.
func TestWordsOfTheLanguage(t *testing.T) {
	text, err := os.ReadFile("testdata/language.yaml")
	if err != nil {
		t.Fatal(err)
	}
	d, err := policies.Decode("language.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	if err := policies.Check(policies.Validate(d)); err != nil {
		t.Fatal(err)
	}
	if err := policies.SchemaAccepts(t, text); err != nil {
		t.Error(err)
	}
	p, err := d.Effective("Partner")
	if err != nil {
		t.Fatal(err)
	}
	if got := p.HostNames(); len(got) != 1 || got[0] != "web.partner.example" {
		t.Errorf("the names are %q", got)
	}
	if got := p.Rules[0].Filters[0].Destination.String(); got != "dns:web.partner.example" {
		t.Errorf("the destination is %s", got)
	}
	want := spd.Auth{Method: spd.AuthCertificate, CA: `CN=Żółw CA,O=Söhne \, Großbank`, AccountMapping: true, ExcludeCAName: true}
	if got := p.Rules[0].Auth[0]; got != want {
		t.Errorf("authentication is %+v, want %+v", got, want)
	}
	if got, want := p.Exemptions, (spd.Exemptions{Multicast: true, Broadcast: true, Kerberos: true, RSVP: true, ICMP: true}); got.Kerberos != want.Kerberos || got.Multicast != want.Multicast || !got.RSVP || !got.ICMP || !got.Broadcast {
		t.Errorf("exemptions are %+v, want %+v", got, want)
	}
}
