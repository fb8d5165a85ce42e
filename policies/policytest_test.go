package policies_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
	"github.com/bailiwick-net/bailiwick/policies/spd/spdtest"
)

func policyTestGen() *rapid.Generator[policies.PolicyTest] {
	return rapid.Custom(func(t *rapid.T) policies.PolicyTest {
		name := func() string { return nameGen().Draw(t, "name") }
		endpoint := func() policies.Endpoint {
			dn, err := directory.MustParseDN("DC=bank,DC=example").Child("OU", name())
			if err != nil {
				t.Fatal(err)
			}
			return rapid.SampledFrom([]policies.Endpoint{{Machine: name()}, {Container: dn}, {Group: dn}, {Policy: name()}}).Draw(t, "endpoint")
		}
		p := policies.PolicyTest{Meta: policies.Meta{Name: name()}}
		for range rapid.IntRange(0, 3).Draw(t, "assertions") {
			a := policies.Assertion{From: endpoint(), To: endpoint(), Traffic: policies.Traffic{Protocol: rapid.Uint8().Draw(t, "protocol")}}
			if rapid.Bool().Draw(t, "named") {
				a.Meta = policies.Meta{Name: name(), Description: name()}
			}
			if spd.HasPorts(a.Traffic.Protocol) {
				from := rapid.Uint16Range(1, 65535).Draw(t, "from port")
				a.Traffic.Ports = spd.PortRange{From: from, To: rapid.Uint16Range(from, 65535).Draw(t, "to port")}
			}
			a.Is = rapid.SliceOfNDistinct(rapid.SampledFrom([]policies.Outcome{policies.OutcomeClear, policies.OutcomeIPsec, policies.OutcomeBlocked}), 1, 3, rapid.ID).Draw(t, "is")
			if rapid.Bool().Draw(t, "offer") {
				a.Offer = spdtest.ESP().Draw(t, "ESP")
			}
			p.Assertions = append(p.Assertions, a)
		}
		return p
	})
}

func TestPolicyTestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := policies.Documents{PolicyTests: []policies.PolicyTest{policyTestGen().Draw(t, "test")}}
		got, err := policies.Decode("export", want.Export())
		if err != nil {
			t.Fatalf("%v\nin\n%s", err, want.Export())
		}
		if diff := compare(want, got); diff != "" {
			t.Fatalf("the test changed on its way:\n%s\nin\n%s", diff, want.Export())
		}
	})
}

func TestAssertionsReadAsSentences(t *testing.T) {
	got := bank(t).PolicyTests[0].Assertions
	for i, want := range []string{
		"container OU=Workstations,DC=bank,DC=example to machine sql1 tcp/1433 is: ipsec with ESP[AES-GCM-256]",
		`group CN=Pilot,DC=bank,DC=example to policy "Bank" tcp/6667-6668 is: ipsec or blocked`,
		`policy "none" to policy "none" any is: clear`,
	} {
		if got[i].String() != want {
			t.Errorf("got  %s\nwant %s", got[i], want)
		}
	}
}

func TestValidatePolicyTests(t *testing.T) {
	assertion := policies.Assertion{From: policies.Endpoint{Machine: "a"}, To: policies.Endpoint{Machine: "b"}, Is: []policies.Outcome{policies.OutcomeIPsec}}
	with := func(change func(a *policies.Assertion)) policies.Assertion {
		a := assertion
		change(&a)
		return a
	}
	for name, test := range map[string]struct {
		assertions []policies.Assertion
		want       string
		code       policies.Code
		severity   policies.Severity
	}{
		"no assertions": {nil, "has no assertions", policies.CodeEmpty, policies.Error},
		"policy that is not there": {[]policies.Assertion{assertion, with(func(a *policies.Assertion) { a.To = policies.Endpoint{Policy: "Bnak"} })},
			`assertion 2 names policy "Bnak", which does not exist; did you mean "Bank"?`, policies.CodeDangling, policies.Error},
		"no policy": {[]policies.Assertion{with(func(a *policies.Assertion) { a.To = policies.Endpoint{Policy: policies.NoneName} })}, "", "", 0},
		"an outcome twice": {[]policies.Assertion{with(func(a *policies.Assertion) {
			a.Is = []policies.Outcome{policies.OutcomeClear, policies.OutcomeClear}
		})},
			"assertion 1 says clear twice", policies.CodeDuplicate, policies.Error},
		"every outcome": {[]policies.Assertion{with(func(a *policies.Assertion) {
			a.Is = []policies.Outcome{policies.OutcomeClear, policies.OutcomeBlocked, policies.OutcomeIPsec}
		})}, "assertion 1 allows every outcome", policies.CodeEmpty, policies.Warning},
		"an offer for clear traffic": {[]policies.Assertion{with(func(a *policies.Assertion) {
			a.Is, a.Offer = []policies.Outcome{policies.OutcomeClear}, proposal.DefaultESP()[0]
		})}, "assertion 1 names an offer, which only traffic that is ipsec has", policies.CodeOffers, policies.Error},
	} {
		t.Run(name, func(t *testing.T) {
			d := bank(t)
			d.PolicyTests = []policies.PolicyTest{{Meta: policies.Meta{Name: "T"}, Assertions: test.assertions}}
			var got []policies.Finding
			for _, f := range policies.Validate(d) {
				if strings.HasPrefix(f.Object, "PolicyTest") {
					got = append(got, f)
				}
			}
			if test.want == "" {
				if len(got) > 0 {
					t.Errorf("got %v, want nothing", got)
				}
				return
			}
			if len(got) != 1 || got[0].Message != test.want || got[0].Code != test.code || got[0].Severity != test.severity {
				t.Errorf("got %v, want %s: %s (%s)", got, test.severity, test.want, test.code)
			}
		})
	}
}
