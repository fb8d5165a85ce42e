package scenarios

import (
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/bank"
)

// sharedPolicy is Secure Server by a preshared key, in place of the machines' certificates.
const sharedPolicy = `apiVersion: bailiwick.net/v1alpha1
kind: Policy
name: Shared
rules:
  - name: All IP Traffic
    filterList: All IP Traffic
    filterAction: Require Security
    authentication: [{method: psk, secretRef: shared}]
`

// writeFile puts a text into a file of the test.
func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestPresharedKeyFromTheController lets two machines talk by a key that nobody carried to them, changes it twice while
// they run, and takes it away again. Neither log has it.
func TestPresharedKeyFromTheController(t *testing.T) {
	const first, second, third = "the first key of the scenario", "the second key of the scenario", "the third key of the scenario"
	b := openBank(t, "sql1", "ws1")
	sql1, ws1 := b.Machine("sql1"), b.Machine("ws1")
	set := func(key string, args ...string) {
		t.Helper()
		out := admin(t, b, append([]string{"secret", "set", "shared", "--file", writeFile(t, "key", key)}, args...)...)
		if strings.Contains(out, key) {
			t.Errorf("secret set prints the key: %s", out)
		}
	}
	set(first)
	admin(t, b, "apply", "-f", writeFile(t, "shared.yaml", sharedPolicy))
	admin(t, b, "link", "Shared", "dc=bank,dc=example", "--enforced")
	for _, m := range []bank.Machine{sql1, ws1} {
		if _, err := b.AwaitPolicy(t.Context(), m, "Shared"); err != nil {
			t.Fatal(err)
		}
	}
	again := func(m bank.Machine) {
		t.Helper()
		if err := b.KillNode(m); err != nil {
			t.Fatal(err)
		}
		startNode(t, b, m, "Shared")
	}
	wantOutcome(t, b, ws1, sql1, bank.Protected, 15*time.Second, "with the first key")

	// Nobody is restarted for the change; the machine that starts anew afterwards negotiates with the one that went on.
	set(second)
	awaitSecret(t, b, sql1, second)
	awaitSecret(t, b, ws1, second)
	again(ws1)
	wantOutcome(t, b, ws1, sql1, bank.Protected, 15*time.Second, "with the second key")
	set(third, "--overlap", "0s")
	awaitSecret(t, b, sql1, third)
	awaitSecret(t, b, ws1, third)
	again(ws1)
	wantOutcome(t, b, ws1, sql1, bank.Protected, 15*time.Second, "with the third key")
	if listed := admin(t, b, "secret", "list"); !regexp.MustCompile(`(?m)^shared +psk .* 1 +[1-9][0-9]* +- +-$`).MatchString(listed) {
		t.Errorf("secret list tells\n%s", listed)
	}

	admin(t, b, "unlink", "Shared", "dc=bank,dc=example")
	for _, m := range []bank.Machine{sql1, ws1} {
		awaitSecret(t, b, m, "")
	}
	wantOutcome(t, b, ws1, sql1, bank.Protected, 15*time.Second, "by certificate again")
	for _, log := range []string{b.Log(sql1), b.Log(ws1), filepath.Join(filepath.Dir(b.Log(sql1)), "controller.log")} {
		text, err := os.ReadFile(log)
		if err != nil || len(text) == 0 {
			t.Fatalf("log %s: %d octets, %v", log, len(text), err)
		}
		for _, key := range []string{first, second, third} {
			if strings.Contains(string(text), key) || strings.Contains(string(text), base64.StdEncoding.EncodeToString([]byte(key))) {
				t.Errorf("%s holds a key", log)
			}
		}
	}
}

// awaitSecret waits until a machine keeps the key, or none.
func awaitSecret(t *testing.T, b *bank.Bank, m bank.Machine, key string) {
	t.Helper()
	path := filepath.Join(b.StateDir(m), "delivered-secrets.json")
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		content, err := os.ReadFile(path)
		if key == "" && errors.Is(err, fs.ErrNotExist) || key != "" && strings.Contains(string(content), `"value":"`+base64.StdEncoding.EncodeToString([]byte(key))) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s does not keep the key wanted after 30 s: %d octets, %v", m.Name, len(content), err)
		}
	}
}

// noServers blocks what the policy of a workstation protects.
const noServers = `apiVersion: bailiwick.net/v1alpha1
kind: FilterList
name: Servers
filters: [{source: me, destination: ADDRESS}]
---
apiVersion: bailiwick.net/v1alpha1
kind: FilterAction
name: Never
action: block
---
apiVersion: bailiwick.net/v1alpha1
kind: Policy
name: no-servers
rules:
  - {name: Out, filterList: Servers, filterAction: Never}
`

// TestRulesOfAMachinesOwn puts rules beside the policy of the directory: dynamic ones end with the daemon, persistent ones
// do not, and what is wrong with a file is told with its place.
func TestRulesOfAMachinesOwn(t *testing.T) {
	b := openBank(t, "sql1", "ws1")
	sql1, ws1 := b.Machine("sql1"), b.Machine("ws1")
	rule := func(args ...string) (string, error) {
		return b.Host(ws1).RunContext(t.Context(), append([]string{filepath.Join(binaries, "bailiwick-node"), "rule", "--socket", b.NodeSocket(ws1)}, args...)...)
	}
	do := func(want string, args ...string) {
		t.Helper()
		if out, err := rule(args...); err != nil || !strings.Contains(out, want) {
			t.Fatalf("rule %q: %v, printed %q, wanted %q", args, err, out, want)
		}
	}
	again := func() {
		t.Helper()
		if err := b.KillNode(ws1); err != nil {
			t.Fatal(err)
		}
		startNode(t, b, ws1, clientPolicy)
	}
	file := writeFile(t, "rules.yaml", strings.Replace(noServers, "ADDRESS", sql1.Address.String(), 1))
	wantOutcome(t, b, ws1, sql1, bank.Protected, 15*time.Second, "before")
	do("rules no-servers are in force (dynamic, 1)", "add", file)
	do("dynamic:no-servers/Out", "list")
	wantOutcome(t, b, ws1, sql1, bank.Blocked, 3*time.Second, "with a dynamic rule")
	again()
	wantOutcome(t, b, ws1, sql1, bank.Protected, 15*time.Second, "after the end of the daemon")
	do("rules no-servers are in force (persistent, 1)", "add", "--persistent", file)
	again()
	wantOutcome(t, b, ws1, sql1, bank.Blocked, 3*time.Second, "with a persistent rule, after a restart")
	if err := b.AwaitSession(t.Context(), ws1); err != nil {
		t.Errorf("with rules of its own the machine does not reach the controller: %v", err)
	}
	wrong := writeFile(t, "wrong.yaml", strings.Replace(noServers, "action: block", "action: blok", 1))
	if out, err := rule("add", wrong); err == nil || !strings.Contains(err.Error(), wrong+":9:9: ") {
		t.Errorf("a file with a mistake: %q, %v, wanted its place", out, err)
	}
	do("are not in force any more", "delete", "no-servers")
	wantOutcome(t, b, ws1, sql1, bank.Protected, 15*time.Second, "after the deletion")
}
