package controller

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/pki/ca"
)

// What unlocks the CA may be a credential that systemd passes, of which the controller is told the name alone. A CA made with a
// file is opened by a credential of the same content, and by no other.
func TestKeyFromACredential(t *testing.T) {
	const key = "0123456789abcdef0123456789abcdef"
	for name, c := range map[string]struct {
		keyFile, passphraseFile string
		absent                  bool // systemd passes nothing
		want                    error
		says                    string
	}{
		"key":                            {keyFile: "credential:ca-key"},
		"passphrase with a line feed":    {passphraseFile: "credential:ca-passphrase"},
		"another key":                    {keyFile: "credential:other", want: ca.ErrUnlock},
		"key that is too short":          {keyFile: "credential:short", want: ca.ErrKeyFile, says: "wanted 32"},
		"one that is not passed":         {keyFile: "credential:missing", want: os.ErrNotExist, says: "ca.keyFile"},
		"a unit without credentials":     {keyFile: "credential:ca-key", absent: true, want: ErrConfig, says: "LoadCredentialEncrypted=ca-key:"},
		"a path":                         {keyFile: "credential:../ca-key", want: ErrConfig, says: "does not name a credential"},
		"no name":                        {keyFile: "credential:", want: ErrConfig, says: "does not name a credential"},
		"passphrase that is not passed":  {passphraseFile: "credential:missing", want: os.ErrNotExist, says: "ca.passphraseFile"},
		"the key taken for a passphrase": {passphraseFile: "credential:ca-key", want: ca.ErrUnlock},
	} {
		t.Run(name, func(t *testing.T) {
			passed := t.TempDir()
			for credential, content := range map[string]string{"ca-key": key, "ca-passphrase": "correct horse battery\n", "other": strings.ToUpper(key), "short": "short"} {
				// systemd lets a group read them whose access control list shows as that.
				if err := os.WriteFile(filepath.Join(passed, credential), []byte(content), 0o440); err != nil {
					t.Fatal(err)
				}
			}
			if c.absent {
				passed = ""
			}
			t.Setenv("CREDENTIALS_DIRECTORY", passed)
			config := ready(t)
			made := filepath.Join(t.TempDir(), "made")
			config.CA.KeyFile = made
			content := key
			if c.passphraseFile == "credential:ca-passphrase" {
				config.CA.KeyFile, config.CA.PassphraseFile, content = "", made, "correct horse battery"
			}
			if err := os.WriteFile(made, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := load(t, config); err != nil {
				t.Fatalf("making the CA: %v", err)
			}
			config.CA.Init, config.CA.KeyFile, config.CA.PassphraseFile = false, c.keyFile, c.passphraseFile
			err := load(t, config)
			if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %v that says %q", err, c.want, c.says)
			}
		})
	}
}
