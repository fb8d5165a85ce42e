package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExitCodes(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ldif := write("fleet.ldif", "dn: dc=bank,dc=example\nobjectClass: domain\ndc: bank\n")
	secret := write("ca.secret", strings.Repeat("k", 32))
	config := write("controller.yaml", "stateDir: "+dir+"\ncolour: red\n")
	least := []string{"--directory", "ldif:" + ldif, "--ca-key-file", secret, "--state-dir", filepath.Join(dir, "state"), "--log-level", "error"}
	for name, test := range map[string]struct {
		args []string
		want int
		text string
	}{
		"unknown flag":       {[]string{"--colour"}, exitUsage, "colour"},
		"argument":           {[]string{"extra"}, exitUsage, "extra"},
		"no configuration":   {nil, exitUsage, "--directory"},
		"missing file":       {[]string{"--config", filepath.Join(dir, "none.yaml")}, exitUsage, "none.yaml"},
		"unknown field":      {[]string{"--config", config}, exitUsage, "[2:1]"},
		"log level":          {append([]string{"--log-level", "loud"}, least[:4]...), exitUsage, "loud"},
		"directory by flag":  {[]string{"--directory", "nonsense"}, exitUsage, "ldif:PATH"},
		"missing key file":   {[]string{"--directory", "ldif:" + ldif, "--ca-key-file", dir + "/none", "--state-dir", dir + "/s2", "--log-level", "error"}, exitFailure, "none"},
		"CA not made":        {append([]string{"--listen", "127.0.0.1:0"}, least...), exitNoCA, "bailiwick-controller init"},
		"init without files": {[]string{"init"}, exitUsage, "--directory"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := command()
			cmd.SetArgs(test.args)
			cmd.SetOut(new(bytes.Buffer))
			err := cmd.ExecuteContext(t.Context())
			if err == nil || exitCode(err) != test.want || !strings.Contains(err.Error(), test.text) {
				t.Errorf("got exit code %d and %v, wanted %d and %q", exitCode(err), err, test.want, test.text)
			}
		})
	}
}

func TestInitMakesACA(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"fleet.ldif": "dn: dc=bank,dc=example\nobjectClass: domain\ndc: bank\n", "ca.secret": strings.Repeat("k", 32),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{
		"--directory", "ldif:" + dir + "/fleet.ldif", "--ca-key-file", dir + "/ca.secret", "--state-dir", dir + "/state",
		"--log-level", "error",
	}
	cmd := command()
	cmd.SetArgs(append([]string{"init"}, args...))
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("init: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "state", "trust.pem")); err != nil {
		t.Errorf("there is no CA: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "state", "init.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("init left its socket: %v", err)
	}
	// Asked for again it changes nothing.
	before, err := os.ReadFile(filepath.Join(dir, "state", "trust.pem"))
	if err != nil {
		t.Fatal(err)
	}
	cmd = command()
	cmd.SetArgs(append([]string{"init"}, args...))
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("init again: %v", err)
	}
	if after, err := os.ReadFile(filepath.Join(dir, "state", "trust.pem")); err != nil || !bytes.Equal(before, after) {
		t.Errorf("init again made another CA, error %v", err)
	}
}
