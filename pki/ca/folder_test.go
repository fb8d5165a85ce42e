package ca

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// keyFile makes an Unlock from a fresh key file; it is faster than a passphrase.
func keyFile(t testing.TB, fill byte) Unlock {
	t.Helper()
	path := filepath.Join(t.TempDir(), "unlock")
	if err := os.WriteFile(path, bytes.Repeat([]byte{fill}, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	u, err := KeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func passphrase(t testing.TB, text string) Unlock {
	t.Helper()
	u, err := Passphrase([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func newFolder(t testing.TB, unlock Unlock) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ca")
	if err := Init(dir, unlock, start, Config{TrustDomain: "bank.example"}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestInitAndLoad(t *testing.T) {
	for name, unlock := range map[string]Unlock{"passphrase": passphrase(t, "correct horse battery"), "key file": keyFile(t, 1)} {
		t.Run(name, func(t *testing.T) {
			dir := newFolder(t, unlock)
			c, err := Load(dir, unlock, &MemoryJournal{})
			if err != nil {
				t.Fatal(err)
			}
			id := identity(t, "sql1.bank.example")
			prepared, err := c.Prepare(start, profile(t, Machine, ProfileConfig{}), request(t, newKey(t), id), id)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Issue(context.Background(), prepared); err != nil {
				t.Fatal(err)
			}
			rootKey, err := os.ReadFile(filepath.Join(dir, fileRootKey))
			if err != nil {
				t.Fatal(err)
			}
			key, err := openKey(rootKey, unlock)
			if err != nil {
				t.Fatal(err)
			}
			if held, ok := key.Public().(*ecdsa.PublicKey); !ok || !held.Equal(c.Root().PublicKey) {
				t.Error("the root's key is not that of its certificate")
			}
		})
	}
}

func TestInitFileModes(t *testing.T) {
	dir := newFolder(t, keyFile(t, 1))
	for name, want := range map[string]os.FileMode{".": 0o700, fileRootKey: 0o600, fileIssuingKey: 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has the mode %04o, want %04o", name, got, want)
		}
	}
	for _, name := range []string{fileRootKey, fileIssuingKey} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(text, []byte(pemEncryptedKey)) || bytes.Contains(text, []byte("BEGIN PRIVATE KEY")) {
			t.Errorf("%s is not encrypted", name)
		}
	}
}

func TestInitNeverOverwrites(t *testing.T) {
	unlock := keyFile(t, 1)
	dir := newFolder(t, unlock)
	before, err := os.ReadFile(filepath.Join(dir, fileRoot))
	if err != nil {
		t.Fatal(err)
	}
	if err := Init(dir, unlock, start, Config{TrustDomain: "bank.example"}); !errors.Is(err, ErrExists) {
		t.Errorf("a second Init gives %v, want ErrExists", err)
	}
	if after, err := os.ReadFile(filepath.Join(dir, fileRoot)); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the root changed, %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Init(file, unlock, start, Config{TrustDomain: "bank.example"}); !errors.Is(err, ErrExists) {
		t.Errorf("Init on a file gives %v, want ErrExists", err)
	}
	empty := t.TempDir()
	if err := Init(empty, unlock, start, Config{TrustDomain: "bank.example"}); err != nil {
		t.Errorf("Init on an empty folder gives %v", err)
	}
}

func TestInitThatFailsLeavesNothing(t *testing.T) {
	parent := t.TempDir()
	for name, c := range map[string]struct {
		dir    string
		unlock Unlock
		config Config
	}{
		"no unlock":       {filepath.Join(parent, "ca"), Unlock{}, Config{TrustDomain: "bank.example"}},
		"no trust domain": {filepath.Join(parent, "ca"), keyFile(t, 1), Config{}},
		"no parent":       {filepath.Join(parent, "missing", "ca"), keyFile(t, 1), Config{TrustDomain: "bank.example"}},
	} {
		if err := Init(c.dir, c.unlock, start, c.config); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if entries, err := os.ReadDir(parent); err != nil || len(entries) != 0 {
		t.Errorf("%v is left, %v", entries, err)
	}
}

func TestLoadRefuses(t *testing.T) {
	unlock := keyFile(t, 1)
	for name, c := range map[string]struct {
		change func(*testing.T, string)
		unlock Unlock
		want   error
		says   string
	}{
		"wrong key file": {nil, keyFile(t, 2), ErrUnlock, "decrypting the key"},
		"passphrase for a key file": {nil, passphrase(t, "correct horse battery"), ErrUnlock,
			"encrypted with a key file, and a passphrase was given"},
		"nothing given":    {nil, Unlock{}, ErrUnlock, "no passphrase and no key file"},
		"readable by all":  {chmod(fileIssuingKey, 0o644), unlock, ErrKeyFile, "mode 0644"},
		"readable by some": {chmod(fileIssuingKey, 0o640), unlock, ErrKeyFile, "chmod 600"},
		"key file missing": {remove(fileIssuingKey), unlock, ErrAuthority, fileIssuingKey},
		"root missing":     {remove(fileRoot), unlock, ErrAuthority, fileRoot},
		"folder missing":   {func(t *testing.T, dir string) { mustDo(t, os.RemoveAll(dir)) }, unlock, os.ErrNotExist, "no such"},
		"key is a folder": {func(t *testing.T, dir string) {
			remove(fileIssuingKey)(t, dir)
			mustDo(t, os.Mkdir(filepath.Join(dir, fileIssuingKey), 0o700))
		}, unlock, ErrKeyFile, "regular file"},
		"key is empty": {write(fileIssuingKey, ""), unlock, ErrKeyFile, "PEM"},
		"key is huge":  {write(fileIssuingKey, strings.Repeat("x", maxSealedKey+1)), unlock, ErrKeyFile, "more than"},
		"key twice":    {func(t *testing.T, dir string) { edit(t, dir, fileIssuingKey, func(s string) string { return s + s }) }, unlock, ErrKeyFile, "PEM"},
		"root's key": {func(t *testing.T, dir string) {
			mustDo(t, os.Rename(filepath.Join(dir, fileRootKey), filepath.Join(dir, fileIssuingKey)))
		}, unlock, ErrAuthority, "but the private key is"},
		"plain key":       {write(fileIssuingKey, "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"), unlock, ErrKeyFile, "PEM"},
		"root is not PEM": {write(fileRoot, "x"), unlock, ErrAuthority, fileRoot},
		"root is not DER": {write(fileRoot, "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"), unlock, ErrAuthority, fileRoot},
		"root is the issuing CA": {func(t *testing.T, dir string) {
			mustDo(t, os.Rename(filepath.Join(dir, fileIssuing), filepath.Join(dir, fileRoot)))
			write(fileIssuing, "x")(t, dir)
		}, unlock, ErrAuthority, fileIssuing},
	} {
		t.Run(name, func(t *testing.T) {
			dir := newFolder(t, unlock)
			if c.change != nil {
				c.change(t, dir)
			}
			got, err := Load(dir, c.unlock, &MemoryJournal{})
			if !errors.Is(err, c.want) || got != nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), dir) {
				t.Errorf("error %v, want %v that says %q and names the folder", err, c.want, c.says)
			}
		})
	}
}

func TestWrongPassphrase(t *testing.T) {
	dir := newFolder(t, passphrase(t, "correct horse battery"))
	_, err := Load(dir, passphrase(t, "correct horse batterY"), &MemoryJournal{})
	if !errors.Is(err, ErrUnlock) || !strings.Contains(err.Error(), "wrong passphrase") || !strings.Contains(err.Error(), fileIssuingKey) {
		t.Errorf("error %v, want ErrUnlock that names the file", err)
	}
}

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func chmod(name string, mode os.FileMode) func(*testing.T, string) {
	return func(t *testing.T, dir string) { mustDo(t, os.Chmod(filepath.Join(dir, name), mode)) }
}

func remove(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) { mustDo(t, os.Remove(filepath.Join(dir, name))) }
}

func write(name, content string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		mustDo(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
}

func edit(t *testing.T, dir, name string, change func(string) string) {
	t.Helper()
	path := filepath.Join(dir, name)
	text, err := os.ReadFile(path)
	mustDo(t, err)
	changed := change(string(text))
	if changed == string(text) {
		t.Fatalf("nothing in %s was changed", name)
	}
	mustDo(t, os.WriteFile(path, []byte(changed), 0o600))
}

// No header and no octet of a sealed key can be changed without notice, and no cost can be asked for that is absurd.
func TestSealedKeyIsAuthenticated(t *testing.T) {
	unlock := passphrase(t, "correct horse battery")
	cheap := argon2Cost{passes: 1, memoryKiB: 16 << 10, threads: 1}
	sealed, err := sealKey(newKey(t), unlock, cheap)
	mustDo(t, err)
	if _, err := openKey(sealed, unlock); err != nil {
		t.Fatal(err)
	}
	text := string(sealed)
	for name, c := range map[string]struct {
		from, to string
		want     error
	}{
		"memory":             {"KDF-Memory: 16384", "KDF-Memory: 16392", ErrUnlock},
		"too much memory":    {"KDF-Memory: 16384", "KDF-Memory: 4294967295", ErrKeyFile},
		"memory overflows":   {"KDF-Memory: 16384", "KDF-Memory: 4294967296", ErrKeyFile},
		"too little memory":  {"KDF-Memory: 16384", "KDF-Memory: 8", ErrKeyFile},
		"no memory":          {"KDF-Memory: 16384\n", "", ErrKeyFile},
		"many passes":        {"KDF-Passes: 1", "KDF-Passes: 1000", ErrKeyFile},
		"no threads":         {"KDF-Threads: 1", "KDF-Threads: 0", ErrKeyFile},
		"another derivation": {"KDF: argon2id", "KDF: none", ErrKeyFile},
		"key file instead":   {"KDF: argon2id", "KDF: hkdf-sha256", ErrKeyFile},
		"another cipher":     {"aes-256-gcm", "aes-256-cbc", ErrKeyFile},
		"another format":     {"Format: 1", "Format: 2", ErrKeyFile},
		"short nonce":        {"Nonce: ", "Nonce: 0", ErrKeyFile},
		"nonce not hex":      {"Nonce: " + headerOf(text, "Nonce")[:1], "Nonce: x", ErrKeyFile},
		"other salt":         {"Salt: " + headerOf(text, "Salt"), "Salt: " + strings.Repeat("0", 32), ErrUnlock},
		"other key id":       {"Key-ID: " + headerOf(text, "Key-ID"), "Key-ID: " + strings.Repeat("0", 64), ErrUnlock},
		"unknown header":     {"Format: 1", "Format: 1\nNote: x", ErrKeyFile},
	} {
		changed := strings.Replace(text, c.from, c.to, 1)
		if changed == text {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := openKey([]byte(changed), unlock); !errors.Is(err, c.want) {
			t.Errorf("%s gives %v, want %v", name, err, c.want)
		}
	}
	again, err := sealKey(newKey(t), unlock, cheap)
	mustDo(t, err)
	if headerOf(text, "Salt") == headerOf(string(again), "Salt") || headerOf(text, "Nonce") == headerOf(string(again), "Nonce") {
		t.Error("two keys were sealed with one salt or nonce")
	}
}

func headerOf(text, name string) string {
	_, rest, _ := strings.Cut(text, name+": ")
	value, _, _ := strings.Cut(rest, "\n")
	return value
}

func TestUnlockRefuses(t *testing.T) {
	for _, s := range []string{"", "short", strings.Repeat("x", 1025)} {
		if _, err := Passphrase([]byte(s)); !errors.Is(err, ErrUnlock) {
			t.Errorf("a passphrase of %d octets gives %v, want ErrUnlock", len(s), err)
		}
	}
	path := filepath.Join(t.TempDir(), "unlock")
	for _, c := range []struct {
		size int
		mode os.FileMode
	}{{31, 0o600}, {4097, 0o600}, {32, 0o644}, {32, 0o620}} {
		mustDo(t, os.WriteFile(path, make([]byte, c.size), 0o600))
		mustDo(t, os.Chmod(path, c.mode))
		if _, err := KeyFile(path); !errors.Is(err, ErrKeyFile) {
			t.Errorf("a key file of %d octets and the mode %04o gives %v, want ErrKeyFile", c.size, c.mode, err)
		}
	}
	if _, err := KeyFile(path + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing key file gives %v, want os.ErrNotExist", err)
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	unlock := passphrase(t, "correct horse battery")
	authority, err := Generate(start, Config{TrustDomain: "bank.example"})
	mustDo(t, err)
	asJSON, err := json.Marshal([]any{unlock, authority})
	mustDo(t, err)
	outputs := []string{string(asJSON)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		outputs = append(outputs, fmt.Sprintf(verb, unlock), fmt.Sprintf(verb, &unlock), fmt.Sprintf(verb, authority))
	}
	for _, out := range outputs {
		if strings.Contains(out, "correct") || strings.Contains(out, "636f7272") || strings.Contains(out, "D:") || len(out) > 300 {
			t.Errorf("%q shows a secret", out)
		}
	}
}

func intention(serial string) Intention {
	return Intention{Serial: serial, Profile: "machine", Subject: "bailiwick://bank.example/machine/x", NotBefore: start, NotAfter: start.Add(day), Prepared: start, TBS: []byte{0x30, 0x00}}
}

func openJournal(t testing.TB, path string) *FileJournal {
	t.Helper()
	j, err := OpenFileJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

// Both journals keep the same contract.
func TestJournalContract(t *testing.T) {
	for name, j := range map[string]interface {
		Journal
		Entries() []Entry
	}{
		"memory": &MemoryJournal{},
		"file":   openJournal(t, filepath.Join(t.TempDir(), "journal")),
	} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			mustDo(t, j.Record(ctx, intention("a")))
			mustDo(t, j.Record(ctx, intention("b")))
			mustDo(t, j.Complete(ctx, "a", []byte{1}))
			if err := j.Record(ctx, intention("a")); !errors.Is(err, ErrSerialRecorded) || !errors.Is(err, ErrJournal) {
				t.Errorf("a second intention gives %v, want ErrSerialRecorded", err)
			}
			if err := j.Record(ctx, intention("")); !errors.Is(err, ErrJournal) {
				t.Errorf("no serial number gives %v, want ErrJournal", err)
			}
			if err := j.Complete(ctx, "a", []byte{2}); !errors.Is(err, ErrJournal) {
				t.Errorf("a second certificate gives %v, want ErrJournal", err)
			}
			if err := j.Complete(ctx, "c", []byte{1}); !errors.Is(err, ErrJournal) {
				t.Errorf("a certificate that was never intended gives %v, want ErrJournal", err)
			}
			e := j.Entries()
			if len(e) != 2 || e[0].Intention.Serial != "a" || !bytes.Equal(e[0].Certificate, []byte{1}) || e[1].Intention.Serial != "b" || e[1].Certificate != nil {
				t.Errorf("entries %+v", e)
			}
		})
	}
}

func TestFileJournalSurvives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := openJournal(t, path)
	mustDo(t, j.Record(context.Background(), intention("a")))
	mustDo(t, j.Complete(context.Background(), "a", []byte{1}))
	mustDo(t, j.Record(context.Background(), intention("b")))
	want := j.Entries()
	if _, err := OpenFileJournal(path); !errors.Is(err, ErrJournal) || !strings.Contains(err.Error(), "another process") {
		t.Errorf("opening it twice gives %v, want ErrJournal", err)
	}
	mustDo(t, j.Close())
	if err := j.Record(context.Background(), intention("c")); !errors.Is(err, ErrJournal) {
		t.Errorf("recording after Close gives %v, want ErrJournal", err)
	}
	// A crash in the middle of a write.
	whole, err := os.ReadFile(path)
	mustDo(t, err)
	mustDo(t, os.WriteFile(path, append(slices.Clone(whole), `{"intention":{"serial":"c`...), 0o600))
	j = openJournal(t, path)
	if got := j.Entries(); len(got) != len(want) || got[0].Intention.Serial != "a" || !bytes.Equal(got[0].Intention.TBS, want[0].Intention.TBS) ||
		!got[1].Intention.NotAfter.Equal(want[1].Intention.NotAfter) {
		t.Errorf("read back %+v, want %+v", got, want)
	}
	mustDo(t, j.Record(context.Background(), intention("d")))
	mustDo(t, j.Close())
	if n := len(openJournal(t, path).Entries()); n != 3 {
		t.Errorf("%d entries after recording behind a cut line, want 3", n)
	}
}

func TestFileJournalRefuses(t *testing.T) {
	line := `{"intention":{"serial":"a"}}` + "\n"
	for name, c := range map[string]struct {
		content string
		mode    os.FileMode
		says    string
	}{
		"not JSON":                   {line + "x\n", 0o600, "line 2"},
		"unknown field":              {`{"intention":{"serial":"a","colour":1}}` + "\n", 0o600, "line 1"},
		"two values":                 {strings.TrimSuffix(line, "\n") + "{}\n", 0o600, "line 1: more than one"},
		"neither":                    {line + "{}\n", 0o600, "line 2: neither"},
		"twice":                      {line + line, 0o600, "line 2"},
		"certificate out of nowhere": {`{"complete":{"serial":"a","certificate":"AA=="}}` + "\n", 0o600, "line 1"},
		"long line":                  {strings.Repeat("x", maxJournalLine+1) + "\n", 0o600, "line 1"},
		"readable by all":            {line, 0o644, "mode"},
	} {
		path := filepath.Join(t.TempDir(), "journal")
		mustDo(t, os.WriteFile(path, []byte(c.content), 0o600))
		mustDo(t, os.Chmod(path, c.mode))
		if _, err := OpenFileJournal(path); !errors.Is(err, ErrJournal) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s gives %v, want ErrJournal that says %q", name, err, c.says)
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != c.content {
			t.Errorf("%s: the file was changed, %v", name, err)
		}
	}
	if _, err := OpenFileJournal(filepath.Join(t.TempDir(), "missing", "journal")); !errors.Is(err, ErrJournal) {
		t.Errorf("a missing folder gives %v, want ErrJournal", err)
	}
}

// A write that fails leaves nothing behind for the next line to be appended to.
func TestFileJournalWriteThatFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := openJournal(t, path)
	mustDo(t, j.Record(context.Background(), intention("a")))
	good := j.guarded.file
	readOnly, err := os.Open(path)
	mustDo(t, err)
	defer readOnly.Close()
	j.guarded.file = readOnly
	if err := j.Record(context.Background(), intention("b")); !errors.Is(err, ErrJournal) {
		t.Errorf("a failed write gives %v, want ErrJournal", err)
	}
	// The write could not be taken back either, so the journal stays failed even when the disk recovers.
	j.guarded.file = good
	if err := j.Record(context.Background(), intention("c")); !errors.Is(err, ErrJournal) || !strings.Contains(err.Error(), "failed before") {
		t.Errorf("the next record gives %v, want ErrJournal", err)
	}
	mustDo(t, j.Close())
	if e := openJournal(t, path).Entries(); len(e) != 1 {
		t.Errorf("%d entries, want the one before the failure", len(e))
	}
}
