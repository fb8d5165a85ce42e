// Package imported reads the IPsec policies of a real Active Directory domain, as an administrator would: Samba makes the
// domain, and the command imports over LDAP.
//
// Its invariant: everything is gone when the test ends. It leaves what the objects say in detail to policies/gpipsec.
package imported

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-net/bailiwick/e2e/lab/samba"
	"github.com/bailiwick-net/bailiwick/policies"
)

// TestDomain makes one domain for what has a use for its policies: who changes them comes after who wants them as they were
// made.
func TestDomain(t *testing.T) {
	dc := samba.ForTest(t, samba.Options{Prefix: "bwad-"})
	t.Run("Import", func(t *testing.T) { importPolicies(t, dc) })
	t.Run("NativeAssignment", func(t *testing.T) { assignNatively(t, dc) })
}

// importPolicies imports the policies of a new domain with a simple bind over LDAPS. They are those of the file that other
// tests use, whatever order the server returns them in.
func importPolicies(t *testing.T, dc *samba.Server) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	binary := filepath.Join(t.TempDir(), "bailiwick")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/bailiwick-net/bailiwick/cmd/bailiwick").CombinedOutput(); err != nil {
		t.Fatalf("build bailiwick: %v\n%s", err, out)
	}
	var said strings.Builder
	cmd := exec.CommandContext(ctx, binary, "import", "windows", "--ldap", dc.LDAPS, "--base", dc.Base, "--bind-dn", dc.Administrator,
		"--password-file", dc.PasswordFile, "--ldap-ca", dc.CAFile)
	cmd.Stderr = &said
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("import: %v\n%s\n%s", err, said.String(), dc.Log())
	}
	got, err := policies.Decode("imported.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile("../../../policies/gpipsec/testdata/samba.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want, err := policies.Decode("samba.yaml", file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want.Export()), string(got.Export())); diff != "" {
		t.Errorf("the policies of the domain are others than those of the file (-file +domain):\n%s", diff)
	}
}
