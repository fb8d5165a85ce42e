package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const policyName = "Leak test"

// policyDocument is the policy in one of endlessly many variants: another one each time, and each protects everything but
// the open port. Some change nothing but the order, some the lifetimes, some the names, so that SAs have to be made anew.
func policyDocument(variant int, m mode, remote [2]netip.Addr) string {
	var b strings.Builder
	doc := func(kind, name string) {
		fmt.Fprintf(&b, "---\napiVersion: bailiwick.net/v1alpha1\nkind: %s\nname: %s\n", kind, name)
	}
	doc("FilterList", "Leak everything")
	b.WriteString("filters:\n")
	switch variant % 3 {
	case 0:
		b.WriteString("  - {source: me, destination: any}\n")
	case 1:
		b.WriteString("  - {source: me, destination: any}\n  - {source: me, destination: 10.83.0.0/24}\n  - {source: me, destination: \"fd83::/64\"}\n")
	case 2:
		for _, protocol := range []string{"tcp", "udp", "icmp", "icmpv6"} {
			fmt.Fprintf(&b, "  - {source: me, destination: any, protocol: %s}\n", protocol)
		}
		b.WriteString("  - {source: me, destination: any}\n")
	}
	doc("FilterList", "Leak open")
	b.WriteString("filters:\n")
	for _, destination := range []string{"any", "10.83.0.0/24", "fd83::/64"} { // the more exact address wins
		fmt.Fprintf(&b, "  - {source: me, destination: %q, protocol: udp, destinationPort: %d}\n", destination, openPort)
	}
	doc("FilterList", "Leak blocked")
	b.WriteString("filters:\n")
	for i := range 1 + variant%40 {
		fmt.Fprintf(&b, "  - {source: me, destination: 198.51.%d.0/24}\n", (variant+i)%256)
	}
	doc("FilterAction", "Leak protect")
	fmt.Fprintf(&b, "action: negotiate\noffers: [\"ESP[AES-GCM-%d]:%ds\"]\n", 128+128*(variant/7%2), 300+variant%5)
	doc("FilterAction", "Leak permit")
	b.WriteString("action: permit\n")
	doc("FilterAction", "Leak block")
	b.WriteString("action: block\n")
	rules := []string{
		fmt.Sprintf("  - {name: Everything %d, filterList: Leak everything, filterAction: Leak protect, authentication: [{method: certificate}]}\n", variant/10),
		"  - {name: Open, filterList: Leak open, filterAction: Leak permit}\n",
		fmt.Sprintf("  - {name: Blocked %d, filterList: Leak blocked, filterAction: Leak block}\n", variant),
	}
	policy := func(name string, rules []string) {
		doc("Policy", name)
		b.WriteString("rules:\n")
		for i := range rules {
			b.WriteString(rules[(i+variant)%len(rules)])
		}
		b.WriteString("keyExchange: {offers: [AES-GCM-128-SHA256-x25519], lifetime: 300s}\nexemptions: {multicast: true, broadcast: true}\n")
	}
	if m != tunnel {
		policy(policyName, rules)
		return b.String()
	}
	for i := range remote {
		policy(m.policyName(i), slices.Concat(rules, tunnelRules(doc, &b, i, remote[i], variant)))
	}
	return b.String()
}

// swap gives the controller another variant of the policy.
func (w *world) swap(ctx context.Context) error {
	w.mu.Lock()
	w.mu.variant++
	variant := w.mu.variant
	w.mu.Unlock()
	remote := [2]netip.Addr{w.nodes[1].address[0], w.nodes[0].address[0]}
	path := filepath.Join(w.dir, fmt.Sprintf("policy%d.yaml", variant%8))
	if err := os.WriteFile(path, []byte(policyDocument(variant, w.mode, remote)), 0o600); err != nil {
		return err
	}
	_, err := w.bank.Admin(ctx, "apply", "-f", path)
	return err
}
