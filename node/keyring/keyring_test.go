package keyring

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/bailiwick-net/bailiwick/node/sa"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

const (
	first  = "the first value of twenty-six"
	second = "the second value of twenty-eight"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func none(string) bool { return false }

// open opens a ring over the folder of the test.
func open(t *testing.T, dir string) *Ring {
	t.Helper()
	r, err := Open(dir, filepath.Join(dir, "secrets"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func one(name, value string) *nodev1.Secrets {
	return &nodev1.Secrets{Secrets: []*nodev1.Secret{{Name: name, Kind: "psk", Value: []byte(value), Changed: timestamppb.New(start)}}}
}

// want compares keys with texts, both by name.
func want(t *testing.T, r *Ring, now time.Time, keys map[string]string) {
	t.Helper()
	got := r.Keys(now)
	for name, text := range keys {
		if !got[name].Equal(sa.NewSecret([]byte(text))) {
			t.Errorf("key %q is not the one wanted", name)
		}
	}
	if len(got) != len(keys) {
		t.Errorf("there are %d keys, wanted %d", len(got), len(keys))
	}
}

func TestFilesAreRefusedWhenShortOrOpen(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "shared")
	for _, tt := range []struct {
		content string
		mode    os.FileMode
		err     string
	}{
		{"0123456789abcdef0123456789abcdef\n", 0o600, ""},
		{"short\n", 0o600, "want 16 to"},
		{"0123456789abcdef0123456789abcdef\n", 0o644, "readable by others"},
	} {
		if err := os.WriteFile(key, []byte(tt.content), tt.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(key, tt.mode); err != nil {
			t.Fatal(err)
		}
		r, err := Open(t.TempDir(), dir)
		if tt.err == "" && (err != nil || r.Keys(start)["shared"].Len() != 32) || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("mode %04o: %v; want error %q", tt.mode, err, tt.err)
		}
		if err != nil && strings.Contains(err.Error(), "short\n") {
			t.Errorf("the error repeats the key: %v", err)
		}
	}
}

func TestDeliveredKeysOutliveTheProcessAndAreForgotten(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	if changed, err := r.Deliver(one("branch", first), none); !changed || err != nil {
		t.Fatalf("delivering: changed %v, error %v", changed, err)
	}
	if changed, err := r.Deliver(one("branch", first), none); changed || err != nil {
		t.Errorf("delivering the same: changed %v, error %v", changed, err)
	}
	info, err := os.Stat(filepath.Join(dir, storeFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the file: %v, %v, wanted mode 0600", info, err)
	}
	r = open(t, dir)
	want(t, r, start, map[string]string{"branch": first})

	left := t.TempDir()
	if _, err := open(t, left).Deliver(one("branch", first), none); err != nil {
		t.Fatal(err)
	}
	if err := Remove(left); err != nil {
		t.Fatal(err)
	}
	want(t, open(t, left), start, nil)

	// Not told any more, but named by a policy in force: it stays. Named by none: it goes, from the disk as well.
	named := func(name string) bool { return name == "branch" }
	if changed, err := r.Deliver(&nodev1.Secrets{}, named); changed || err != nil {
		t.Errorf("a key that a policy names: changed %v, error %v", changed, err)
	}
	if changed, err := r.Forget(none); !changed || err != nil {
		t.Errorf("forgetting: changed %v, error %v", changed, err)
	}
	want(t, r, start, nil)
	if _, err := os.Stat(filepath.Join(dir, storeFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
}

func TestFormerValueCountsForItsTime(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	until := start.Add(time.Hour)
	m := one("branch", second)
	m.Secrets[0].Previous, m.Secrets[0].PreviousUntil = []byte(first), timestamppb.New(until)
	if _, err := r.Deliver(m, none); err != nil {
		t.Fatal(err)
	}
	both := map[string]string{"branch": second, PreviousOf("branch"): first}
	want(t, r, until.Add(-1), both)
	want(t, open(t, dir), until.Add(-1), both)
	want(t, r, until, map[string]string{"branch": second})
	if s := r.States(start); len(s) != 1 || !s[0].Until.Equal(until) || s[0].Source != "controller" {
		t.Errorf("states are %+v", s)
	}
	if changed, err := r.Expire(until.Add(-1)); changed || err != nil {
		t.Errorf("before its end: changed %v, error %v", changed, err)
	}
	if changed, err := r.Expire(until); !changed || err != nil {
		t.Errorf("at its end: changed %v, error %v", changed, err)
	}
	content, err := os.ReadFile(filepath.Join(dir, storeFile))
	if err != nil || strings.Contains(string(content), "previous") {
		t.Errorf("the former value is still on the disk: error %v", err)
	}
}

func TestFileOfTheMachineCountsFirst(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "secrets"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "secrets", "branch"), []byte(first), 0o600); err != nil {
		t.Fatal(err)
	}
	r := open(t, dir)
	m := one("branch", second)
	m.Secrets[0].Previous, m.Secrets[0].PreviousUntil = []byte(second+"!"), timestamppb.New(start.Add(time.Hour))
	if _, err := r.Deliver(m, none); err != nil {
		t.Fatal(err)
	}
	want(t, r, start, map[string]string{"branch": first})
	if s := r.States(start); len(s) != 1 || s[0].Source != "file" || !s[0].Hides {
		t.Errorf("states are %+v, wanted a file that hides", s)
	}
	if err := os.Remove(filepath.Join(dir, "secrets", "branch")); err != nil {
		t.Fatal(err)
	}
	if got := open(t, dir).Keys(start.Add(2 * time.Hour))["branch"]; !got.Equal(sa.NewSecret([]byte(second))) {
		t.Error("without the file the delivered key does not count")
	}
}

func TestInvalidMessagesChangeNothing(t *testing.T) {
	r := open(t, t.TempDir())
	if _, err := r.Deliver(one("branch", first), none); err != nil {
		t.Fatal(err)
	}
	twice := one("branch", second)
	twice.Secrets = append(twice.Secrets, twice.Secrets[0])
	kind := one("branch", second)
	kind.Secrets[0].Kind = "password"
	previous := one("branch", second)
	previous.Secrets[0].Previous = []byte("short")
	for name, m := range map[string]*nodev1.Secrets{
		"short": one("branch", "short"), "empty": one("branch", ""), "path": one("../branch", second), "no name": one("", second),
		"twice": twice, "kind": kind, "former value": previous, "too many": {Secrets: make([]*nodev1.Secret, maxDelivered+1)},
	} {
		if changed, err := r.Deliver(m, none); changed || err == nil {
			t.Errorf("%s: changed %v, error %v", name, changed, err)
		} else if strings.Contains(err.Error(), second) {
			t.Errorf("%s: the error repeats the key", name)
		}
	}
	want(t, r, start, map[string]string{"branch": first})
}

func FuzzParseStore(f *testing.F) {
	f.Add([]byte(`[{"name":"branch","kind":"psk","value":"dGhlIGZpcnN0IHZhbHVlIG9mIHR3ZW50eS1zaXg=","changed":"2026-03-01T12:00:00Z"}]`))
	f.Add([]byte(`[{"name":"branch","kind":"ppk","value":"","previous":"AA=="}]`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, content []byte) {
		entries, err := parseStore(content)
		for name, e := range entries {
			if err != nil || e.current.Len() < 16 {
				t.Errorf("entry %q with a key of %d octets, error %v", name, e.current.Len(), err)
			}
		}
	})
}
