package secrets

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/policies/preshared"
)

// memory is a Store in this process.
type memory struct {
	records  map[string]store.SecretRecord
	revision int64
	fail     error
}

func (m *memory) Secrets(context.Context) ([]store.SecretRecord, error) {
	var out []store.SecretRecord
	for _, r := range m.records {
		out = append(out, r)
	}
	return out, m.fail
}

func (m *memory) PutSecret(_ context.Context, r store.SecretRecord) error {
	if m.fail != nil {
		return m.fail
	}
	if m.records[r.Name].Revision != r.Revision {
		return store.ErrConflict
	}
	m.revision++
	r.Revision = m.revision
	m.records[r.Name] = r
	return nil
}

func (m *memory) DeleteSecret(_ context.Context, name string, revision, _ int64) error {
	if m.records[name].Revision != revision {
		return store.ErrConflict
	}
	delete(m.records, name)
	return nil
}

func (m *memory) WatchSecrets(context.Context) <-chan struct{} { return nil }

// stage is a keeper and what is around it.
type stage struct {
	*Keeper
	t      *testing.T
	store  *memory
	log    bytes.Buffer
	now    time.Time
	config Config
}

func keyFile(t *testing.T, content string) ca.Unlock {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.secret")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	unlock, err := ca.KeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return unlock
}

func begin(t *testing.T) *stage {
	t.Helper()
	s := &stage{t: t, store: &memory{records: map[string]store.SecretRecord{}}, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	s.config = Config{
		Store: s.store, Path: filepath.Join(t.TempDir(), "secrets.key"), Unlock: keyFile(t, strings.Repeat("u", 32)),
		Now: func() time.Time { return s.now }, Log: hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: &s.log}),
	}
	s.reopen()
	return s
}

func (s *stage) reopen() {
	s.t.Helper()
	k, err := Open(s.t.Context(), s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	s.Keeper = k
}

func key(t *testing.T, text string) preshared.Key {
	t.Helper()
	k, err := preshared.ParseKey([]byte(text), preshared.PSK)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (s *stage) set(name, text string, overlap time.Duration) Outcome {
	s.t.Helper()
	outcome, _, err := s.Set(s.t.Context(), name, preshared.PSK, key(s.t, text), overlap, "root")
	if err != nil {
		s.t.Fatal(err)
	}
	return outcome
}

// want looks at what a node would get; empty texts stand for none.
func (s *stage) want(name, current, previous string) {
	s.t.Helper()
	values := s.Values([]preshared.Use{{Name: name, Kind: preshared.PSK}})
	if current == "" {
		if len(values) != 0 {
			s.t.Errorf("secret %s has a value, wanted none", name)
		}
		return
	}
	if len(values) != 1 || string(values[0].Current.Expose()) != current || string(values[0].Previous.Expose()) != previous {
		s.t.Errorf("secret %s has not the values wanted (%d of them)", name, len(values))
	}
}

const (
	red   = "the red value of the secret"
	green = "the green value of the secret"
	blue  = "the blue value of the secret"
)

func TestRotation(t *testing.T) {
	s := begin(t)
	if got := s.set("branch", red, time.Hour); got != Created {
		t.Errorf("outcome %d, wanted created", got)
	}
	s.want("branch", red, "")
	if got := s.set("branch", red, time.Hour); got != Unchanged || s.store.revision != 1 {
		t.Errorf("the same value again: outcome %d, revision %d", got, s.store.revision)
	}
	if got := s.set("branch", green, time.Hour); got != Replaced {
		t.Errorf("outcome %d, wanted replaced", got)
	}
	s.want("branch", green, red)
	s.reopen()
	s.want("branch", green, red)
	s.now = s.now.Add(time.Hour)
	s.want("branch", green, "")
	if n, err := s.Prune(t.Context(), s.now.Add(time.Second)); n != 1 || err != nil || s.store.records["branch"].Previous != nil {
		t.Errorf("pruned %d, error %v, previous %v", n, err, s.store.records["branch"].Previous)
	}
	s.want("branch", green, "")
	// Without an overlap the value before ends at once, also one that is accepted still.
	s.set("branch", blue, time.Hour)
	s.set("branch", blue, 0)
	s.want("branch", blue, "")
	s.set("branch", red, 0)
	s.want("branch", red, "")
}

func TestKindsAreApart(t *testing.T) {
	s := begin(t)
	ppk, err := preshared.ParseKey([]byte(strings.Repeat("q", preshared.MinPPK)), preshared.PPK)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, _, err := s.Set(t.Context(), "quantum", preshared.PPK, ppk, time.Hour, "root"); err != nil {
			t.Fatal(err)
		}
	}
	if v := s.Values([]preshared.Use{{Name: "quantum", Kind: preshared.PSK}, {Name: "nobody", Kind: preshared.PSK}}); len(v) != 0 {
		t.Errorf("%d values for another kind and an unknown name, wanted none", len(v))
	}
	if v := s.Values([]preshared.Use{{Name: "quantum", Kind: preshared.PPK}}); len(v) != 1 || v[0].Previous.Len() != 0 {
		t.Errorf("%d values, wanted one without a former one", len(v))
	}
}

// TestNothingIsReadable looks for the values in the store, the file of the key, the log and everything that prints.
func TestNothingIsReadable(t *testing.T) {
	s := begin(t)
	s.set("branch", red, time.Hour)
	s.set("branch", green, time.Hour)
	inStore, err := json.Marshal(s.store.records)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(s.config.Path)
	if err != nil {
		t.Fatal(err)
	}
	listed, err := json.Marshal(s.List())
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join([]string{
		string(inStore), string(file), string(listed), s.log.String(),
		fmt.Sprintf("%v %+v %#v", s.List(), s.List(), s.List()), fmt.Sprintf("%+v", s.Values([]preshared.Use{{Name: "branch", Kind: preshared.PSK}})),
		fmt.Sprintf("%v %+v %#v", s.writing.sealer, s.writing.sealer, s.writing.sealer),
	}, "\n")
	for _, value := range []string{red, green} {
		for _, form := range []string{value, hex.EncodeToString([]byte(value)), base64.StdEncoding.EncodeToString([]byte(value)), fmt.Sprintf("%d", []byte(value))} {
			if strings.Contains(all, form) {
				t.Errorf("a value can be read as %.8s...", form)
			}
		}
	}
	if !strings.Contains(all, "branch") {
		t.Error("the name is nowhere, so nothing was looked at")
	}
}

// TestMovedAndAlteredRecordsDoNotOpen changes the store as somebody with access to it could.
func TestMovedAndAlteredRecordsDoNotOpen(t *testing.T) {
	for name, spoil := range map[string]func(r *store.SecretRecord, other store.SecretRecord){
		"another secret's value": func(r *store.SecretRecord, other store.SecretRecord) { r.Current = other.Current },
		"the former value":       func(r *store.SecretRecord, _ store.SecretRecord) { r.Current = *r.Previous },
		"another kind":           func(r *store.SecretRecord, _ store.SecretRecord) { r.Kind = "ppk" },
		"an unknown kind":        func(r *store.SecretRecord, _ store.SecretRecord) { r.Kind = "" },
		"another key":            func(r *store.SecretRecord, _ store.SecretRecord) { r.Key = "0011223344556677" },
		"an end":                 func(r *store.SecretRecord, _ store.SecretRecord) { r.Current.Until = r.Changed },
		"a bit":                  func(r *store.SecretRecord, _ store.SecretRecord) { r.Current.Sealed[3] ^= 1 },
		"no nonce":               func(r *store.SecretRecord, _ store.SecretRecord) { r.Current.Nonce = nil },
		"nothing":                func(r *store.SecretRecord, _ store.SecretRecord) { r.Current = store.SealedSecret{} },
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t)
			s.set("branch", red, time.Hour)
			s.set("branch", green, time.Hour)
			s.set("other", blue, 0)
			r := s.store.records["branch"]
			spoil(&r, s.store.records["other"])
			r.Revision++
			s.store.records["branch"] = r
			s.reopen()
			s.want("branch", "", "")
			s.want("other", blue, "")
			if got, _ := s.Get("branch"); got.Problem == nil {
				t.Error("there is no problem with it")
			}
			if !strings.Contains(s.log.String(), "nodes keep the value that they have") {
				t.Error("the log does not tell")
			}
			// Setting it again is the way out.
			if outcome := s.set("branch", blue, time.Hour); outcome != Replaced {
				t.Errorf("outcome %d, wanted replaced", outcome)
			}
			s.want("branch", blue, "")
		})
	}
	// A longer life for the former value does not open either; the current one does.
	s := begin(t)
	s.set("branch", red, time.Hour)
	s.set("branch", green, time.Hour)
	s.store.records["branch"].Previous.Until = s.now.Add(1000 * time.Hour)
	s.reopen()
	s.want("branch", green, "")
}

func TestKeyIsMissingOrWrong(t *testing.T) {
	s := begin(t)
	s.set("branch", red, 0)
	content, err := os.ReadFile(s.config.Path)
	if err != nil {
		t.Fatal(err)
	}

	// Missing: the controller runs, nobody gets an empty value, and no new key takes its place.
	if err := os.Remove(s.config.Path); err != nil {
		t.Fatal(err)
	}
	s.reopen()
	s.want("branch", "", "")
	if got, _ := s.Get("branch"); !errors.Is(got.Problem, ErrLocked) || !strings.Contains(got.Problem.Error(), "restore it from a backup") {
		t.Errorf("problem is %v", got.Problem)
	}
	if _, _, err := s.Set(t.Context(), "branch", preshared.PSK, key(t, green), 0, "root"); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), s.config.Path) {
		t.Errorf("setting without the key: %v", err)
	}
	if _, err := os.Stat(s.config.Path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a key was made although there are secrets under another: %v", err)
	}
	// Lost for good: after the deletion of what nobody can open a new one is made.
	if err := s.Delete(t.Context(), "branch", 0); err != nil {
		t.Fatal(err)
	}
	s.set("branch", blue, 0)
	s.want("branch", blue, "")

	for name, change := range map[string]func(c *Config){
		"another unlock": func(c *Config) { c.Unlock = keyFile(t, strings.Repeat("v", 32)) },
		"altered":        func(*Config) { content = bytes.Replace(content, []byte("Key-ID: "), []byte("Key-ID: 0"), 1) },
		"not PEM":        func(*Config) { content = []byte("secret") },
		"cut":            func(*Config) { content = content[:len(content)/2] },
		"empty":          func(*Config) { content = nil },
	} {
		t.Run(name, func(t *testing.T) {
			c, whole := s.config, content
			defer func() { content = whole }()
			change(&c)
			c.Path = filepath.Join(t.TempDir(), "secrets.key")
			if err := os.WriteFile(c.Path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(t.Context(), c); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), c.Path) {
				t.Errorf("opening: %v, wanted an error with the file's name", err)
			}
		})
	}
	if err := os.Chmod(s.config.Path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), s.config); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("opening a file that others can read: %v", err)
	}
}

func TestAFailingStoreIsNoEmptyStore(t *testing.T) {
	s := begin(t)
	s.set("branch", red, 0)
	s.store.fail = errors.New("no quorum")
	if err := s.Read(t.Context()); err == nil {
		t.Error("reading reports no error")
	}
	s.want("branch", red, "")
	if _, _, err := s.Set(t.Context(), "branch", preshared.PSK, key(t, green), 0, "root"); err == nil {
		t.Error("setting reports no error")
	}
	if _, err := Open(t.Context(), s.config); err == nil {
		t.Error("opening reports no error")
	}
}

func TestSetRefuses(t *testing.T) {
	s := begin(t)
	for name, call := range map[string]struct {
		name    string
		overlap time.Duration
		want    error
	}{
		"path": {"../x", 0, preshared.ErrInvalid}, "negative": {"x", -1, ErrOverlap}, "too long": {"x", MaxOverlap + 1, ErrOverlap},
	} {
		if _, _, err := s.Set(t.Context(), call.name, preshared.PSK, key(t, red), call.overlap, "root"); !errors.Is(err, call.want) {
			t.Errorf("%s: %v, wanted %v", name, err, call.want)
		}
	}
	if len(s.store.records) != 0 {
		t.Error("something was stored")
	}
}

func FuzzOpenKey(f *testing.F) {
	path := filepath.Join(f.TempDir(), "u")
	if err := os.WriteFile(path, bytes.Repeat([]byte("u"), 32), 0o600); err != nil {
		f.Fatal(err)
	}
	unlock, err := ca.KeyFile(path)
	if err != nil {
		f.Fatal(err)
	}
	made := filepath.Join(f.TempDir(), "secrets.key")
	if _, err := makeKey(made, unlock); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(made)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-20])
	f.Fuzz(func(t *testing.T, text []byte) {
		if key, _, err := openKey(text, unlock); err == nil && len(key) != keySize {
			t.Errorf("a key of %d octets", len(key))
		}
	})
}
