package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestProfileIsRefusedWhereItCannotBe(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const ike, esp = `uat:ikev2_decryption_table:1,2,aa,bb,"AES-GCM-128 with 16 octet ICV [RFC5282]",,,"NONE [RFC4306]"`, `uat:esp_sa:"IPv4","10.0.0.1","10.0.0.2","0x1","AES-CBC [RFC3602]","0x00","NULL",""`
	good := write("good", ike+"\n"+esp+"\n"+esp+"\n", 0o600)
	full := filepath.Join(dir, "full")
	if err := os.Mkdir(full, 0o700); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join("full", "preferences"), "mine", 0o600)
	for _, c := range []struct{ name, log, dir, want string }{
		{"no such file", filepath.Join(dir, "none"), filepath.Join(dir, "a"), "no such file"},
		{"readable by others", write("open", ike+"\n", 0o644), filepath.Join(dir, "b"), "read the key log"},
		{"not a key log", write("text", ike+"\nhello\n", 0o600), filepath.Join(dir, "c"), "line 2 is not a line of a key log"},
		{"a profile of somebody", good, full, "is not empty"},
	} {
		if _, _, err := makeProfile(c.log, c.dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	into := filepath.Join(dir, "new", "profile")
	if i, e, err := makeProfile(good, into); err != nil || i != 1 || e != 2 {
		t.Fatalf("%d and %d SAs, %v", i, e, err)
	}
	for name, want := range map[string]string{
		ikeKeysFile: strings.TrimPrefix(ike, "uat:ikev2_decryption_table:") + "\n",
		espKeysFile: strings.Repeat(strings.TrimPrefix(esp, "uat:esp_sa:")+"\n", 2),
	} {
		b, err := os.ReadFile(filepath.Join(into, name))
		if err != nil || string(b) != want {
			t.Errorf("%s is %q, %v, want %q", name, b, err, want)
		}
		if info, err := os.Stat(filepath.Join(into, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", name, info.Mode(), err)
		}
	}
}
