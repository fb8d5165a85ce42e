package scenarios

import (
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/bank"
)

// TestRevokedMachineIsCutOffInSeconds revokes the certificates of a machine while it talks to two others: they cut it off
// and do not let it in again, also after a restart without the controller, and talk on with each other. Another machine is
// put on hold, and gets in again with the same key when the hold is released.
func TestRevokedMachineIsCutOffInSeconds(t *testing.T) {
	b := openBank(t, "sql1", "sql2", "ws1")
	sql1, sql2, ws1 := b.Machine("sql1"), b.Machine("sql2"), b.Machine("ws1")
	talk := func(from, to bank.Machine, want bank.Outcome, wait time.Duration, when string) {
		t.Helper()
		wantOutcome(t, b, from, to, want, wait, when)
	}
	admin := func(args ...string) string {
		t.Helper()
		out, err := b.Admin(t.Context(), args...)
		if err != nil {
			t.Fatalf("bailiwick %q: %v\n%s", args, err, out)
		}
		return out
	}
	talk(ws1, sql1, bank.Protected, 15*time.Second, "before")
	talk(ws1, sql2, bank.Protected, 15*time.Second, "before")
	talk(sql1, sql2, bank.Protected, 15*time.Second, "before")

	start := time.Now()
	if out := admin("cert", "revoke", "ws1", "--reason", "certificateHold"); !strings.Contains(out, "3 connected nodes told") {
		t.Errorf("the revocation says:\n%s", out)
	}
	for _, m := range []bank.Machine{sql1, sql2} {
		awaitCut(t, b, m, ws1, start)
	}
	if peers := peersOf(t, b, sql1); !strings.Contains(peers, sql2.Address.String()) {
		t.Errorf("sql1 lost its association with sql2 as well: %q", peers)
	}
	talk(ws1, sql1, bank.Blocked, 3*time.Second, "on hold")
	talk(sql1, sql2, bank.Protected, 15*time.Second, "meanwhile")
	admin("cert", "release", "ws1")
	if err := b.AwaitSession(t.Context(), ws1); err != nil {
		t.Fatal(err)
	}
	talk(ws1, sql1, bank.Protected, 60*time.Second, "released")

	start = time.Now()
	admin("cert", "revoke", "ws1", "--reason", "keyCompromise")
	awaitCut(t, b, sql1, ws1, start)
	talk(ws1, sql1, bank.Blocked, 3*time.Second, "revoked")
	talk(sql2, ws1, bank.Blocked, 3*time.Second, "revoked")
	restartAlone(t, b, sql1, secureServerPolicy)
	talk(ws1, sql1, bank.Blocked, 3*time.Second, "after a restart without the controller")
}
