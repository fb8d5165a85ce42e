package settings

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/guard"
	"github.com/bailiwick-net/bailiwick/directory/ldap"
)

const server = "directory:\n  ldap:\n    url: ldaps://ldap.bank.example\n    base: dc=bank,dc=example\n"

func TestParse(t *testing.T) {
	c, err := Parse("c.yaml", []byte(`stateDir: /srv
unknown: of the others' business
directory:
  grace: 48h
  guard: {share: 0.05, containers: [{container: 'ou=A,dc=bank,dc=example', floor: 2}]}
  removed: [attic]
  sources:
    - name: bank
      ldap:
        url: ldaps://ldap.bank.example
        base: dc=bank,dc=example
        schema: 389ds
        bindDN: cn=x
        passwordFile: /secret
        mapping: {identity: entryUUID, machineClasses: [1.2.3, ieee802Device], excludedClasses: [], machineFilter: '(cn=a*)', primaryGroup: ''}
    - name: branch
      ldif: {path: b.ldif, base: dc=branch}
      guard: {ceiling: 3}
      grace: 1h
`))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Sources) != 2 || !slices.Equal(c.Removed, []string{"attic"}) {
		t.Fatalf("parsed %+v", c)
	}
	bank, branch := c.Sources[0], c.Sources[1]
	s := bank.LDAP.Schema
	if s.Identity != directory.EntryUUID || !slices.Equal(s.MachineClasses, []string{"1.2.3", "ieee802Device"}) || len(s.ExcludedClasses) != 0 || s.MachineFilter != "(cn=a*)" ||
		len(s.GroupClasses) == 0 || bank.LDAP.Bind != (ldap.Simple{DN: "cn=x", PasswordFile: "/secret"}) {
		t.Errorf("schema %+v, bind %+v", s, bank.LDAP.Bind)
	}
	if bank.Limits.Share != 0.05 || bank.Limits.Floor != guard.Default().Floor || bank.Limits.Window != guard.Default().Window || len(bank.Containers) != 1 || bank.Grace != 48*time.Hour {
		t.Errorf("limits %+v, containers %+v, grace %v", bank.Limits, bank.Containers, bank.Grace)
	}
	if branch.Path != "b.ldif" || branch.Limits.Ceiling != 3 || branch.Limits.Share != guard.Default().Share || len(branch.Containers) != 0 || branch.Grace != time.Hour || branch.Location() != "b.ldif" {
		t.Errorf("branch %+v", branch)
	}
	for _, source := range c.Sources {
		opened, err := source.Open()
		if err != nil {
			t.Errorf("what was checked cannot be opened: %v", err)
			continue
		}
		opened.Close()
	}
}

func TestMistakesHaveTheirPlace(t *testing.T) {
	for text, want := range map[string]string{
		"stateDir: x\n":                                                                            "no section directory",
		"directory: {}\n":                                                                          "c.yaml:1:12: directory: exactly one",
		"directory:\n  ldif: {path: ''}\n":                                                         "c.yaml:2:16: directory.ldif.path",
		"directory:\n  ldif: {path: x, base: nonsense}\n":                                          "c.yaml:2:25: directory.ldif.base",
		"directory:\n  ldif: {path: x}\n  ldap: {url: y}\n":                                        "exactly one",
		"directory:\n  ldif: {path: x}\n  grace: -1h\n":                                            "c.yaml:3:10: directory.grace",
		"directory:\n  ldif: {pth: x}\n":                                                           "pth",
		"directory:\n  ldif: [x\n":                                                                 "c.yaml",
		server + "    schema: novell\n":                                                            "c.yaml:5:13: directory.ldap.schema",
		server + "    external: true\n    bindDN: cn=x\n":                                          "exclude each other",
		server + "    bindDN: cn=x\n":                                                              "bindDN needs passwordFile",
		server + "    startTLS: true\n":                                                            "c.yaml:3:5: directory.ldap",
		server + "    mapping: {identity: guid}\n":                                                 "c.yaml:5:25: directory.ldap.mapping.identity",
		server + "    mapping: {machineClasses: []}\n":                                             "directory.ldap.mapping.machineClasses: at least one",
		server + "    mapping:\n      machineName: [cn, '(x=*)']\n":                                "c.yaml:6:25: directory.ldap.mapping.machineName[1]",
		server + "    mapping: {groupMember: []}\n":                                                "groups need an attribute",
		server + "    mapping: {sid: 'a b'}\n":                                                     "directory.ldap.mapping.sid",
		server + "    mapping: {machineFilter: '(cn=a'}\n":                                         "is not a filter",
		server + "  guard: {share: 0.6}\n":                                                         "as good as switched off",
		server + "  guard: {floor: 1000}\n":                                                        "as good as switched off",
		server + "  guard: {window: 1s}\n":                                                         "way around the guard",
		server + "  guard: {ceiling: -1}\n":                                                        "ceiling -1",
		server + "  guard: {containers: [{container: x}]}\n":                                       "directory.guard.containers[0].container",
		server + "  guard: {containers: [{container: 'ou=a', floor: -1}]}\n":                       "directory.guard.containers[0]",
		server + "  removed: [default]\n":                                                          "both removed and a source",
		server + "  removed: ['A B']\n":                                                            "cannot be the name",
		"directory:\n  sources: [{name: UP, ldif: {path: x}}]\n":                                   "c.yaml:2:20: directory.sources[0].name",
		"directory:\n  sources: [{name: a}]\n":                                                     "exactly one of ldif and ldap",
		"directory:\n  sources: [{name: a, ldif: {path: x}, grace: 0s}]\n":                         "not positive",
		"directory:\n  sources:\n  - {name: a, ldif: {path: x}}\n  - {name: a, ldif: {path: y}}\n": "c.yaml:4:12: directory.sources[1].name",
		"directory:\n  sources:\n  - {name: a, ldif: {path: x}}\n  - {name: b, ldif: {path: x}}\n": "reads what source \"a\" reads",
	} {
		_, err := Parse("c.yaml", []byte(text))
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gave %v, wanted ErrInvalid with %q", text, err, want)
		}
	}
}

func TestReadFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	if _, err := ReadFile(path); !errors.Is(err, ErrInvalid) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there gave %v", err)
	}
	if err := os.WriteFile(path, []byte(server), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := ReadFile(path); err != nil || c.Sources[0].Name != DefaultName {
		t.Errorf("read %+v, %v", c, err)
	}
	if err := os.Truncate(path, maxFile+1); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(path); !errors.Is(err, ErrInvalid) {
		t.Errorf("a file that is too large gave %v", err)
	}
}

// TestExamplesOfTheDocumentation: what DIRECTORIES.md shows is accepted. Its fragments are of the section, or of a server.
func TestExamplesOfTheDocumentation(t *testing.T) {
	text, err := os.ReadFile("../DIRECTORIES.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(text), "```yaml\n")[1:]
	if len(blocks) < 4 {
		t.Fatalf("found %d examples", len(blocks))
	}
	for _, block := range blocks {
		block, _, _ = strings.Cut(block, "```")
		if !strings.HasPrefix(block, "directory:") {
			block = server + block
		}
		if _, err := Parse("DIRECTORIES.md", []byte(block)); err != nil {
			t.Errorf("%v\n%s", err, block)
		}
	}
}

func TestProbeOfAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fleet.ldif")
	s := CheckedSource{Path: path, Containers: []guard.ContainerLimits{{Container: directory.MustParseDN("ou=A,dc=bank,dc=example"), Share: 0.1}}}
	if got := ldap.Worst(s.Probe(t.Context(), time.Now)); got != ldap.Failure {
		t.Errorf("a file that is not there is %v", got)
	}
	if err := os.WriteFile(path, []byte("dn: dc=bank,dc=example\nobjectClass: domain\ndc: bank\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := ldap.Worst(s.Probe(t.Context(), time.Now)); got != ldap.Warning {
		t.Errorf("limits for a container that is not there are %v", got)
	}
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := ldap.Worst(s.Probe(t.Context(), time.Now)); got != ldap.Failure {
		t.Errorf("nonsense is %v", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(server))
	f.Add([]byte("directory:\n  sources: [{name: a, ldif: {path: x}}, {name: a}]\n  guard: {share: 2}\n"))
	f.Add([]byte("directory: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("c.yaml", text)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("error %v does not wrap ErrInvalid", err)
			}
			return
		}
		for _, s := range c.Sources {
			if err := s.Limits.Validate(); err != nil || s.Limits.Share > maxShare || s.Limits.Floor > maxFloor {
				t.Errorf("limits %+v: %v", s.Limits, err)
			}
		}
	})
}
