package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/lab/slapd"
)

// TestCheckOfAFile tests the directory section of a controller's configuration against a real server, without a controller.
func TestCheckOfAFile(t *testing.T) {
	bank, err := os.ReadFile("../../e2e/bank/bank.ldif")
	if err != nil {
		t.Fatal(err)
	}
	server := slapd.ForTest(t, slapd.Options{
		Offline: bank, Config: "access to attrs=userPassword by anonymous auth\naccess to attrs=userAccountControl by * none\naccess to * by * read\n",
	})
	run := func(schema, rest string) (string, int) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "controller.yaml")
		text := "stateDir: /srv/bailiwick\ndirectory:\n  ldap:\n    url: " + server.LDAPS + "\n    base: dc=bank,dc=example\n    schema: " + schema +
			"\n    caFile: " + server.CAFile + "\n" + rest + "ca: {keyFile: nowhere}\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := command()
		var out, problems bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetArgs([]string{"directory", "check", "--config", path, "-o", "json"})
		executed, err := cmd.ExecuteContextC(t.Context())
		if err == nil {
			return out.String(), 0
		}
		report(&problems, executed, err)
		return out.String() + problems.String(), exitCode(err)
	}
	for name, tc := range map[string]struct {
		schema, rest string
		code         int
		words        []string
	}{
		"works, with a warning":  {"openldap", "", 0, []string{`"outcome": "warning"`, "none of 7 machines shows it", "by anonymous read"}},
		"mapped to nothing":      {"openldap", "    mapping:\n      machineClasses: [ieee802Device]\n", exitFindings, []string{`"outcome": "failed"`, "no entry below the base is a machine"}},
		"limits for nothing":     {"openldap", "  guard:\n    containers: [{container: 'ou=Nowhere,dc=bank,dc=example', share: 0.1}]\n", 0, []string{"ou=Nowhere", "guard nothing"}},
		"no such schema":         {"novell", "", exitRefused, []string{"controller.yaml:6:13", "novell", "389ds"}},
		"mistake in the mapping": {"openldap", "    mapping:\n      identity: uuid\n", exitRefused, []string{"controller.yaml:9:17", "directory.ldap.mapping.identity"}},
		"unknown field":          {"openldap", "    mapping:\n      machines: [x]\n", exitRefused, []string{"[9:7]", "machines"}},
		"guard switched off":     {"openldap", "  guard: {share: 1}\n", exitRefused, []string{"controller.yaml:8:18", "as good as switched off", "bailiwick directory raise"}},
	} {
		t.Run(name, func(t *testing.T) {
			out, code := run(tc.schema, tc.rest)
			if code != tc.code {
				t.Fatalf("exit code %d, wanted %d:\n%s", code, tc.code, out)
			}
			for _, w := range tc.words {
				if !strings.Contains(out, w) {
					t.Errorf("the output does not say %q:\n%s", w, out)
				}
			}
			if code == 0 && !json.Valid([]byte(out)) {
				t.Errorf("the output is no JSON:\n%s", out)
			}
		})
	}
}
