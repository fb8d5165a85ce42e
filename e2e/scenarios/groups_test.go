package scenarios

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/bank"
)

// tellersOnly is Secure Server for the members of a group, direct ones and those of groups in it.
const tellersOnly = `apiVersion: bailiwick.net/v1alpha1
kind: Policy
name: Tellers Only
rules:
  - name: All IP Traffic
    filterList: All IP Traffic
    filterAction: Require Security
    peerGroups:
      - CN=Tellers,DC=bank,DC=example
`

// editDirectory replaces a text in the directory, once.
func editDirectory(t *testing.T, b *bank.Bank, old, text string) {
	t.Helper()
	content, err := os.ReadFile(b.Directory())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(content), old) != 1 {
		t.Fatalf("%q stands %d times in the directory, want once", old, strings.Count(string(content), old))
	}
	next := b.Directory() + ".next"
	if err := os.WriteFile(next, []byte(strings.Replace(string(content), old, text, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, b.Directory()); err != nil {
		t.Fatal(err)
	}
}

// TestOnlyMembersOfAGroupGetIn gives a server a policy for the members of a group: one directly in it and one through
// another group get in, a third machine with as good a certificate does not. Who leaves the group is cut off within
// seconds, and a restart without the controller lets nobody in who is out, and cuts nobody off who is in.
func TestOnlyMembersOfAGroupGetIn(t *testing.T) {
	b := openBank(t, "sql1", "sql2", "ws1", "ws2")
	sql1, sql2, ws1, ws2 := b.Machine("sql1"), b.Machine("sql2"), b.Machine("ws1"), b.Machine("ws2")
	talk := func(from, to bank.Machine, want bank.Outcome, wait time.Duration, when string) {
		t.Helper()
		wantOutcome(t, b, from, to, want, wait, when)
	}
	policy := filepath.Join(t.TempDir(), "tellers.yaml")
	if err := os.WriteFile(policy, []byte(tellersOnly), 0o600); err != nil {
		t.Fatal(err)
	}
	admin(t, b, "apply", "-f", policy)
	admin(t, b, "link", "Tellers Only", "OU=SecureServers,dc=bank,dc=example")
	admin(t, b, "unlink", secureServerPolicy, "OU=SecureServers,dc=bank,dc=example")
	for _, m := range []bank.Machine{sql1, sql2} {
		if _, err := b.AwaitPolicy(t.Context(), m, "Tellers Only"); err != nil {
			t.Fatal(err)
		}
	}
	talk(ws1, sql1, bank.Protected, 15*time.Second, "a member")
	talk(ws2, sql1, bank.Protected, 15*time.Second, "a member of a group in the group")
	talk(sql2, sql1, bank.Blocked, 3*time.Second, "no member")
	talk(sql1, sql2, bank.Blocked, 3*time.Second, "no member")

	editDirectory(t, b, "member: cn=ws1,OU=Workstations,dc=bank,dc=example\n", "")
	awaitCut(t, b, sql1, ws1, time.Now())
	talk(ws1, sql1, bank.Blocked, 3*time.Second, "who left")
	talk(ws2, sql1, bank.Protected, 15*time.Second, "who stayed")

	restartAlone(t, b, sql1, "Tellers Only")
	talk(ws2, sql1, bank.Protected, 60*time.Second, "who stayed, after a restart without the controller")
	talk(ws1, sql1, bank.Blocked, 3*time.Second, "who left, after a restart without the controller")
}
