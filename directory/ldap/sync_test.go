package ldap

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/e2e/lab/slapd"
)

// quiet is a Config whose timers do nothing in the time of a test: what is seen came by a message.
func quiet(c *Config) { c.Interval, c.FullInterval = time.Hour, time.Hour }

func (s source) wantProtocol(protocol string, note ...string) {
	s.Helper()
	st := s.Status()
	if st.Protocol != protocol {
		s.Fatalf("protocol %q (%s), want %q", st.Protocol, st.ProtocolNote, protocol)
	}
	for _, n := range note {
		if !strings.Contains(st.ProtocolNote, n) {
			s.Errorf("note %q does not mention %q", st.ProtocolNote, n)
		}
	}
}

// wantAsRead compares with what a new reader finds by polling.
func (l *lab) wantAsRead(s *directory.Snapshot) {
	l.Helper()
	read, err := readOnce(l.T, l.config())
	if err != nil {
		l.Fatal(err)
	}
	if s.Digest() != read.Digest() {
		l.Errorf("synchronized content differs from what is read: %v", directory.NewDiff(read, s))
	}
}

var syncStory = []struct {
	name, ldif string
	want       directory.Counts
}{
	{"add", "dn: cn=audit1,OU=SecureServers,dc=bank,dc=example\nchangetype: add\nobjectClass: device\nobjectClass: computer\ncn: audit1\ndNSHostName: audit1.bank.example\n", directory.Counts{Added: 1}},
	{"move", moveMachine("ws2", "Workstations", "SecureServers"), directory.Counts{Moved: 1, Regrouped: 1}},
	{"rename", "dn: cn=files1,OU=Servers,dc=bank,dc=example\nchangetype: modrdn\nnewrdn: cn=files9\ndeleteoldrdn: 1\n", directory.Counts{Renamed: 1, Identified: 1}},
	{"disable", "dn: cn=ws1,OU=Workstations,dc=bank,dc=example\nchangetype: modify\nreplace: userAccountControl\nuserAccountControl: 4098\n", directory.Counts{Disabled: 1}},
	{"join a nested group", "dn: cn=branch staff,dc=bank,dc=example\nchangetype: modify\nadd: member\nmember: cn=sql1,OU=SecureServers,dc=bank,dc=example\n", directory.Counts{Regrouped: 1}},
	{"rename a container", "dn: OU=Workstations,dc=bank,dc=example\nchangetype: modrdn\nnewrdn: OU=Desks\ndeleteoldrdn: 1\n", directory.Counts{Moved: 1, Regrouped: 1, ContainersRenamed: 1}},
	{"move a subtree", "dn: OU=Desks,dc=bank,dc=example\nchangetype: modrdn\nnewrdn: OU=Desks\ndeleteoldrdn: 1\nnewsuperior: OU=Servers,dc=bank,dc=example\n", directory.Counts{Moved: 1, ContainersRenamed: 1}},
	{"remove what was added", "dn: cn=audit1,OU=SecureServers,dc=bank,dc=example\nchangetype: delete\n", directory.Counts{Removed: 1}},
	{"remove", "dn: cn=printer1,OU=Devices,dc=bank,dc=example\nchangetype: delete\n", directory.Counts{Removed: 1}},
}

func TestSynchronizedChanges(t *testing.T) {
	l := startBank(t)
	s := l.open(l.config(quiet))
	last := s.wantSnapshot()
	wantBank(t, last, nil)
	s.wantProtocol(protocolSync)
	for _, step := range syncStory {
		l.modify(step.ldif)
		next := s.wantSnapshot()
		if d := directory.NewDiff(last, next); d.Counts() != step.want {
			t.Errorf("%s: %v, %v; want %+v", step.name, d, d.Changed, step.want)
		}
		l.wantAsRead(next)
		last = next
	}
	st := s.Status()
	if st.LastError != "" || st.LastFull.IsZero() || !st.NextRead.IsZero() {
		t.Errorf("status %+v", st)
	}
}

// TestSynchronizedResume: what happens while nobody listens is seen with the cookie of before.
func TestSynchronizedResume(t *testing.T) {
	for name, config := range map[string]string{"present phase": "", "delete phase": "syncprov-sessionlog 100\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := start(t, slapd.Options{SyncprovConfig: config})
			l.loadBank()
			p := newProxy(t, l.LDAP)
			s := l.open(l.clear(p, quiet))
			last := s.wantSnapshot()
			for _, step := range syncStory {
				p.cut()
				s.wantError(ErrInterrupted)
				if st := s.Status(); st.Digest != last.Digest() || st.LastError == "" || st.Protocol != protocolSync {
					t.Errorf("status after the cut: %+v", st)
				}
				l.modify(step.ldif)
				next := s.wantSnapshot()
				if d := directory.NewDiff(last, next); d.Counts() != step.want {
					t.Errorf("%s: %v, %v; want %+v", step.name, d, d.Changed, step.want)
				}
				l.wantAsRead(next)
				last = next
			}
			s.wantProtocol(protocolSync)
		})
	}
}

// TestSynchronizedRestart: the server ends and comes back; with the same data, with changed data, and with a backup from
// before the cookie.
func TestSynchronizedRestart(t *testing.T) {
	l := startBank(t)
	s := l.open(l.config(quiet))
	before := s.wantSnapshot()
	backup, err := l.Dump(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.modify(syncStory[0].ldif)
	l.modify(syncStory[1].ldif)
	changed := s.wantSnapshot()
	for changed.Digest() == before.Digest() || len(directory.NewDiff(before, changed).Changed) == 0 {
		changed = s.wantSnapshot()
	}

	l.Kill()
	s.wantError(ErrInterrupted)
	s.wantError(ErrUnreachable)
	if err := l.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again := s.wantSnapshot(); again.Digest() != changed.Digest() {
		t.Errorf("after a restart: %v", directory.NewDiff(changed, again))
	}

	if err := l.Restore(t.Context(), backup); err != nil {
		t.Fatal(err)
	}
	s.wantError(ErrInterrupted)
	if restored := s.wantSnapshot(); restored.Digest() != before.Digest() {
		t.Errorf("after the backup was restored: %v", directory.NewDiff(before, restored))
	}

	// The restored server goes past the cookie that it never gave: "present" then says nothing of what was reverted.
	l.modify(syncStory[1].ldif)
	moved := s.wantSnapshot()
	l.Kill()
	s.wantError(ErrInterrupted)
	if err := l.Restore(t.Context(), backup); err != nil {
		t.Fatal(err)
	}
	l.modify(syncStory[3].ldif)
	next := s.wantSnapshot()
	if d := directory.NewDiff(before, next); d.Counts() != (directory.Counts{Disabled: 1}) {
		t.Errorf("a reverted move is still there after other changes: %v (against what was before: %v)", d, directory.NewDiff(moved, next))
	}
	s.wantProtocol(protocolSync)
}

// TestSynchronizedCutAnywhere: whatever byte of a refresh the server dies at, the last good state stays.
func TestSynchronizedCutAnywhere(t *testing.T) {
	l := startBank(t)
	p := newProxy(t, l.LDAP)
	p.arm(1<<30, nil)
	first := l.open(l.clear(p, quiet))
	full := first.wantSnapshot()
	first.wantProtocol(protocolSync)
	first.Close()
	total := p.sent()
	if total < 2000 {
		t.Fatalf("a refresh takes %d bytes only", total)
	}
	for at := 40; at < total; at += 61 {
		p.arm(at, nil)
		s := l.open(l.clear(p, quiet))
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		snap, err := s.Next(ctx)
		cancel()
		if snap != nil && snap.Digest() != full.Digest() {
			t.Fatalf("cut after %d of %d bytes: another tree: %v", at, total, directory.NewDiff(full, snap))
		}
		if snap == nil && !errors.Is(err, ErrInterrupted) && !errors.Is(err, ErrUnreachable) {
			t.Fatalf("cut after %d of %d bytes: %v", at, total, err)
		}
		s.Close()
	}
}

func TestSynchronizedKilledInMidRefresh(t *testing.T) {
	l := startBank(t)
	p := newProxy(t, l.LDAP)
	p.arm(1500, func() { l.Kill() })
	s := l.open(l.clear(p, quiet))
	s.wantError(ErrInterrupted)
	if st := s.Status(); !st.LastRead.IsZero() || st.Machines != 0 {
		t.Errorf("half a refresh became content: %+v", st)
	}
	if err := l.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantBank(t, s.wantSnapshot(), nil)
}

// TestSynchronizedInnerBase: entries and whole subtrees come into a base that is not the top, and leave it.
func TestSynchronizedInnerBase(t *testing.T) {
	l := startBank(t)
	s := l.open(l.config(quiet, func(c *Config) { c.Base = directory.MustParseDN("OU=Servers,dc=bank,dc=example") }))
	last := s.wantSnapshot()
	for _, step := range []struct {
		name, ldif string
		want       directory.Counts
	}{
		{"a machine comes", moveMachine("ws2", "Workstations", "Servers"), directory.Counts{Added: 1}},
		{"a machine leaves", moveMachine("ws2", "Servers", "Workstations"), directory.Counts{Removed: 1}},
		{"a subtree comes", "dn: OU=Workstations,dc=bank,dc=example\nchangetype: modrdn\nnewrdn: OU=Workstations\ndeleteoldrdn: 1\nnewsuperior: OU=Servers,dc=bank,dc=example\n", directory.Counts{Added: 2, ContainersAdded: 1}},
		{"a subtree leaves", "dn: OU=Workstations,OU=Servers,dc=bank,dc=example\nchangetype: modrdn\nnewrdn: OU=Workstations\ndeleteoldrdn: 1\nnewsuperior: dc=bank,dc=example\n", directory.Counts{Removed: 2, ContainersRemoved: 1}},
	} {
		l.modify(step.ldif)
		next := s.wantSnapshot()
		if d := directory.NewDiff(last, next); d.Counts() != step.want {
			t.Errorf("%s: %v; want %+v", step.name, d, step.want)
		}
		last = next
	}
	s.wantProtocol(protocolSync)
}

// TestSynchronizedDuplicate: content that is no tree is an error, told once, and the stream stays.
func TestSynchronizedDuplicate(t *testing.T) {
	l := startBank(t)
	s := l.open(l.config(quiet))
	before := s.wantSnapshot()
	l.modify("dn: cn=sql1,OU=Servers,dc=bank,dc=example\nchangetype: add\nobjectClass: device\nobjectClass: computer\ncn: sql1\n")
	mention(t, s.wantError(ErrContent), "sql1", "used twice")
	l.modify("dn: cn=sql1,OU=Servers,dc=bank,dc=example\nchangetype: delete\n")
	if after := s.wantSnapshot(); after.Digest() != before.Digest() {
		t.Errorf("after the duplicate is gone: %v", directory.NewDiff(before, after))
	}
	s.wantProtocol(protocolSync)
}

// TestSynchronizedFallback: where it cannot be synchronized, the directory is polled, and the status says why.
func TestSynchronizedFallback(t *testing.T) {
	bank, err := os.ReadFile("../../e2e/bank/bank.ldif")
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		options slapd.Options
		edit    func(*Config)
		note    string
	}{
		"no overlay":      {slapd.Options{NoSyncprov: true}, func(*Config) {}, "critical control"},
		"configured":      {slapd.Options{}, func(c *Config) { c.PollOnly = true }, "configured"},
		"size limit":      {slapd.Options{Config: "limits * size.hard=4 size.soft=4 size.prtotal=unlimited\n"}, func(c *Config) { c.Bind, c.PageSize = Anonymous{}, 3 }, "Size Limit"},
		"no control seen": {slapd.Options{Config: "access to dn.base=\"\" attrs=supportedControl by * none\naccess to * by * read\n"}, func(c *Config) { c.Bind = Anonymous{} }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			tc.options.Offline = bank
			l := start(t, tc.options)
			s := l.open(l.config(tc.edit))
			wantBank(t, s.wantSnapshot(), nil)
			if tc.note != "" {
				s.wantProtocol(protocolPoll, tc.note)
			}
			l.modify(moveMachine("ws2", "Workstations", "Servers"))
			if m, _ := s.wantSnapshot().MachineByName("ws2"); m.DN.Parent().Name() != "Servers" {
				t.Errorf("ws2 is %s", m.DN)
			}
		})
	}
}

// TestSynchronizedSilence: a connection that is dead without being closed is noticed and replaced.
func TestSynchronizedSilence(t *testing.T) {
	l := startBank(t)
	p := newProxy(t, l.LDAP)
	s := l.open(l.clear(p, func(c *Config) {
		c.Interval, c.Timeout, c.FullInterval = 100*time.Millisecond, 300*time.Millisecond, time.Hour
	}))
	before := s.wantSnapshot()
	silent, release := context.WithCancel(t.Context())
	defer release()
	p.arm(10, func() { <-silent.Done() })
	s.wantError(ErrTimeout)
	release()
	if after := s.wantSnapshot(); after.Digest() != before.Digest() {
		t.Error("another tree after the silence")
	}
	s.wantProtocol(protocolSync)
}

// TestSynchronizedReconcile: independent reads go on while the stream does, and find the same.
func TestSynchronizedReconcile(t *testing.T) {
	l := startBank(t)
	s := l.open(l.config(func(c *Config) { c.FullInterval = 50 * time.Millisecond }))
	s.wantSnapshot()
	first := s.Status().LastFull
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		snap, err := s.Next(ctx)
		if snap != nil {
			err = errors.New("a snapshot without a change")
		}
		done <- err
	}()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !s.Status().LastFull.After(first.Add(100 * time.Millisecond)) {
		select {
		case err := <-done:
			t.Fatal(err)
		case <-tick.C:
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	s.wantProtocol(protocolSync)
	if e := s.Status().LastError; e != "" {
		t.Error(e)
	}
}
