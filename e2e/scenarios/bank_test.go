package scenarios

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/bank"
	"github.com/bailiwick-net/bailiwick/e2e/lab/tshark"
	"github.com/bailiwick-net/bailiwick/node/localapi"
)

const (
	clientPolicy       = "Client (Respond Only)"
	serverPolicy       = "Server (Request Security)"
	secureServerPolicy = "Secure Server (Require Security)"
)

// openBank starts a Bank with the controller and the named machines in it.
func openBank(t *testing.T, machines ...string) *bank.Bank {
	t.Helper()
	dir := t.TempDir()
	b, err := bank.New(t.Context(), bank.Config{
		// What is expected of a dead daemon is that of userspace ESP; e2e/kernelesp has the other.
		Bin: binaries, Dir: dir, KeyLog: true, NodeArgs: []string{"--datapath", "userspace"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			showLogs(t, dir)
		}
		if err := b.Close(); err != nil {
			t.Errorf("close the Bank: %v", err)
		}
	})
	if err := b.StartController(t.Context()); err != nil {
		t.Fatal(err)
	}
	for policy, container := range map[string]string{
		clientPolicy:       "dc=bank,dc=example",
		serverPolicy:       "OU=Servers,dc=bank,dc=example",
		secureServerPolicy: "OU=SecureServers,dc=bank,dc=example",
	} {
		admin(t, b, "link", policy, container)
	}
	policies := map[bank.Class]string{bank.Client: clientPolicy, bank.Server: serverPolicy, bank.SecureServer: secureServerPolicy}
	for _, name := range machines {
		m := b.Machine(name)
		if _, err := b.Join(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		startNode(t, b, m, policies[m.Class])
	}
	return b
}

// startNode starts the daemon of a machine and waits until it enforces a policy.
func startNode(t *testing.T, b *bank.Bank, m bank.Machine, policy string) localapi.Status {
	t.Helper()
	if err := b.StartNode(m); err != nil {
		t.Fatal(err)
	}
	status, err := b.AwaitPolicy(t.Context(), m, policy)
	if err != nil {
		t.Fatal(err)
	}
	return status
}

func showLogs(t *testing.T, dir string) {
	logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		return
	}
	for _, path := range logs {
		content, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		lines := strings.Split(string(content), "\n")
		t.Logf("-- %s\n%s", filepath.Base(path), strings.Join(lines[max(0, len(lines)-60):], "\n"))
	}
}

func admin(t *testing.T, b *bank.Bank, args ...string) string {
	t.Helper()
	out, err := b.Admin(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// awaitOtherBundle waits until the machine enforces another bundle and has it confirmed, and returns its digest.
func awaitOtherBundle(t *testing.T, b *bank.Bank, m bank.Machine, before string) string {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		status, err := b.Node(m).Status(t.Context())
		if err == nil && status.Digest != before && !status.Probation {
			return status.Digest
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s still enforces %s after 30 s: %+v, %v", m.Name, before, status, err)
		}
	}
}

// TestNoPayloadInClearWhateverHappens holds a protected connection through a change of policy, a lost controller, rekeys,
// and a daemon that dies and comes back, and looks at every octet that crossed the bridge.
func TestNoPayloadInClearWhateverHappens(t *testing.T) {
	b := openBank(t, "sql1", "ws1")
	sql1, ws1 := b.Machine("sql1"), b.Machine("ws1")
	flow, err := b.OpenFlow(t.Context(), ws1, sql1)
	if err != nil {
		t.Fatal(err)
	}
	defer flow.Close()

	before, err := b.Node(sql1).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// A change of the fleet's settings gives every machine another bundle.
	settings := filepath.Join(t.TempDir(), "settings.yaml")
	if err := os.WriteFile(settings, []byte("apiVersion: bailiwick.net/v1alpha1\nkind: Settings\nbreakGlassTCP: [2222]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	admin(t, b, "apply", "-f", settings)
	after := awaitOtherBundle(t, b, sql1, before.Digest)
	if _, _, err := b.RekeyAll(t.Context(), sql1, ws1.Address); err != nil {
		t.Fatal(err)
	}
	if err := b.KillController(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.RekeyAll(t.Context(), sql1, ws1.Address); err != nil {
		t.Fatal(err)
	}
	if err := b.KillNode(sql1); err != nil {
		t.Fatal(err)
	}
	// Meanwhile the connection sends; nothing of it may pass in clear.
	cell, err := b.Measure(t.Context(), sql1, ws1, 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if cell.Seen != bank.Blocked {
		t.Errorf("with the daemon of sql1 dead, an exchange from it was %q (%s), want it blocked", cell.Seen, cell.Wire)
	}
	if err := b.StartController(t.Context()); err != nil {
		t.Fatal(err)
	}
	status := startNode(t, b, sql1, secureServerPolicy)
	if status.Digest != after {
		t.Errorf("after its restart sql1 enforces bundle %s, want %s", status.Digest, after)
	}
	again, err := b.Measure(t.Context(), ws1, sql1, 15*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if again.Seen != bank.Protected {
		t.Errorf("after the restart an exchange was %q (%s; %s), want IPsec", again.Seen, again.Wire, again.Err)
	}
	report, err := flow.Close()
	if err != nil {
		t.Errorf("the connection did not survive: %v", err)
	}
	if report.Wire.ClearPayload > 0 || report.Wire.ESP == 0 {
		t.Errorf("over the whole run: %s; want ESP and no payload in clear", report.Wire)
	}
	if found := tshark.Holding(report.Frames, report.Payload); len(found) > 0 {
		t.Errorf("%d frames hold the payload without any key", len(found))
	}
	judge(t, b, report, sql1, ws1)
}

// judge lets tshark open the run with the key logs: the payload must be there, under several SPIs, and nowhere without
// the keys.
func judge(t *testing.T, b *bank.Bank, report bank.FlowReport, machines ...bank.Machine) {
	t.Helper()
	var logs []string
	for _, m := range machines {
		logs = append(logs, b.KeyLog(m))
	}
	keys, err := tshark.ReadKeys(logs...)
	if err != nil {
		t.Fatal(err)
	}
	filter := fmt.Sprintf("tcp.port == %d && tcp.len > 0", bank.EchoPort)
	for _, q := range []struct {
		name string
		keys tshark.Keys
		want bool
	}{{"with the key log", keys, true}, {"without keys", nil, false}} {
		packets, err := tshark.Run(t.Context(), tshark.Query{Frames: report.Frames, Keys: q.keys, Filter: filter, Fields: []string{"esp.spi"}})
		if err != nil {
			t.Fatal(err)
		}
		spis := map[string]bool{}
		for _, p := range packets {
			for _, spi := range p[0] {
				spis[spi] = true
			}
		}
		if q.want && (len(packets) < report.Messages || len(spis) < 4) || !q.want && len(packets) > 0 {
			t.Errorf("%s tshark finds %d segments with payload under %d SPIs, %d messages were exchanged", q.name, len(packets), len(spis), report.Messages)
		}
	}
}
