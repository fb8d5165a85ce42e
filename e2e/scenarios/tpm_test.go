package scenarios

import (
	"bytes"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/bank"
	"github.com/bailiwick-net/bailiwick/e2e/lab/swtpm"
	"github.com/bailiwick-net/bailiwick/node/tpm"
)

// keyBlocks is what a machine has on its disk of its key.
func keyBlocks(t *testing.T, b *bank.Bank, m bank.Machine) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(b.StateDir(m), "credentials.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(content, []byte("BEGIN PRIVATE KEY")) {
		t.Errorf("the private key of %s is in a file", m.Name)
	}
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == tpm.PEMKey {
			return block.Bytes
		}
	}
	t.Fatalf("there is no key of a TPM in the file of %s", m.Name)
	return nil
}

// restart kills the daemon of a machine, does something, and starts it again.
func restart(t *testing.T, b *bank.Bank, m bank.Machine, between func() error) {
	t.Helper()
	if err := b.KillNode(m); err != nil {
		t.Fatal(err)
	}
	if err := between(); err != nil {
		t.Fatal(err)
	}
	if err := b.StartNode(m); err != nil {
		t.Fatal(err)
	}
}

// TestKeyInTheTPM has a machine live with a key that is in its TPM: it joins, talks to the controller and to its peer, from
// either side, gets a new key with the next certificate, and starts again after being killed. Without its TPM it enforces what
// it knows and says what is wrong, and with another one it enrols again.
func TestKeyInTheTPM(t *testing.T) {
	chip := swtpm.ForTest(t)
	b := openBank(t, "ws1")
	ws1, sql1 := b.Machine("ws1"), b.Machine("sql1")
	b.UseTPM(sql1, chip.Device)
	enrol := func() error {
		out, err := b.Join(t.Context(), sql1)
		if err == nil && !strings.Contains(out, "in the TPM "+chip.Device) {
			t.Errorf("join does not say where the key is: %s", out)
		}
		return err
	}
	if err := enrol(); err != nil {
		t.Fatal(err)
	}
	status := startNode(t, b, sql1, secureServerPolicy)
	if status.Key != "in the TPM "+chip.Device || status.KeyProblem != "" {
		t.Errorf("the key of sql1 is %q, with the problem %q", status.Key, status.KeyProblem)
	}
	first := keyBlocks(t, b, sql1)
	wantOutcome(t, b, ws1, sql1, bank.Protected, 15*time.Second, "with a key in the TPM of the responder")

	admin(t, b, "ca", "rotate", "prepare")
	until(t, "both trust the next CA", func() bool { return caStatus(t, b).Waiting == 0 })
	admin(t, b, "ca", "rotate", "activate")
	until(t, "sql1 has another key in its TPM", func() bool { return !bytes.Equal(keyBlocks(t, b, sql1), first) })

	restart(t, b, sql1, func() error { return nil })
	if err := b.AwaitSession(t.Context(), sql1); err != nil {
		t.Fatal(err)
	}
	wantOutcome(t, b, sql1, ws1, bank.Protected, 15*time.Second, "with the new key in the TPM of the initiator")

	restart(t, b, sql1, func() error { chip.Kill(); return nil })
	until(t, "sql1 enforces without its TPM and tells that", func() bool {
		status, err := b.Node(sql1).Status(t.Context())
		return err == nil && status.Policy == secureServerPolicy && strings.Contains(status.KeyProblem, "attach it")
	})
	if status, err := b.Node(sql1).Status(t.Context()); err != nil || status.Controller != "" {
		t.Errorf("without its TPM sql1 has a session with %q, %v", status.Controller, err)
	}
	if err := chip.Start(); err != nil {
		t.Fatal(err)
	}
	if err := b.AwaitSession(t.Context(), sql1); err != nil {
		t.Fatal(err)
	}

	restart(t, b, sql1, chip.Replace)
	until(t, "sql1 tells that its key is another TPM's", func() bool {
		status, err := b.Node(sql1).Status(t.Context())
		return err == nil && strings.Contains(status.KeyProblem, "enrol again")
	})
	restart(t, b, sql1, func() error {
		if _, err := b.Host(sql1).Run(filepath.Join(binaries, "bailiwick-node"), "leave", "--state-dir", b.StateDir(sql1)); err != nil {
			return err
		}
		return enrol()
	})
	if err := b.AwaitSession(t.Context(), sql1); err != nil {
		t.Fatal(err)
	}
	wantOutcome(t, b, ws1, sql1, bank.Protected, 30*time.Second, "with a key in another TPM")
}
