package kerberos

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jcmturner/gokrb5/v8/keytab"

	"github.com/bailiwick-net/bailiwick/pki/kerberos"
)

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		held, asked, want string
	}{
		{"host/sql1.bank.example@R", "", "host/sql1.bank.example@R"},
		{"host/sql1.bank.example@R SQL1$@R host/SQL1@R", "", "SQL1$@R"}, // as after joining a domain
		{"host/sql1.bank.example@R HTTP/sql1.bank.example@R", "", "host/sql1.bank.example@R"},
		{"host/sql1.bank.example@R SQL1$@R", "host/sql1.bank.example@R", "host/sql1.bank.example@R"},
		{"host/sql1.bank.example@R host/sql1.lab.example@R", "", ""},
		{"SQL1$@R SQL2$@R host/sql1.bank.example@R", "", ""},
		{"HTTP/sql1.bank.example@R", "", ""},
		{"SQL1$@R", "SQL2$@R", ""},
		{"SQL1$@R", "SQL1$", ""},
	} {
		var held []kerberos.Principal
		for _, text := range strings.Fields(c.held) {
			held = append(held, principal(t, text))
		}
		got, err := choose(held, c.asked)
		switch {
		case c.want != "" && (err != nil || got.String() != c.want):
			t.Errorf("of %q, asked for %q: %v, error %v; want %s", c.held, c.asked, got, err, c.want)
		case c.want == "" && !errors.Is(err, ErrAccount) && !errors.Is(err, kerberos.ErrPrincipal):
			t.Errorf("of %q, asked for %q: %v, error %v; want ErrAccount", c.held, c.asked, got, err)
		}
	}
}

// A domain knows a machine as NAME$, and its keytab has the DNS name under another of its principals.
func TestHostName(t *testing.T) {
	for _, c := range []struct{ held, account, want string }{
		{"host/SQL1.bank.example@R", "host/SQL1.bank.example@R", "sql1.bank.example"},
		{"SQL1$@R host/SQL1@R host/sql1.bank.example@R RestrictedKrbHost/other.bank.example@R", "SQL1$@R", "sql1.bank.example"},
		{"SQL1$@R HOST/sql1.bank.example@R host/SQL1.bank.example@R", "SQL1$@R", "sql1.bank.example"},
		{"SQL1$@R host/sql1.bank.example@R host/alias.bank.example@R", "SQL1$@R", ""},
		{"SQL1$@R host/sql1.bank.example@ELSEWHERE", "SQL1$@R", ""},
		{"SQL1$@R host/SQL1@R", "SQL1$@R", ""},
		{"SQL1$@R", "SQL1$@R", ""},
		{"host/SQL1@R", "host/SQL1@R", ""},
		{"host/SQL1@R host/sql1.bank.example@R", "host/SQL1@R", "sql1.bank.example"},
	} {
		var held []kerberos.Principal
		for _, text := range strings.Fields(c.held) {
			held = append(held, principal(t, text))
		}
		if got := hostName(held, principal(t, c.account)); got != c.want {
			t.Errorf("%s of %q: host name %q, want %q", c.account, c.held, got, c.want)
		}
	}
}

func principal(t *testing.T, text string) kerberos.Principal {
	t.Helper()
	p, err := kerberos.ParsePrincipal(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func writeFile(t *testing.T, dir, name, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// writeKeytab writes the keytab of host/sql1.bank.example@BANK.EXAMPLE.
func writeKeytab(t *testing.T, dir string) string {
	t.Helper()
	k := keytab.New()
	if err := k.AddEntry("host/sql1.bank.example", "BANK.EXAMPLE", "password", time.Now(), 1, 18); err != nil {
		t.Fatal(err)
	}
	octets, err := k.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, dir, "krb5.keytab", string(octets), 0o600)
}

// Whatever krb5.conf allows, nothing weak is asked for; what cannot be read is said with its place.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string { return writeFile(t, dir, name, content, mode) }
	good := writeKeytab(t, dir)
	octets, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	conf := write("krb5.conf", "[libdefaults]\n allow_weak_crypto = true\n default_tkt_enctypes = arcfour-hmac-md5\n default_tgs_enctypes = arcfour-hmac-md5\n noaddresses = false\n forwardable = true\n", 0o644)
	a, err := Open(Settings{Keytab: good, Config: conf})
	if err != nil {
		t.Fatal(err)
	}
	l := a.config.LibDefaults
	for _, types := range [][]int32{l.DefaultTktEnctypeIDs, l.DefaultTGSEnctypeIDs, l.PermittedEnctypeIDs} {
		if !slices.Equal(types, kerberos.EncryptionTypes()) {
			t.Errorf("encryption types %v, want those of AES alone", types)
		}
	}
	if l.AllowWeakCrypto || l.Forwardable || !l.NoAddresses {
		t.Errorf("weak %v, forwardable %v, no addresses %v; want no, no, yes", l.AllowWeakCrypto, l.Forwardable, l.NoAddresses)
	}
	if a.HostName() != "sql1.bank.example" {
		t.Errorf("host name %q", a.HostName())
	}
	for _, c := range []struct {
		name string
		s    Settings
		want string
	}{
		{"open to others", Settings{Keytab: write("open.keytab", string(octets), 0o644), Config: conf}, "0644"},
		{"not a keytab", Settings{Keytab: write("none.keytab", "keytab", 0o600), Config: conf}, "none.keytab"},
		{"empty", Settings{Keytab: write("empty.keytab", "", 0o600), Config: conf}, "empty.keytab"},
		{"no such file", Settings{Keytab: filepath.Join(dir, "absent"), Config: conf}, "absent"},
		{"no configuration", Settings{Keytab: good, Config: filepath.Join(dir, "absent.conf")}, "absent.conf"},
		{"broken configuration", Settings{Keytab: good, Config: write("broken.conf", "[libdefaults]\n clockskew = never\n", 0o644)}, "--krb5-conf"},
	} {
		if _, err := Open(c.s); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q in it", c.name, err, c.want)
		}
	}
}

// Whoever gives up waiting is let go, whatever the key distribution centre does.
func TestSilentCentre(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		cancel()
		_, _ = io.Copy(io.Discard, conn) // until the other side has enough
		conn.Close()
	}()
	dir := t.TempDir()
	account, err := Open(Settings{Keytab: writeKeytab(t, dir), Config: writeFile(t, dir, "krb5.conf",
		"[libdefaults]\n udp_preference_limit = 1\n dns_lookup_kdc = false\n[realms]\n BANK.EXAMPLE = {\n  kdc = "+listener.Addr().String()+"\n }\n", 0o644)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := account.Ticket(ctx, principal(t, "bailiwick/controller.bank.example@BANK.EXAMPLE")); !errors.Is(err, context.Canceled) || !errors.Is(err, ErrTicket) {
		t.Errorf("%v, want ErrTicket and that the context ended", err)
	}
}
