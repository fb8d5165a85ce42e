package node

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/policies/predefined"
)

func TestLocalPolicyMayUsePredefinedDocuments(t *testing.T) {
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "policy.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const mine = `apiVersion: bailiwick.net/v1alpha1
kind: Policy
name: Mine
rules:
  - name: all
    filterList: All IP Traffic
    filterAction: Require Security
    authentication: [{method: certificate}]
`
	const other = `---
apiVersion: bailiwick.net/v1alpha1
kind: FilterAction
name: Require Security
action: negotiate
offers: ["ESP[AES-GCM-128]"]
`
	for _, tt := range []struct {
		name, text, policy, err string
	}{
		{"own policy with predefined lists", mine, "Mine", ""},
		{"predefined policy", mine, predefined.SecureServer, ""},
		{"own document instead of a predefined one", mine + other, "Mine", ""},
		{"unknown policy", mine, "Other", "Other"},
		{"unknown field", strings.Replace(mine, "name: Mine", "name: Mine\ntitel: x", 1), "Mine", "policy.yaml:4:1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := localPolicy(Config{Policy: write(tt.text), PolicyName: tt.policy})
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Fatalf("error %v, want one with %q", err, tt.err)
			}
			if err == nil && (v.Policy != tt.policy || len(v.Content) == 0) {
				t.Errorf("version %+v, want a bundle of %q", v, tt.policy)
			}
		})
	}
}

func TestConfigurationIsRefusedWhereItCannotBeMeant(t *testing.T) {
	for _, tt := range []struct {
		config Config
		err    string
	}{
		{Config{Encapsulation: "sometimes"}, "encapsulation"},
		{Config{OnStop: "explode"}, "onStop"},
		{Config{LogFormat: "xml"}, "logFormat"},
		{Config{LogLevel: "loud"}, "logLevel"},
		{Config{Policy: "file"}, "policyName"},
		{Config{}, ""},
	} {
		_, err := tt.config.validated()
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%+v: error %v, want one that names %q", tt.config, err, tt.err)
		}
	}
}

func TestLoadNamesThePlaceOfAMistake(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.yaml")
	if err := os.WriteFile(path, []byte("stateDir: /x\nlogLevl: debug\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path, true); err == nil || !strings.Contains(err.Error(), "logLevl") || !strings.Contains(err.Error(), "2:1") {
		t.Errorf("unknown field: %v, want its name and place", err)
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none"), true); err == nil {
		t.Error("a configuration file that was asked for and is not there was accepted")
	}
	if c, err := Load(filepath.Join(t.TempDir(), "none"), false); err != nil || !reflect.DeepEqual(c, Config{}) {
		t.Errorf("the default configuration file need not be there: %+v, %v", c, err)
	}
}

// The configuration reaches the local policy, whose mistakes have their place.
func TestOwnPolicy(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "local.yaml")
	if err := os.WriteFile(file, []byte("apiVersion: bailiwick.net/v1alpha1\nkind: Policy\nname: Home\nrules:\n  - {name: All, filterList: All IP Traffic, filterAction: Require Security}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := Config{StateDir: dir, LocalPolicy: file}.validated()
	if err != nil {
		t.Fatal(err)
	}
	if own, _, err := ownPolicy(config); err != nil || own.Name != "Home" || len(own.Rest.Rules) != 1 {
		t.Errorf("the local policy is %+v, error %v", own, err)
	}
	if own, _, err := ownPolicy(Config{StateDir: dir}); err != nil || own != nil {
		t.Errorf("without one: %+v, error %v", own, err)
	}
	config.LocalPolicyName = "Office"
	if _, _, err := ownPolicy(config); err == nil || !strings.Contains(err.Error(), `"Office"`) {
		t.Errorf("a name that is not in the file: %v", err)
	}
	if err := os.WriteFile(file, []byte("apiVersion: bailiwick.net/v1alpha1\nkind: Polcy\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ownPolicy(config); err == nil || !strings.Contains(err.Error(), file+":2:7: ") {
		t.Errorf("a mistake: %v, wanted its place", err)
	}
	for _, c := range []Config{{LocalPolicyName: "Home"}, {LocalPolicy: file, Policy: file, PolicyName: "Home"}} {
		if _, err := c.validated(); err == nil || !strings.Contains(err.Error(), "localPolicy") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
