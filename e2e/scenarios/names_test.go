package scenarios

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/pki/catest"
)

// A rule that protects a DNS name: while the name does not resolve the node does not pretend to enforce the policy and says
// why; once hosts(5) has it, the traffic is protected.
func TestPolicyForADNSName(t *testing.T) {
	const name = "right.partner.example"
	addresses := [2]netip.Addr{netip.MustParseAddr("10.94.0.1"), netip.MustParseAddr("10.94.0.2")}
	a := connectAnalysed(t, addresses)
	// What ip-netns(8) shows the left host as its /etc; 127.0.0.1 is a resolver that refuses at once.
	etc := filepath.Join("/etc/netns", a.hosts[0].Namespace)
	if err := os.MkdirAll(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(etc); err != nil {
			t.Error(err)
		}
		_ = os.Remove(filepath.Dir(etc)) // unless others use it
	})
	hosts := filepath.Join(etc, "hosts")
	for file, content := range map[string]string{hosts: "127.0.0.1 localhost\n", filepath.Join(etc, "resolv.conf"): "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"} {
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ca := catest.New(t)
	const esp, ike = "ESP[AES-GCM-256]", "AES-GCM-256-SHA256-x25519"
	a.start(0, ca, fmt.Sprintf(analysedPolicy, "dns:"+name, esp, ike), "always")
	a.start(1, ca, fmt.Sprintf(analysedPolicy, addresses[0], esp, ike), "always")

	a.until("the node says that the name was never resolved", func() bool {
		s, err := a.clients[0].Status(a.ctx)
		return err == nil && s.Policy == "" && strings.Contains(s.Problem, `rule "Between" is to negotiate what belongs to dns:`+name+", which was never resolved")
	})
	// Written in place: the node sees this file, not this name.
	file, err := os.OpenFile(hosts, os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(file, "127.0.0.1 localhost\n%s %s\n", addresses[1], name); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	a.awaitPolicies()
	s, err := a.clients[0].Status(a.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("dns:%s is %s", name, addresses[1]); !slices.Contains(s.Names, want) || s.Problem != "" {
		t.Errorf("status has names %q and problem %q, want %q and none", s.Names, s.Problem, want)
	}
	question := []byte("who is it?")
	a.serve(question)
	a.ask(question, question)
	if s, err = a.clients[0].Status(a.ctx); err != nil || s.ChildSAs != 1 {
		t.Errorf("%d Child SAs carried the conversation, want 1 (%v)", s.ChildSAs, err)
	}
}
