package analyze_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/analyze"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
)

const suspicious = `apiVersion: bailiwick.net/v1alpha1
kind: FilterList
name: Everything
filters:
  - {name: all, source: me, destination: any}
---
apiVersion: bailiwick.net/v1alpha1
kind: FilterList
name: Web
filters:
  - {name: low, source: me, destination: 203.0.113.0/25, protocol: tcp, destinationPort: 80}
  - {name: high, source: me, destination: 203.0.113.128/25, protocol: tcp, destinationPort: 80}
---
apiVersion: bailiwick.net/v1alpha1
kind: FilterList
name: Web again
filters:
  - {name: both, source: me, destination: 203.0.113.0/24, protocol: tcp, destinationPort: 80}
---
apiVersion: bailiwick.net/v1alpha1
kind: FilterAction
name: Protect
action: negotiate
offers: ["ESP[AES-GCM-256]", "ESP[AES-GCM-128]"]
---
apiVersion: bailiwick.net/v1alpha1
kind: FilterAction
name: Stop
action: block
---
apiVersion: bailiwick.net/v1alpha1
kind: FilterAction
name: Pass
action: permit
---
apiVersion: bailiwick.net/v1alpha1
kind: Policy
name: Strict
rules:
  - {name: all, filterList: Everything, filterAction: Protect, authentication: [{method: certificate, ca: "CN=Elsewhere"}]}
  - {name: web, filterList: Web, filterAction: Stop}
  - {name: web again, filterList: Web again, filterAction: Pass}
keyExchange:
  offers: [AES-GCM-256-SHA384-x25519]
---
apiVersion: bailiwick.net/v1alpha1
kind: Policy
name: Dark
rules:
  - {name: all, filterList: Everything, filterAction: Stop}
---
apiVersion: bailiwick.net/v1alpha1
kind: Link
policy: Strict
container: dc=bank,dc=example
order: 1
`

func TestVerifyFinds(t *testing.T) {
	docs, err := policies.Decode("suspicious.yaml", []byte(suspicious))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC)
	found := analyze.Verify(analyze.Situation{
		Documents: docs, Now: now, Authorities: []analyze.Authority{{Subject: "CN=Fleet CA", NotAfter: now.Add(10 * 24 * time.Hour)}},
		Services: []analyze.Service{{Name: "directory", Protocol: 6, Port: 636}},
	})
	var got []string
	for _, f := range found {
		got = append(got, fmt.Sprintf("%s %s %s %d: %s", f.Severity, f.Code, f.Object, f.At.Line, f.Message))
		if f.At.Line == 0 || f.At.File != "suspicious.yaml" {
			t.Errorf("no place: %s", f)
		}
	}
	want := []string{
		`warning authority Policy "Strict" 41: rule "all" wants peers of CA "CN=Elsewhere", which is not among those that machines believe: nobody can authenticate by it`,
		`warning infrastructure Policy "Dark" 51: rule "all" blocks DNS, which machines need`,
		`warning infrastructure Policy "Strict" 41: rule "all" wants DNS protected without a fallback: a machine whose server there answers no IKE, or that cannot negotiate yet, does without it`,
		`warning infrastructure Policy "Strict" 41: rule "all" wants directory protected without a fallback`,
		`warning lockout Policy "Dark" 49: the policy blocks all traffic`,
		`info legacy Policy "Strict" 38: none of the offers`,
		`info offer-never-chosen FilterAction "Protect" 22: ESP[AES-GCM-128], offered for negotiations, is never chosen`,
		`info unused Policy "Dark" 49: is used by no link`,
	}
	for _, w := range want {
		if !slices.ContainsFunc(got, func(g string) bool { return strings.HasPrefix(numberless(g), numberless(w)) }) {
			t.Errorf("not found: %s", w)
		}
	}
	if t.Failed() {
		t.Logf("found\n%s", strings.Join(got, "\n"))
	}
	// Two halves of a network, as heavy as the whole: only the order of weight tells whether the whole is reached.
	for _, g := range got {
		if strings.Contains(g, "shadowed") {
			if !strings.Contains(g, `filter "web again/both" of rule "web again": all of them belong to`) {
				t.Errorf("found %s", g)
			}
			return
		}
	}
	t.Errorf("the filter that two halves cover is not found\n%s", strings.Join(got, "\n"))
}

// numberless leaves the line number out.
func numberless(s string) string {
	head, rest, ok := strings.Cut(s, `": `)
	if !ok {
		head, rest, _ = strings.Cut(s, ": ")
		head = head[:strings.LastIndex(head, " ")]
	}
	return head + "|" + rest
}

// What is there from the start has nothing that would keep it from being applied, and no warning but those that its
// purpose brings.
func TestThePredefinedDocumentsVerify(t *testing.T) {
	for _, f := range analyze.Verify(analyze.Situation{Documents: predefined.Documents()}) {
		if f.Severity == policies.Error || f.Severity == policies.Warning && f.Code != analyze.FindingInfrastructure {
			t.Errorf("found %s", f)
		}
	}
}

func TestBlockApply(t *testing.T) {
	for b, want := range map[policies.BlockApply]string{policies.BlockErrors: "error", policies.BlockWarnings: "warning error", policies.BlockNever: ""} {
		var got []string
		for _, s := range []policies.Severity{policies.Info, policies.Warning, policies.Error} {
			if b.Blocks(s) {
				got = append(got, s.String())
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s blocks %q, want %q", b, got, want)
		}
	}
}
