package scenarios

import (
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/bank"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// authorities is what "ca status" tells.
type authorities struct {
	Authorities []struct{ ID, Status, IssuingSubject string }
	Nodes       []struct {
		Machine string
		Current bool
	}
	Waiting int
}

func caStatus(t *testing.T, b *bank.Bank) authorities {
	t.Helper()
	var a authorities
	if err := json.Unmarshal([]byte(admin(t, b, "ca", "status", "-o", "json")), &a); err != nil {
		t.Fatal(err)
	}
	return a
}

// issuerOf is the name of the CA that a machine's certificate on its disk is by.
func issuerOf(t *testing.T, b *bank.Bank, m bank.Machine) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(b.StateDir(m), "credentials.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		leaf, err := trust.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return leaf.Issuer.String()
	}
	t.Fatalf("%s has no certificate", m.Name)
	return ""
}

// until asks again until something holds.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// TestRotationUnderTraffic replaces root and issuing CA while two machines talk: the flow loses no message, its associations
// are the same from beginning to end, a machine that is away holds the next CA back, and with new certificates all negotiate
// again.
func TestRotationUnderTraffic(t *testing.T) {
	b := openBank(t, "sql1", "sql2", "ws1")
	sql1, sql2, ws1 := b.Machine("sql1"), b.Machine("sql2"), b.Machine("ws1")
	flow, err := b.OpenFlow(t.Context(), ws1, sql1)
	if err != nil {
		t.Fatal(err)
	}
	defer flow.Close()
	if err := flow.Await(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	before := peersAndSPIs(t, b, sql1, ws1)
	first := issuerOf(t, b, ws1)

	// One of the machines is away, so the next CA may not issue.
	if err := b.KillNode(sql2); err != nil {
		t.Fatal(err)
	}
	admin(t, b, "ca", "rotate", "prepare", "--root")
	until(t, "all but sql2 trust the next CA", func() bool {
		a := caStatus(t, b)
		return len(a.Nodes) == 3 && a.Waiting == 1
	})
	if out, err := b.Admin(t.Context(), "ca", "rotate", "activate"); err == nil || !strings.Contains(err.Error()+out, "sql2") {
		t.Fatalf("activating while sql2 is away gave %v, %s", err, out)
	}
	if err := b.StartNode(sql2); err != nil {
		t.Fatal(err)
	}
	until(t, "sql2 trusts the next CA", func() bool { return caStatus(t, b).Waiting == 0 })
	admin(t, b, "ca", "rotate", "activate")
	for _, m := range []bank.Machine{sql1, ws1} {
		until(t, m.Name+" has a certificate by the next CA", func() bool { return issuerOf(t, b, m) != first })
	}
	seen := caStatus(t, b)
	var old string
	for _, a := range seen.Authorities {
		if a.Status == "superseded" {
			old = a.ID
		}
	}
	if out, err := b.Admin(t.Context(), "ca", "rotate", "retire", old); err == nil {
		t.Errorf("the CA was retired although certificates of it count: %s", out)
	}
	// The controller starts again between the steps, and nobody notices.
	if err := b.KillController(); err != nil {
		t.Fatal(err)
	}
	if err := b.StartController(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, m := range []bank.Machine{sql1, sql2, ws1} {
		if err := b.AwaitSession(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	if after := peersAndSPIs(t, b, sql1, ws1); after != before {
		t.Errorf("the associations were %+v, and are %+v after the rotation", before, after)
	}
	report, err := flow.Close()
	if err != nil || report.Messages < 50 {
		t.Fatalf("the flow ended after %d messages with %v", report.Messages, err)
	}
	t.Logf("%d messages, longest wait %v", report.Messages, report.LongestWait)
	wantOutcome(t, b, sql2, sql1, bank.Protected, 15*time.Second, "after the rotation")
	if err := b.KillNode(ws1); err != nil {
		t.Fatal(err)
	}
	if err := b.StartNode(ws1); err != nil {
		t.Fatal(err)
	}
	if err := b.AwaitSession(t.Context(), ws1); err != nil {
		t.Fatal(err)
	}
	wantOutcome(t, b, ws1, sql1, bank.Protected, 30*time.Second, "with new certificates")
	if out := admin(t, b, "ca", "journal", "verify"); !strings.Contains(out, "nothing was changed") {
		t.Errorf("the journal after the rotation: %s", out)
	}
}

// peersAndSPIs is the IKE SA and the Child SA that a machine has with another.
func peersAndSPIs(t *testing.T, b *bank.Bank, m, other bank.Machine) bank.SPIs {
	t.Helper()
	all, err := b.Node(m).Associations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var found bank.SPIs
	for _, s := range all.IKE {
		if strings.Contains(s.Remote, other.Address.String()) && !s.Established.IsZero() {
			found.IKE = s.SPI
		}
	}
	for _, c := range all.Children {
		if strings.Contains(c.Remote, other.Address.String()) && c.Current {
			found.Child = c.In
		}
	}
	if found.IKE == "" || found.Child == "" {
		t.Fatalf("%s has no association with %s", m.Name, other.Name)
	}
	return found
}
