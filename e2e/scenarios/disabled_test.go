package scenarios

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/bank"
)

// setAccount writes another userAccountControl of a machine into the directory.
func setAccount(t *testing.T, b *bank.Bank, m bank.Machine, from, to string) {
	t.Helper()
	content, err := os.ReadFile(b.Directory())
	if err != nil {
		t.Fatal(err)
	}
	entries := strings.Split(string(content), "\n\n")
	changed := 0
	for i, e := range entries {
		if strings.Contains(e, "dNSHostName: "+m.DNSName()+"\n") {
			entries[i] = strings.Replace(e, "userAccountControl: "+from, "userAccountControl: "+to, 1)
			if entries[i] != e {
				changed++
			}
		}
	}
	if changed != 1 {
		t.Fatalf("%d entries of %s have userAccountControl %s, want 1", changed, m.Name, from)
	}
	next := b.Directory() + ".next"
	if err := os.WriteFile(next, []byte(strings.Join(entries, "\n\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, b.Directory()); err != nil {
		t.Fatal(err)
	}
}

// peersOf are the addresses of the peers with which a machine has IKE SAs or Child SAs.
func peersOf(t *testing.T, b *bank.Bank, m bank.Machine) string {
	t.Helper()
	a, err := b.Node(m).Associations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, c := range a.Children {
		list = append(list, c.Remote)
	}
	return strings.Join(list, " ")
}

// wantOutcome measures an exchange between two machines.
func wantOutcome(t *testing.T, b *bank.Bank, from, to bank.Machine, want bank.Outcome, wait time.Duration, when string) {
	t.Helper()
	cell, err := b.Measure(t.Context(), from, to, wait)
	if err != nil {
		t.Fatal(err)
	}
	if cell.Seen != want {
		t.Errorf("%s, %s to %s is %q (%s; %s), want %q", when, from.Name, to.Name, cell.Seen, cell.Wire, cell.Err, want)
	}
}

// awaitCut waits until a machine has no association with another any more, and says how long after start that was.
func awaitCut(t *testing.T, b *bank.Bank, m, other bank.Machine, start time.Time) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for strings.Contains(peersOf(t, b, m), other.Address.String()) {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s still has associations with %s after 30 s: %s", m.Name, other.Name, peersOf(t, b, m))
		}
	}
	t.Logf("%s has cut %s off %v after the change in the directory", m.Name, other.Name, time.Since(start).Round(10*time.Millisecond))
}

// restartAlone kills a machine's node and starts it again without a controller.
func restartAlone(t *testing.T, b *bank.Bank, m bank.Machine, policy string) {
	t.Helper()
	if err := b.KillController(); err != nil {
		t.Fatal(err)
	}
	if err := b.KillNode(m); err != nil {
		t.Fatal(err)
	}
	startNode(t, b, m, policy)
}

// TestDisabledMachineIsCutOffInSeconds disables a machine in the directory while it talks to two others: they cut it off
// although its certificate is good for weeks, do not let it in again, also after a restart, and talk on with each other.
// Enabled again, it gets in again.
func TestDisabledMachineIsCutOffInSeconds(t *testing.T) {
	const enabled, disabled = "4096", "4098"
	b := openBank(t, "sql1", "sql2", "ws1")
	sql1, sql2, ws1 := b.Machine("sql1"), b.Machine("sql2"), b.Machine("ws1")
	talk := func(from, to bank.Machine, want bank.Outcome, wait time.Duration, when string) {
		t.Helper()
		wantOutcome(t, b, from, to, want, wait, when)
	}
	talk(ws1, sql1, bank.Protected, 15*time.Second, "before")
	talk(ws1, sql2, bank.Protected, 15*time.Second, "before")
	talk(sql1, sql2, bank.Protected, 15*time.Second, "before")

	setAccount(t, b, ws1, enabled, disabled)
	start := time.Now()
	for _, m := range []bank.Machine{sql1, sql2} {
		awaitCut(t, b, m, ws1, start)
	}
	if peers := peersOf(t, b, sql1); !strings.Contains(peers, sql2.Address.String()) {
		t.Errorf("sql1 lost its association with sql2 as well: %q", peers)
	}
	talk(ws1, sql1, bank.Blocked, 3*time.Second, "disabled")
	talk(sql2, ws1, bank.Blocked, 3*time.Second, "disabled")
	talk(sql1, sql2, bank.Protected, 15*time.Second, "meanwhile")

	// Without a controller a restart brings nobody back.
	restartAlone(t, b, sql1, secureServerPolicy)
	talk(ws1, sql1, bank.Blocked, 3*time.Second, "after a restart without the controller")
	if err := b.StartController(t.Context()); err != nil {
		t.Fatal(err)
	}
	setAccount(t, b, ws1, disabled, enabled)
	for _, m := range []bank.Machine{sql1, ws1} {
		if err := b.AwaitSession(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	talk(ws1, sql1, bank.Protected, 60*time.Second, "enabled again")
}
