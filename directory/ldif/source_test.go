package ldif

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/bailiwick-net/bailiwick/directory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for something that must happen.
const patience = 10 * time.Second

type watched struct {
	*testing.T
	path   string
	source *Source
}

func watch(t *testing.T, o Options) *watched {
	t.Helper()
	w := &watched{T: t, path: filepath.Join(t.TempDir(), "bank.ldif")}
	w.replace(readBank(t))
	s, err := Open(w.path, o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { s.Close() })
	w.source = s
	return w
}

// replace renames a new file over the old one.
func (w *watched) replace(data []byte) {
	w.Helper()
	temporary := w.path + ".new"
	if err := os.WriteFile(temporary, data, 0o600); err != nil {
		w.Fatal(err)
	}
	if err := os.Rename(temporary, w.path); err != nil {
		w.Fatal(err)
	}
}

func (w *watched) overwrite(data []byte) {
	w.Helper()
	if err := os.WriteFile(w.path, data, 0o600); err != nil {
		w.Fatal(err)
	}
}

func (w *watched) wantSnapshot() *directory.Snapshot {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	s, err := w.source.Next(ctx)
	if err != nil {
		w.Fatalf("Next: %v; want a snapshot", err)
	}
	return s
}

func (w *watched) wantError(text string) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	s, err := w.source.Next(ctx)
	if s != nil || err == nil || !strings.Contains(err.Error(), text) {
		w.Fatalf("Next = %v, %v; want an error with %q", s, err, text)
	}
}

// wantNothing makes sure that nothing is delivered while the file is polled some dozen times.
func (w *watched) wantNothing() {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 300*time.Millisecond)
	defer cancel()
	if s, err := w.source.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		w.Fatalf("Next = %v, %v; want nothing", s, err)
	}
}

func moveWS2(bank []byte) []byte {
	return bytes.ReplaceAll(bank, []byte("cn=ws2,OU=Workstations,"), []byte("cn=ws2,OU=SecureServers,"))
}

func TestBank(t *testing.T) {
	s, err := Snapshot("bank.ldif", readBank(t), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if c, m, g := s.Len(); c != 5 || m != 7 || g != 2 || len(s.Problems()) != 0 {
		t.Errorf("the Bank has %d containers, %d machines, %d groups and %v; want 5, 7, 2 and no problem", c, m, g, s.Problems())
	}
	m, ok := s.MachineByName("sql1.bank.example")
	if !ok || m.Name != "sql1" || m.Disabled {
		t.Errorf("sql1 is %+v", m)
	}
	path := s.Path(m.DN)
	if len(path) != 2 || path[0].Kind != directory.Domain || path[1].Name() != "SecureServers" {
		t.Errorf("sql1 is in %v", path)
	}
	ws2, _ := s.MachineByName("ws2")
	if !s.IsMember(ws2.DN, directory.MustParseDN("cn=tellers,dc=bank,dc=example")) {
		t.Error("ws2 is no teller, through the branch staff")
	}
}

func TestMoveInTheFileKeepsIdentity(t *testing.T) {
	w := watch(t, Options{})
	before := w.wantSnapshot()
	began := time.Now()
	w.replace(moveWS2(readBank(t)))
	after := w.wantSnapshot()
	if took := time.Since(began); took > time.Second {
		t.Errorf("the change was seen after %v", took)
	}
	d := directory.NewDiff(before, after)
	if len(d.Changed) != 1 || d.Changed[0].New.Name != "ws2" || !d.Changed[0].Aspects.Has(directory.Moved) || len(d.Added)+len(d.Removed) != 0 {
		t.Errorf("the move of ws2 is %v: %v", d, d.Changed)
	}
}

func TestBadFileChangesNothing(t *testing.T) {
	w := watch(t, Options{Poll: 20 * time.Millisecond})
	w.wantSnapshot()
	bank := readBank(t)
	w.replace(bank[:len(bank)-3])
	w.wantError("cut off")
	w.wantNothing()
	if st := w.source.Status(); st.Failures != 1 || st.LastError == "" || st.Machines != 7 {
		t.Errorf("status after the bad file: %+v", st)
	}
	w.replace(append(bytes.Clone(bank), "\ndn: cn=SQL1,OU=Servers,dc=bank,dc=example\nobjectClass: device\ncn: SQL1\nentryUUID: 6ba7b810-9dad-11d1-80b4-00c04fd430c8\n"...))
	w.wantError("cn=sql1,OU=SecureServers")
	if err := os.Remove(w.path); err != nil {
		t.Fatal(err)
	}
	w.wantError("no such file")
	w.wantNothing()
	// The same content as before all this: delivered once, so that the reader learns that all is well.
	w.replace(bank)
	w.wantSnapshot()
	if st := w.source.Status(); st.Failures != 0 || st.LastError != "" {
		t.Errorf("status after the repair: %+v", st)
	}
	w.wantNothing()
}

func TestFileThatAppearsLate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "later", "bank.ldif")
	s, err := Open(path, Options{Poll: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{T: t, path: path, source: s}
	t.Cleanup(func() { s.Close() })
	w.wantError("no such file")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	w.replace(readBank(t))
	w.wantSnapshot()
}

func TestSymbolicLinkSwap(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string][]byte{"v1": readBank(t), "v2": moveWS2(readBank(t))} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "bank.ldif"), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := func(target, name string) {
		t.Helper()
		if err := os.Symlink(target, filepath.Join(dir, "tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "tmp"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	// The way a ConfigMap is mounted.
	link("v1", "..data")
	link("..data/bank.ldif", "bank.ldif")
	s, err := Open(filepath.Join(dir, "bank.ldif"), Options{Poll: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{T: t, source: s}
	t.Cleanup(func() { s.Close() })
	w.wantSnapshot()
	link("v2", "..data")
	if m, _ := w.wantSnapshot().MachineByName("ws2"); m.DN.Parent().Name() != "SecureServers" {
		t.Errorf("ws2 is %s after the swap", m.DN)
	}
}

func TestPollAloneSeesChanges(t *testing.T) {
	w := watch(t, Options{Poll: 10 * time.Millisecond})
	w.source.watcher.Close()
	w.source.watcher = nil
	w.wantSnapshot()
	w.overwrite(moveWS2(readBank(t)))
	w.wantSnapshot()
}

func TestCloseAndCancel(t *testing.T) {
	w := watch(t, Options{})
	w.wantSnapshot()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.source.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Next with a cancelled context: %v", err)
	}
	done := make(chan error)
	go func() {
		_, err := w.source.Next(t.Context())
		done <- err
	}()
	w.source.Close()
	select {
	case err := <-done:
		if !errors.Is(err, ErrClosed) {
			t.Errorf("Next after Close: %v, want ErrClosed", err)
		}
	case <-time.After(patience):
		t.Fatal("Next still waits after Close")
	}
}

func TestEntryUUIDIsHonoured(t *testing.T) {
	const u = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
	file := strings.Replace(string(readBank(t)), "cn: sql1\n", "cn: sql1\nentryUUID: "+u+"\n", 1)
	s, err := Snapshot("bank.ldif", []byte(file), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if m, _ := s.MachineByName("sql1"); m.UUID.String() != u {
		t.Errorf("sql1 has UUID %s, want %s", m.UUID, u)
	}
	file = strings.Replace(file, u, "nonsense", 1)
	if _, err := Snapshot("bank.ldif", []byte(file), Options{}); err == nil || !strings.Contains(err.Error(), "bank.ldif:25") {
		t.Errorf("a malformed entryUUID: %v; want the line of its record", err)
	}
}
