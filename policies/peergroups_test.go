package policies_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/policies"
)

// grouped is a policy with one rule for the members of groups; fields go into the rule.
func grouped(action, fields string) string {
	return `apiVersion: bailiwick.net/v1alpha1
kind: FilterList
name: Everything
filters:
  - source: me
    destination: any
---
apiVersion: bailiwick.net/v1alpha1
kind: FilterAction
name: Act
` + action + `
---
apiVersion: bailiwick.net/v1alpha1
kind: Policy
name: Guarded
rules:
  - name: All
    filterList: Everything
    filterAction: Act
` + fields
}

func TestPeerGroups(t *testing.T) {
	const tellers = "    peerGroups: [\"CN=Tellers,DC=bank,DC=example\"]\n"
	for _, c := range []struct{ name, action, fields, want string }{
		{"members of a group", "action: negotiate\noffers: [\"ESP[AES-GCM-256]\"]", tellers, ""},
		{"no DN", "action: negotiate\noffers: [\"ESP[AES-GCM-256]\"]", "    peerGroups: [Tellers]\n", "Tellers"},
		{"an empty list", "action: negotiate\noffers: [\"ESP[AES-GCM-256]\"]", "    peerGroups: []\n", "is empty"},
		{"the same twice", "action: negotiate\noffers: [\"ESP[AES-GCM-256]\"]", "    peerGroups: [\"CN=a\", \"CN=a\"]\n", "stands twice"},
		{"an action that negotiates nothing", "action: permit", tellers, "does not negotiate"},
		{"clear traffic to silent peers", "action: negotiate\noffers: [\"ESP[AES-GCM-256]\"]\nfallback: wait", tellers, "clear traffic to silent ones"},
		{"a preshared key", "action: negotiate\noffers: [\"ESP[AES-GCM-256]\"]", tellers + "    authentication: [{method: psk, secretRef: chat}]\n", "preshared key"},
	} {
		d, err := policies.Decode("guarded.yaml", []byte(grouped(c.action, c.fields)))
		if err == nil {
			err = policies.Check(policies.Validate(d))
		}
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want an error with %q", c.name, err, c.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		p, err := d.Effective("Guarded")
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Rules[0].PeerGroups; !slices.Equal(got, []string{"CN=Tellers,DC=bank,DC=example"}) {
			t.Errorf("%s: groups %q in force", c.name, got)
		}
		again, err := policies.Decode("again.yaml", d.Export())
		if err != nil || again.Policies[0].Rules[0].PeerGroups[0].String() != "CN=Tellers,DC=bank,DC=example" {
			t.Errorf("%s: exported as %s, %v", c.name, d.Export(), err)
		}
	}
}
