package scenarios

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/bank"
	"github.com/bailiwick-net/bailiwick/e2e/lab/slapd"
)

// ldapController is the controller's binary, reading a real slapd over LDAPS.
type ldapController struct {
	t      *testing.T
	dir    string
	server *slapd.Server
}

func startLDAPController(t *testing.T) *ldapController {
	t.Helper()
	server := slapd.ForTest(t, slapd.Options{})
	if err := server.Load(t.Context(), bank.LDIF()); err != nil {
		t.Fatal(err)
	}
	c := &ldapController{t, t.TempDir(), server}
	if err := os.Chmod(c.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"passphrase": "correct horse battery staple",
		"controller.yaml": fmt.Sprintf(`
stateDir: %s/state
listen: ["127.0.0.1:0"]
names: [127.0.0.1]
admin:
  socket: %[1]s/admin.sock
ca:
  init: true
  passphraseFile: %[1]s/passphrase
directory:
  ldap:
    url: %[2]s
    base: dc=bank,dc=example
    bindDN: %[3]s
    passwordFile: %[4]s
    caFile: %[5]s
    interval: 1s
`, c.dir, server.LDAPS, server.RootDN, server.PasswordFile, server.CAFile),
	} {
		if err := os.WriteFile(filepath.Join(c.dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := exec.CommandContext(ctx, filepath.Join(binaries, "bailiwick-controller"), "--config", filepath.Join(c.dir, "controller.yaml"))
	log, err := os.Create(filepath.Join(c.dir, "controller.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		if t.Failed() {
			showLogs(t, c.dir)
		}
	})
	return c
}

func (c *ldapController) admin(args ...string) (string, error) {
	cmd := exec.CommandContext(c.t.Context(), filepath.Join(binaries, "bailiwick"), append([]string{"--socket", filepath.Join(c.dir, "admin.sock")}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// machine is what "get machines" tells.
type machine struct {
	Name, Policy, Container, UUID string
	Disabled                      bool
}

func (c *ldapController) machines() map[string]machine {
	out, err := c.admin("get", "machines", "--output", "json")
	if err != nil {
		return nil
	}
	var answer struct{ Machines []machine }
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		c.t.Fatalf("get machines printed %s: %v", out, err)
	}
	byName := map[string]machine{}
	for _, m := range answer.Machines {
		byName[m.Name] = m
	}
	return byName
}

// until waits for something that the controller does by itself.
func (c *ldapController) until(what string, done func() bool) {
	c.t.Helper()
	deadline := time.After(40 * time.Second)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			status, _ := c.admin("directory", "status")
			c.t.Fatalf("not within 40 s: %s; machines %v\n%s", what, c.machines(), status)
		}
	}
}

func TestControllerFollowsSlapdAndSurvivesItsLoss(t *testing.T) {
	c := startLDAPController(t)
	c.until("all machines are read over LDAPS", func() bool { return len(c.machines()) == 7 })
	for policy, container := range map[string]string{clientPolicy: "dc=bank,dc=example", secureServerPolicy: "OU=SecureServers,dc=bank,dc=example"} {
		if out, err := c.admin("link", policy, container); err != nil {
			t.Fatalf("link: %v: %s", err, out)
		}
	}
	c.until("policies are assigned", func() bool {
		m := c.machines()
		return m["ws2"].Policy == clientPolicy && m["sql1"].Policy == secureServerPolicy
	})
	before := c.machines()

	// The server is lost: what was read stays, and the status says why nothing new comes.
	c.server.Kill()
	c.until("the loss is shown", func() bool {
		out, err := c.admin("directory", "status")
		return err == nil && strings.Contains(out, "Error")
	})
	if now := c.machines(); len(now) != len(before) || now["sql1"] != before["sql1"] {
		t.Errorf("machines while the directory is away: %v, want %v", now, before)
	}
	if err := c.server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A move keeps the machine's identity and changes its policy.
	if err := c.server.Modify(t.Context(), "dn: cn=ws2,OU=Workstations,dc=bank,dc=example\nchangetype: modrdn\nnewrdn: cn=ws2\ndeleteoldrdn: 0\nnewsuperior: OU=SecureServers,dc=bank,dc=example\n"); err != nil {
		t.Fatal(err)
	}
	c.until("the moved machine gets the policy of its new container", func() bool { return c.machines()["ws2"].Policy == secureServerPolicy })
	if now := c.machines()["ws2"]; now.UUID == "" || now.UUID != before["ws2"].UUID {
		t.Errorf("after the move ws2 is %q, want %q as before", now.UUID, before["ws2"].UUID)
	}
}
