package ldap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/e2e/lab/slapd"
)

func TestWaysIn(t *testing.T) {
	l := startBank(t)
	for name, edit := range map[string]func(*Config){
		"LDAPS, simple":             func(*Config) {},
		"LDAPS, other name":         func(c *Config) { c.ServerName = "ldap.bank.example" },
		"LDAPS, pages of two":       func(c *Config) { c.PageSize = 2 },
		"LDAPS, client certificate": func(c *Config) { c.Bind, c.ClientCert, c.ClientKey = External{}, l.ClientCert, l.ClientKey },
		"LDAPS, anonymous":          func(c *Config) { c.Bind = nil },
		"StartTLS, simple":          func(c *Config) { c.URL, c.StartTLS = l.LDAP, true },
		"StartTLS, client certificate": func(c *Config) {
			c.URL, c.StartTLS, c.Bind, c.ClientCert, c.ClientKey = l.LDAP, true, External{}, l.ClientCert, l.ClientKey
		},
		"ldapi, EXTERNAL": func(c *Config) { c.URL, c.Bind, c.CAFile = l.LDAPI, External{}, "" },
		"ldapi, simple":   func(c *Config) { c.URL, c.AllowClear = l.LDAPI, true },
		"clear, loopback": func(c *Config) { c.URL, c.AllowClear = l.LDAP, true },
	} {
		t.Run(name, func(t *testing.T) {
			s, err := readOnce(t, l.config(edit))
			wantBank(t, s, err)
			m, ok := s.MachineByName("sql1.bank.example")
			if !ok || m.UUID.IsZero() || m.Disabled || m.DN.Parent().Name() != "SecureServers" {
				t.Errorf("sql1 is %+v", m)
			}
			ws2, _ := s.MachineByName("ws2")
			if !s.IsMember(ws2.DN, directory.MustParseDN("cn=tellers,dc=bank,dc=example")) {
				t.Error("ws2 is no teller, through the branch staff")
			}
		})
	}
}

// TestRefusals: every way not to get a directory has its kind, names URL, identity and base, and says what to do.
func TestRefusals(t *testing.T) {
	l := startBank(t)
	wrong := filepath.Join(t.TempDir(), "wrong")
	if err := os.WriteFile(wrong, []byte("not the password\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	deaf, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	for name, tc := range map[string]struct {
		edit func(*Config)
		kind error
		say  []string
	}{
		"wrong password":       {func(c *Config) { c.Bind = Simple{l.RootDN, wrong} }, ErrCredentials, []string{"password file", l.RootDN}},
		"empty password":       {func(c *Config) { c.Bind = Simple{l.RootDN, empty} }, ErrCredentials, []string{"is empty", empty}},
		"no password file":     {func(c *Config) { c.Bind = Simple{l.RootDN, wrong + "x"} }, ErrCredentials, []string{wrong + "x"}},
		"unknown identity":     {func(c *Config) { c.Bind = Simple{"cn=nobody," + l.Suffix, l.PasswordFile} }, ErrCredentials, []string{"cn=nobody"}},
		"identity is no DN":    {func(c *Config) { c.Bind = Simple{"nobody", l.PasswordFile} }, ErrCredentials, []string{`"nobody"`}},
		"wrong base":           {func(c *Config) { c.Base = directory.MustParseDN("OU=Nowhere,dc=bank,dc=example") }, ErrNoBase, []string{"OU=Nowhere", "check the base DN"}},
		"base elsewhere":       {func(c *Config) { c.Base = directory.MustParseDN("dc=other") }, ErrNoBase, []string{"dc=other"}},
		"base is a machine":    {func(c *Config) { c.Base = directory.MustParseDN("cn=sql1,OU=SecureServers,dc=bank,dc=example") }, ErrContent, []string{"cn=sql1"}},
		"foreign CA":           {func(c *Config) { c.CAFile = l.OtherCAFile }, ErrUntrusted, []string{"CA file", "unknown authority"}},
		"foreign CA, StartTLS": {func(c *Config) { c.URL, c.StartTLS, c.CAFile = l.LDAP, true, l.OtherCAFile }, ErrUntrusted, []string{"start TLS"}},
		"system's CAs":         {func(c *Config) { c.CAFile = "" }, ErrUntrusted, []string{"CA file"}},
		"other server name":    {func(c *Config) { c.ServerName = "dc1.bank.example" }, ErrUntrusted, []string{"dc1.bank.example"}},
		"no CA file":           {func(c *Config) { c.CAFile = "/nonexistent/ca.pem" }, ErrConfig, []string{"/nonexistent/ca.pem"}},
		"CA file of nothing":   {func(c *Config) { c.CAFile = l.PasswordFile }, ErrConfig, []string{"no certificate"}},
		"nobody listens":       {func(c *Config) { c.URL = "ldaps://" + closed.Addr().String() }, ErrUnreachable, []string{"connect"}},
		"no such socket":       {func(c *Config) { c.URL, c.Bind = "ldapi://%2Fnonexistent", External{} }, ErrUnreachable, []string{"ldapi://"}},
		"clear port for LDAPS": {func(c *Config) { c.URL = strings.Replace(l.LDAP, "ldap:", "ldaps:", 1) }, ErrUnreachable, []string{"connect"}},
		"no answer":            {func(c *Config) { c.URL, c.Timeout = "ldaps://"+deaf.Addr().String(), 50*time.Millisecond }, ErrTimeout, []string{"timeout"}},
		"no answer, StartTLS": {func(c *Config) {
			c.URL, c.StartTLS, c.Timeout = "ldap://"+deaf.Addr().String(), true, 50*time.Millisecond
		}, ErrTimeout, []string{"start TLS"}},
		"no answer to the bind": {func(c *Config) {
			c.URL, c.AllowClear, c.Timeout = "ldap://"+deaf.Addr().String(), true, 50*time.Millisecond
		}, ErrTimeout, []string{"bind"}},
		"no certificate shown": {func(c *Config) { c.Bind, c.ClientCert, c.ClientKey = External{}, wrong, wrong }, ErrConfig, []string{"client certificate"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := l.config(tc.edit)
			s, err := readOnce(t, c)
			var e *Error
			if s != nil || !errors.Is(err, tc.kind) || !errors.As(err, &e) {
				t.Fatalf("read = %v, %v; want %v", s, err, tc.kind)
			}
			mention(t, err, append(tc.say, c.URL, c.Base.String(), hints[tc.kind])...)
			if strings.Contains(err.Error(), l.Password) || strings.Contains(err.Error(), "not the password") {
				t.Errorf("error %q shows a password", err)
			}
		})
	}
}

func TestServersLimits(t *testing.T) {
	for name, tc := range map[string]struct {
		config string
		kind   error
	}{
		// The root DN has no limits: these are for the anonymous reader.
		"size":   {"limits * size.hard=4 size.soft=4\n", ErrLimit},
		"pages":  {"limits * size.prtotal=4\n", ErrLimit},
		"denied": {"access to dn.base=\"\" by * read\naccess to * by * none\n", ErrNoBase},
		"hidden containers": {`access to filter=(objectClass=organizationalUnit) attrs=entry by * none` + "\n" +
			"access to * by * read\n", ErrContent},
		"hidden identity": {"access to attrs=entryUUID by * none\naccess to * by * read\n", ErrContent},
	} {
		t.Run(name, func(t *testing.T) {
			bank, err := os.ReadFile("../../e2e/bank/bank.ldif")
			if err != nil {
				t.Fatal(err)
			}
			l := start(t, slapd.Options{Config: tc.config, Offline: bank})
			s, err := readOnce(t, l.config(func(c *Config) { c.Bind, c.PageSize = Anonymous{}, 3 }))
			if s != nil || !errors.Is(err, tc.kind) {
				t.Fatalf("read = %v, %v; want %v", s, err, tc.kind)
			}
		})
	}
}

func TestReferralIsNoTree(t *testing.T) {
	l := startBank(t)
	reference := "dn: OU=Abroad,dc=bank,dc=example\nchangetype: add\nobjectClass: referral\nobjectClass: extensibleObject\nou: Abroad\n" +
		"ref: ldap://ldap.abroad.example/OU=Abroad,dc=bank,dc=example\n"
	l.modify(reference)
	s, err := readOnce(t, l.config())
	if s != nil || !errors.Is(err, ErrReferral) {
		t.Fatalf("read = %v, %v; want ErrReferral", s, err)
	}
	mention(t, err, "ldap.abroad.example")
	s, err = readOnce(t, l.config(func(c *Config) { c.SkipReferences = true }))
	wantBank(t, s, err)
	s, err = readOnce(t, l.config(func(c *Config) { c.Base = directory.MustParseDN("OU=Abroad,dc=bank,dc=example") }))
	if s != nil || !errors.Is(err, ErrReferral) {
		t.Fatalf("read of the reference = %v, %v; want ErrReferral", s, err)
	}
}

// TestCutAnywhere: whatever byte the connection ends at, there is the whole tree or an error.
func TestCutAnywhere(t *testing.T) {
	l := startBank(t)
	p := newProxy(t, l.LDAP)
	p.arm(1<<30, nil)
	full, err := readOnce(t, l.clear(p))
	wantBank(t, full, err)
	total := p.sent()
	if total < 2000 {
		t.Fatalf("the whole read takes %d bytes only", total)
	}
	cuts := map[error]int{}
	for at := 0; at < total; at += 23 {
		p.arm(at, nil)
		s, err := readOnce(t, l.clear(p))
		if s != nil {
			t.Fatalf("cut after %d of %d bytes: a snapshot of %v", at, total, s.Digest().Short())
		}
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, ErrInterrupted) && !errors.Is(err, ErrUnreachable) {
			t.Fatalf("cut after %d of %d bytes: %v", at, total, err)
		}
		cuts[e.Kind]++
	}
	if cuts[ErrInterrupted] < 50 || cuts[ErrUnreachable] == 0 {
		t.Errorf("the cuts were seen as %v", cuts)
	}
	p.arm(1<<30, nil)
	s, err := readOnce(t, l.clear(p))
	wantBank(t, s, err)
}

// TestKilledInMidRead: slapd is killed while it sends, and restarted; the source tells of the failure, keeps what it
// had, and recovers by itself.
func TestKilledInMidRead(t *testing.T) {
	l := startBank(t)
	p := newProxy(t, l.LDAP)
	// Every poll reads everything, so that the position is one of a whole read.
	s := l.open(l.clear(p, func(c *Config) { c.FullInterval, c.PollOnly = time.Nanosecond, true }))
	before := s.wantSnapshot()
	for _, at := range []int{60, 700, 1500} {
		p.arm(at, func() { l.Kill() })
		err := s.wantError(ErrInterrupted)
		mention(t, err, "repeated by itself")
		if st := s.Status(); st.Digest != before.Digest() || st.LastError == "" || st.Failures == 0 {
			t.Errorf("status after the kill at %d: %+v", at, st)
		}
		s.wantError(ErrUnreachable)
		if err := l.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if after := s.wantSnapshot(); after.Digest() != before.Digest() {
			t.Errorf("killed at %d, the directory came back as another", at)
		}
		if st := s.Status(); st.LastError != "" || st.Failures != 0 {
			t.Errorf("status after the restart: %+v", st)
		}
	}
}

func TestChangesAreSeenAndIdentityStays(t *testing.T) {
	l := startBank(t)
	s := l.open(l.config(func(c *Config) { c.PollOnly = true }))
	last := s.wantSnapshot()
	for _, step := range []struct {
		name, ldif string
		want       directory.Counts
	}{
		{"move", moveMachine("ws2", "Workstations", "SecureServers"), directory.Counts{Moved: 1, Regrouped: 1}},
		{"rename", "dn: cn=files1,OU=Servers,dc=bank,dc=example\nchangetype: modrdn\nnewrdn: cn=files9\ndeleteoldrdn: 1\n", directory.Counts{Renamed: 1, Identified: 1}},
		{"disable", "dn: cn=ws1,OU=Workstations,dc=bank,dc=example\nchangetype: modify\nreplace: userAccountControl\nuserAccountControl: 4098\n", directory.Counts{Disabled: 1}},
		{"enable", "dn: cn=ws1,OU=Workstations,dc=bank,dc=example\nchangetype: modify\nreplace: userAccountControl\nuserAccountControl: 4096\n", directory.Counts{Enabled: 1}},
		{"join a nested group", "dn: cn=branch staff,dc=bank,dc=example\nchangetype: modify\nadd: member\nmember: cn=sql1,OU=SecureServers,dc=bank,dc=example\n", directory.Counts{Regrouped: 1}},
		{"rename a container", "dn: OU=Workstations,dc=bank,dc=example\nchangetype: modrdn\nnewrdn: OU=Desks\ndeleteoldrdn: 1\n", directory.Counts{Moved: 1, Regrouped: 1, ContainersRenamed: 1}},
		{"remove", "dn: cn=printer1,OU=Devices,dc=bank,dc=example\nchangetype: delete\n", directory.Counts{Removed: 1}},
	} {
		l.modify(step.ldif)
		next := s.wantSnapshot()
		d := directory.NewDiff(last, next)
		if d.Counts() != step.want {
			t.Errorf("%s: %v, %v; want %+v", step.name, d, d.Changed, step.want)
		}
		last = next
	}
	if !s.live {
		t.Error("the change marker of slapd with syncprov was never seen to move")
	}
	full := s.fullRead
	before := s.Status().LastRead
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if snap, err := s.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Next without a change = %v, %v; want nothing", snap, err)
	}
	if !s.fullRead.Equal(full) || !s.Status().LastRead.After(before) {
		t.Error("polls without a change read the whole tree, or do not count as reads")
	}
}

func TestWithoutSyncprovEveryPollReads(t *testing.T) {
	l := start(t, slapd.Options{NoSyncprov: true})
	bank, err := os.ReadFile("../../e2e/bank/bank.ldif")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Load(t.Context(), bank); err != nil {
		t.Fatal(err)
	}
	s := l.open(l.config())
	s.wantSnapshot()
	for _, to := range [][2]string{{"Workstations", "Servers"}, {"Servers", "Workstations"}, {"Workstations", "Servers"}} {
		l.modify(moveMachine("ws2", to[0], to[1]))
		if m, _ := s.wantSnapshot().MachineByName("ws2"); m.DN.Parent().Name() != to[1] {
			t.Errorf("ws2 is %s, want it in %s", m.DN, to[1])
		}
	}
}

// TestTreeThatMovesWhileItIsRead: machines jump between containers in the middle of the pages; the snapshot still is
// one that the server had.
func TestTreeThatMovesWhileItIsRead(t *testing.T) {
	l := startBank(t)
	p := newProxy(t, l.LDAP)
	p.arm(1<<30, nil)
	s, err := readOnce(t, l.clear(p))
	wantBank(t, s, err)
	places := []string{"Workstations", "SecureServers", "Servers", "Devices"}
	for i, at := 0, 100; at < p.sent()/2; i, at = i+1, at+97 {
		from, to := places[i%4], places[(i+1)%4]
		p.arm(at, func() { l.modify(moveMachine("ws2", from, to)) })
		s, err := readOnce(t, l.clear(p, func(c *Config) { c.PageSize = 2 }))
		wantBank(t, s, err)
		if m, ok := s.MachineByName("ws2"); !ok || m.DN.Parent().Name() != to {
			t.Fatalf("ws2 is %v after a move to %s at byte %d", m.DN, to, at)
		}
	}
}

func TestWrongPasswordWaitsForANewOne(t *testing.T) {
	l := startBank(t)
	file := filepath.Join(t.TempDir(), "password")
	write := func(text string, at time.Time) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
	write("wrong", time.Now().Add(-time.Hour))
	s := l.open(l.config(func(c *Config) { c.Bind = Simple{l.RootDN, file} }))
	s.wantError(ErrCredentials)
	if next := s.Status().NextRead; time.Until(next) < 4*time.Minute {
		t.Errorf("the next attempt is at %v: servers lock accounts that guess", next)
	}
	write(l.Password, time.Now().Add(time.Hour))
	wantBank(t, s.wantSnapshot(), nil)
}

func TestCloseEndsNext(t *testing.T) {
	l := startBank(t)
	s := l.open(l.config(func(c *Config) { c.Interval = time.Hour }))
	s.wantSnapshot()
	done := make(chan error, 1)
	go func() {
		_, err := s.Next(t.Context())
		done <- err
	}()
	s.Close()
	select {
	case err := <-done:
		if !errors.Is(err, ErrClosed) {
			t.Errorf("Next after Close: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Next still waits after Close")
	}
}

func TestLargeTree(t *testing.T) {
	var ldif strings.Builder
	ldif.WriteString("dn: dc=bank,dc=example\nobjectClass: domain\ndc: bank\n\n")
	for ou := range 5 {
		fmt.Fprintf(&ldif, "dn: OU=U%d,dc=bank,dc=example\nobjectClass: organizationalUnit\nou: U%d\n\n", ou, ou)
		for i := range 700 {
			name := fmt.Sprintf("m%d-%d", ou, i)
			fmt.Fprintf(&ldif, "dn: cn=%s,OU=U%d,dc=bank,dc=example\nobjectClass: device\nobjectClass: computer\ncn: %s\ndNSHostName: %s.bank.example\n\n", name, ou, name, name)
		}
	}
	l := start(t, slapd.Options{Offline: []byte(ldif.String())})
	s, err := readOnce(t, l.config())
	if err != nil {
		t.Fatal(err)
	}
	if _, m, _ := s.Len(); m != 3500 {
		t.Errorf("%d machines over several pages, want 3500", m)
	}
	if n := slices.Collect(s.ChildMachines(directory.MustParseDN("OU=U3,dc=bank,dc=example"))); len(n) != 700 {
		t.Errorf("%d machines in U3, want 700", len(n))
	}
}
