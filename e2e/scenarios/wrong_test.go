package scenarios

import (
	"crypto"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/bank"
	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// tryJoin runs "bailiwick-node join" on a machine and returns its exit code and what it printed.
func tryJoin(t *testing.T, b *bank.Bank, m bank.Machine, state, controller, token, name string) (int, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := b.Host(m).Command(filepath.Join(binaries, "bailiwick-node"), "join", "--state-dir", state,
		"--controller", controller, "--token-file", file, "--name", name)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

func TestWrongTokensAndNamesChangeNothing(t *testing.T) {
	b := openBank(t)
	ws1, ws2 := b.Machine("ws1"), b.Machine("ws2")
	const controller = "10.83.0.2:7443"
	token := strings.TrimSpace(admin(t, b, "token", "create", "ws1"))
	state := filepath.Join(t.TempDir(), "state")
	broken := token[:len(token)-3] + "xyz"

	for _, attempt := range []struct {
		name, controller, token, claims string
		code                            int
		want                            string
	}{
		{"mistyped token", controller, broken, ws1.DNSName(), 1, "token"},
		{"nobody at the address", "10.83.0.2:1", token, ws1.DNSName(), 4, "unreachable"},
		{"name of another machine", controller, token, ws2.DNSName(), 3, ws1.DNSName()},
	} {
		code, out := tryJoin(t, b, ws1, state, attempt.controller, attempt.token, attempt.claims)
		if code != attempt.code || !strings.Contains(out, attempt.want) {
			t.Errorf("%s: exit code %d and %q, want %d and a text with %q", attempt.name, code, out, attempt.code, attempt.want)
		}
		if _, err := os.Stat(filepath.Join(state, "credentials.pem")); !os.IsNotExist(err) {
			t.Errorf("%s: credentials were stored: %v", attempt.name, err)
		}
	}
	if code, out := tryJoin(t, b, ws1, state, controller, token, ws1.DNSName()); code != 0 {
		t.Fatalf("after the failed attempts the token is still good, but join gave %d: %s", code, out)
	}
	if code, out := tryJoin(t, b, ws2, filepath.Join(t.TempDir(), "state"), controller, token, ws1.DNSName()); code != 3 || !strings.Contains(out, "used before") {
		t.Errorf("used token: exit code %d and %q, want 3 and that it was used before", code, out)
	}
	if code, out := tryJoin(t, b, ws1, state, controller, token, ws1.DNSName()); code != 1 || !strings.Contains(out, "joined a fleet already") {
		t.Errorf("second join: exit code %d and %q, want 1 and that it has joined", code, out)
	}
}

func TestForeignCertificateGetsNoSession(t *testing.T) {
	b := openBank(t, "ws1")
	ws2 := b.Machine("ws2")
	// The foreign machine trusts the Bank's controller, and shows a certificate of another fleet.
	fleet, err := identity.Open(b.StateDir(b.Machine("ws1")))
	if err != nil {
		t.Fatal(err)
	}
	member, err := fleet.Load()
	if err != nil {
		t.Fatal(err)
	}
	foreign := catest.New(t)
	certificate := foreign.Machine(t, catest.Identity(t, ws2.DNSName()))
	chain, err := trust.ParseChain(certificate.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	store, err := identity.Open(b.StateDir(ws2))
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Save(identity.Credentials{
		Identity: catest.Identity(t, ws2.DNSName()), Key: certificate.PrivateKey.(crypto.Signer), Chain: chain,
		Trust: member.Trust, Controllers: member.Controllers,
	}); err != nil {
		t.Fatal(err)
	}
	if err := b.StartNode(ws2); err != nil {
		t.Fatal(err)
	}
	waitForLog(t, b, ws2, "no session with the controller")
	status, err := b.Node(ws2).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if status.Controller != "" || status.Policy != "" {
		t.Errorf("with a foreign certificate: session %q and policy %q, want none of both", status.Controller, status.Policy)
	}
	if nodes := admin(t, b, "get", "nodes", "--output", "json"); strings.Contains(nodes, ws2.Address.String()) {
		t.Errorf("the controller counts the foreign machine as a node: %s", nodes)
	}
	// The machines that belong together are not disturbed.
	if status, err := b.Node(b.Machine("ws1")).Status(t.Context()); err != nil || status.Controller == "" {
		t.Errorf("ws1 lost its session: %+v, %v", status, err)
	}
}

func waitForLog(t *testing.T, b *bank.Bank, m bank.Machine, text string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		content, err := os.ReadFile(b.Log(m))
		if err == nil && strings.Contains(string(content), text) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s did not log %q within 30 s", m.Name, text)
		}
	}
}

func TestPolicyWithUnknownFieldChangesNothing(t *testing.T) {
	b := openBank(t)
	before := admin(t, b, "export")
	file := filepath.Join(t.TempDir(), "policy.yaml")
	text := "apiVersion: bailiwick.net/v1alpha1\nkind: FilterAction\nname: Good\naction: permit\n---\n" +
		"apiVersion: bailiwick.net/v1alpha1\nkind: FilterAction\nname: Bad\naction: permit\nencryptt: yes\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := b.Admin(t.Context(), "apply", "-f", file)
	if err == nil || !strings.Contains(err.Error(), "policy.yaml:10:1") || !strings.Contains(err.Error(), "encryptt") {
		t.Errorf("apply gave %v, want an error with file, line, column and the field", err)
	}
	if after := admin(t, b, "export"); after != before {
		t.Error("half of a bad file was applied")
	}
}

func TestDirectoryGuardHoldsMassChange(t *testing.T) {
	b := openBank(t, "ws1")
	ws1 := b.Machine("ws1")
	before, err := b.Node(ws1).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(b.Directory())
	if err != nil {
		t.Fatal(err)
	}
	// Every machine but one vanishes, as with a wrong filter.
	var kept []string
	for entry := range strings.SplitSeq(string(content), "\n\n") {
		if !strings.Contains(entry, "objectClass: computer") || strings.Contains(entry, "cn: printer1") {
			kept = append(kept, entry)
		}
	}
	temporary := b.Directory() + ".new"
	if err := os.WriteFile(temporary, []byte(strings.Join(kept, "\n\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(temporary, b.Directory()); err != nil {
		t.Fatal(err)
	}
	id := awaitHeldChange(t, b)
	if tree := admin(t, b, "get", "machines"); !strings.Contains(tree, "sql1") {
		t.Errorf("machines while the change is held: %s; want all of them", tree)
	}
	after, err := b.Node(ws1).Status(t.Context())
	if err != nil || after.Digest != before.Digest {
		t.Errorf("ws1 enforces %s (%v), want %s as before", after.Digest, err, before.Digest)
	}
	admin(t, b, "directory", "release", id)
	if status := admin(t, b, "directory", "status"); strings.Contains(status, id) {
		t.Errorf("after its release the change is still held: %s", status)
	}
}

// awaitHeldChange waits until the guard holds a change and returns its ID.
func awaitHeldChange(t *testing.T, b *bank.Bank) string {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if id, ok := heldChange(admin(t, b, "directory", "status", "--output", "json")); ok {
			return id
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("no change is held after 30 s:\n%s", admin(t, b, "directory", "status"))
		}
	}
}

// heldChange finds the ID of the held change in the JSON of "directory status".
func heldChange(text string) (string, bool) {
	var status struct {
		Held struct{ ID string }
	}
	if err := json.Unmarshal([]byte(text), &status); err != nil {
		return "", false
	}
	return status.Held.ID, status.Held.ID != ""
}
