// Package krb5 runs a real key distribution centre of MIT Kerberos for tests, on loopback.
//
// It owns the process and a temporary directory; Close removes both. It needs Debian's krb5-kdc and krb5-admin-server, and
// says so when they are missing. Who its principals are is not its business.
package krb5

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab/daemon"
)

// ErrNotInstalled says that the programs of MIT Kerberos are missing.
var ErrNotInstalled = errors.New("krb5-kdc and krb5-admin-server are needed (apt-get install krb5-kdc krb5-admin-server)")

// Options of a key distribution centre; the zero value serves BANK.EXAMPLE.
type Options struct {
	// Realm is its only one; "" means BANK.EXAMPLE.
	Realm string
	// EncryptionTypes of new keys, as supported_enctypes of kdc.conf; "" means AES of RFC 3962 and RFC 8009, and RC4.
	EncryptionTypes string
}

// A Server is a running krb5kdc. Its methods are for one goroutine.
type Server struct {
	Realm string
	// Config is the path of a krb5.conf for its clients.
	Config string

	dir     string
	address string
	types   string
	daemon  *daemon.Daemon
}

// Start makes a realm and starts its server, and waits until it answers.
func Start(ctx context.Context, o Options) (*Server, error) {
	dir, err := os.MkdirTemp("", "bw-krb5-")
	if err != nil {
		return nil, fmt.Errorf("start krb5kdc: %w", err)
	}
	s := &Server{Realm: o.Realm, dir: dir, types: o.EncryptionTypes}
	if s.Realm == "" {
		s.Realm = "BANK.EXAMPLE"
	}
	if s.types == "" {
		s.types = "aes256-cts-hmac-sha384-192:normal aes256-cts-hmac-sha1-96:normal arcfour-hmac:normal"
	}
	s.Config = s.path("krb5.conf")
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start krb5kdc: %w", err), s.Close())
	}
	return s, nil
}

// ForTest starts a server that ends with the test, which fails where Kerberos is not installed: left out, it would show
// nothing.
func ForTest(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := Start(t.Context(), o)
	return daemon.ForTest(t, s, err)
}

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }

func (s *Server) start(ctx context.Context) error {
	for attempt := 0; ; attempt++ {
		if err := s.configure(); err != nil {
			return err
		}
		if attempt == 0 {
			if err := s.run(ctx, "kdb5_util", "-r", s.Realm, "-P", "master of the laboratory", "create", "-s"); err != nil {
				return err
			}
		}
		// Another process may have taken the port in the meantime.
		if err := s.launch(ctx); err == nil || attempt == 2 {
			return err
		}
	}
}

// ClientConfig is a krb5.conf for clients of one realm, whose key distribution centre is asked over TCP. It allows weak
// keys: that nothing asks for them all the same is for tests to show.
func ClientConfig(realm, address string) string {
	return fmt.Sprintf(`[libdefaults]
	default_realm = %[1]s
	dns_lookup_kdc = false
	dns_lookup_realm = false
	rdns = false
	udp_preference_limit = 1
	allow_weak_crypto = true
[realms]
	%[1]s = {
		kdc = %[2]s
	}
`, realm, address)
}

// configure writes the configurations of server and clients, with a port that is free now.
func (s *Server) configure() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.address = l.Addr().String()
	if err := l.Close(); err != nil {
		return err
	}
	server := fmt.Sprintf(`[kdcdefaults]
	kdc_listen = ""
	kdc_tcp_listen = %[2]s
[realms]
	%[1]s = {
		database_name = %[3]s/principal
		key_stash_file = %[3]s/stash
		acl_file = %[3]s/kadm5.acl
		supported_enctypes = %[4]s
	}
[logging]
	kdc = STDERR
	admin_server = STDERR
`, s.Realm, s.address, s.dir, s.types)
	return errors.Join(os.WriteFile(s.Config, []byte(ClientConfig(s.Realm, s.address)), 0o600), os.WriteFile(s.path("kdc.conf"), []byte(server), 0o600))
}

// launch starts the server and waits until it accepts.
func (s *Server) launch(ctx context.Context) error {
	cmd, err := s.command(context.WithoutCancel(ctx), "krb5kdc", "-n", "-r", s.Realm, "-P", s.path("pid"))
	if err != nil {
		return err
	}
	if s.daemon, err = daemon.Start(cmd); err != nil {
		return err
	}
	return s.daemon.Await(ctx, 20*time.Second, func(ctx context.Context) error {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", s.address)
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// AddPrincipal makes a principal with random keys.
func (s *Server) AddPrincipal(ctx context.Context, name string) error {
	return s.run(ctx, "kadmin.local", "-r", s.Realm, "addprinc", "-randkey", "+requires_preauth", name)
}

// ChangeKeys gives a principal new random keys, with the next version number, and forgets the former ones.
func (s *Server) ChangeKeys(ctx context.Context, name string) error {
	return s.run(ctx, "kadmin.local", "-r", s.Realm, "cpw", "-randkey", name)
}

// Modify changes attributes of a principal, as modify_principal of kadmin does: "-allow_tix", say.
func (s *Server) Modify(ctx context.Context, name string, attributes ...string) error {
	return s.run(ctx, "kadmin.local", append(append([]string{"-r", s.Realm, "modprinc"}, attributes...), name)...)
}

// Keytab writes the present keys of principals into a new file that only its owner can read, and returns its path, which
// ends with the server.
func (s *Server) Keytab(ctx context.Context, file string, principals ...string) (string, error) {
	path := s.path(file)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	return path, s.run(ctx, "kadmin.local", append([]string{"-r", s.Realm, "ktadd", "-norandkey", "-k", path}, principals...)...)
}

func (s *Server) command(ctx context.Context, tool string, args ...string) (*exec.Cmd, error) {
	path, err := exec.LookPath(tool)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", tool, ErrNotInstalled)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "KRB5_CONFIG="+s.Config, "KRB5_KDC_PROFILE="+s.path("kdc.conf"), "LC_ALL=C")
	return cmd, nil
}

// run runs a program to its end. kadmin.local tells of failures in words alone.
func (s *Server) run(ctx context.Context, tool string, args ...string) error {
	cmd, err := s.command(ctx, tool, args...)
	if err != nil {
		return err
	}
	out, err := cmd.CombinedOutput()
	if err == nil && tool == "kadmin.local" && (bytes.Contains(out, []byte(" while ")) || bytes.Contains(out, []byte("kadmin.local: "))) {
		err = errors.New("it failed")
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", tool, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

func (s *Server) kill() {
	s.daemon.End(os.Kill)
	s.daemon = nil
}

// Close kills the server and removes everything that it made.
func (s *Server) Close() error {
	s.kill()
	return os.RemoveAll(s.dir)
}
