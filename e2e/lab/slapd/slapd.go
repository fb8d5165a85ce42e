// Package slapd runs a real OpenLDAP server for tests: LDAPS, StartTLS and ldapi on loopback, with a certificate
// authority of its own and the schema of computer accounts.
//
// It owns the process and a temporary directory; Close removes both. It needs Debian's slapd and ldap-utils, and says
// so when they are missing; tests begin with ForTest. What a directory means is not its business.
package slapd

import (
	"bytes"
	"context"
	"crypto/x509"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab/daemon"
)

//go:embed bailiwick.schema
var schema []byte

// ErrNotInstalled says that slapd or ldap-utils is missing.
var ErrNotInstalled = errors.New("slapd and ldap-utils are needed (apt-get install slapd ldap-utils)")

// Options of a server; the zero value serves dc=bank,dc=example.
type Options struct {
	// Suffix of the only database; "" means dc=bank,dc=example.
	Suffix string
	// NoSyncprov leaves the syncprov overlay out, and with it a contextCSN that is kept up to date.
	NoSyncprov bool
	// SyncprovConfig is added to the overlay's section.
	SyncprovConfig string
	// Config is added to the database section of slapd.conf.
	Config string
	// Offline writes entries before the server starts (slapadd -q), for large trees and for entryUUIDs of one's own.
	Offline []byte
	// Certificate edits the server's before it is signed; its validity is kept where it is set.
	Certificate func(*x509.Certificate)
}

// A Server is a running slapd. Its methods are for one goroutine.
type Server struct {
	// URLs of the three listeners; StartTLS works on LDAP.
	LDAP, LDAPS, LDAPI string
	// CAFile verifies the server's certificate, whose names are localhost, 127.0.0.1 and ldap.bank.example.
	// OtherCAFile is a certificate authority that has nothing to do with it.
	CAFile, OtherCAFile string
	// RootDN may do everything; over ldapi with SASL EXTERNAL, the user who runs the server is RootDN.
	RootDN, Password, PasswordFile string
	// ClientCert and ClientKey authenticate RootDN with SASL EXTERNAL over TLS.
	ClientCert, ClientKey string
	Suffix                string

	dir    string
	daemon *daemon.Daemon
}

// Start configures and starts a server and waits until it answers.
func Start(ctx context.Context, o Options) (*Server, error) {
	for _, tool := range []string{"slapd", "slapadd", "ldapmodify"} {
		if _, err := find(tool); err != nil {
			return nil, err
		}
	}
	if o.Suffix == "" {
		o.Suffix = "dc=bank,dc=example"
	}
	dir, err := os.MkdirTemp("", "bw-slapd-") // short: a Unix socket's path has 107 bytes
	if err != nil {
		return nil, fmt.Errorf("start slapd: %w", err)
	}
	s := &Server{dir: dir, Suffix: o.Suffix, RootDN: "cn=admin," + o.Suffix, Password: "a secret of the laboratory"}
	if err := s.start(ctx, o); err != nil {
		s.Close()
		return nil, fmt.Errorf("start slapd: %w", err)
	}
	return s, nil
}

// ForTest starts a server that ends with the test, which fails where slapd is not installed: left out, it would show nothing.
func ForTest(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := Start(t.Context(), o)
	return daemon.ForTest(t, s, err)
}

func find(tool string) (string, error) {
	// Debian keeps slapd in /usr/sbin, which an ordinary user's PATH lacks.
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/bin") {
		path := filepath.Join(dir, tool)
		if st, err := os.Stat(path); err == nil && st.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("find %s: %w", tool, ErrNotInstalled)
}

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }

func (s *Server) start(ctx context.Context, o Options) error {
	if err := s.writeCertificates(o.Certificate); err != nil {
		return err
	}
	s.PasswordFile = s.path("password")
	for name, data := range map[string][]byte{
		"password": []byte(s.Password + "\n"), "bailiwick.schema": schema, "slapd.conf": s.config(o),
	} {
		if err := os.WriteFile(s.path(name), data, 0o600); err != nil {
			return err
		}
	}
	if err := os.Mkdir(s.path("db"), 0o700); err != nil {
		return err
	}
	if len(o.Offline) > 0 {
		if err := s.run(ctx, o.Offline, "slapadd", "-q", "-f", s.path("slapd.conf")); err != nil {
			return err
		}
	}
	s.LDAPI = "ldapi://" + url.PathEscape(s.path("ldapi"))
	for attempt := 0; ; attempt++ {
		ports, err := freePorts(2)
		if err != nil {
			return err
		}
		s.LDAP = fmt.Sprintf("ldap://127.0.0.1:%d", ports[0])
		s.LDAPS = fmt.Sprintf("ldaps://127.0.0.1:%d", ports[1])
		// Another process may have taken a port in the meantime.
		if err = s.Restart(ctx); err == nil || attempt == 2 {
			return err
		}
	}
}

func (s *Server) config(o Options) []byte {
	var b bytes.Buffer
	for _, name := range []string{"core", "cosine", "inetorgperson", "nis"} {
		fmt.Fprintf(&b, "include /etc/ldap/schema/%s.schema\n", name)
	}
	fmt.Fprintf(&b, "include %s\npidfile %s\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\nmoduleload syncprov\nsizelimit unlimited\n",
		s.path("bailiwick.schema"), s.path("pid"))
	fmt.Fprintf(&b, "TLSCACertificateFile %s\nTLSCertificateFile %s\nTLSCertificateKeyFile %s\nTLSVerifyClient allow\n",
		s.CAFile, s.path("server.crt"), s.path("server.key"))
	fmt.Fprintf(&b, "authz-regexp \"^gidNumber=%d[+]uidNumber=%d,cn=peercred,cn=external,cn=auth$\" %q\n", os.Getgid(), os.Getuid(), s.RootDN)
	fmt.Fprintf(&b, "authz-regexp \"^cn=bailiwick-controller$\" %q\n", s.RootDN)
	fmt.Fprintf(&b, "database mdb\nmaxsize 1073741824\nsuffix %q\nrootdn %q\nrootpw %q\ndirectory %s\nindex objectClass,entryCSN,entryUUID eq\n",
		s.Suffix, s.RootDN, s.Password, s.path("db"))
	b.WriteString(o.Config)
	if !o.NoSyncprov {
		b.WriteString("\noverlay syncprov\n" + o.SyncprovConfig)
	}
	return b.Bytes()
}

func freePorts(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

// Restart starts the server again on the same addresses with the same data, after Kill or Stop.
func (s *Server) Restart(ctx context.Context) error {
	s.Kill()
	slapd, err := find("slapd")
	if err != nil {
		return err
	}
	// Any -d keeps slapd in the foreground.
	cmd := exec.Command(slapd, "-d", "0", "-f", s.path("slapd.conf"), "-h", strings.Join([]string{s.LDAP, s.LDAPS, s.LDAPI}, " "))
	if s.daemon, err = daemon.Start(cmd); err != nil {
		return err
	}
	return s.daemon.Await(ctx, 10*time.Second, s.dialAll)
}

// dialAll finds out whether all three listeners accept.
func (s *Server) dialAll(ctx context.Context) error {
	var d net.Dialer
	for network, address := range map[string][]string{
		"tcp":  {strings.TrimPrefix(s.LDAP, "ldap://"), strings.TrimPrefix(s.LDAPS, "ldaps://")},
		"unix": {s.path("ldapi")},
	} {
		for _, a := range address {
			c, err := d.DialContext(ctx, network, a)
			if err != nil {
				return err
			}
			c.Close()
		}
	}
	return nil
}

// Kill ends the server without warning and waits for its end.
func (s *Server) Kill() { s.end(os.Kill) }

// Stop asks the server to end and waits for it.
func (s *Server) Stop() { s.end(os.Interrupt) }

func (s *Server) end(signal os.Signal) {
	s.daemon.End(signal)
	s.daemon = nil
}

// Close kills the server and removes everything that it made.
func (s *Server) Close() error {
	s.Kill()
	return os.RemoveAll(s.dir)
}

// Load adds entries with ldapadd, as RootDN over ldapi.
func (s *Server) Load(ctx context.Context, ldif []byte) error {
	return s.run(ctx, ldif, "ldapmodify", "-a", "-Q", "-Y", "EXTERNAL", "-H", s.LDAPI)
}

// Modify applies change records with ldapmodify, as RootDN over ldapi.
func (s *Server) Modify(ctx context.Context, ldif string) error {
	return s.run(ctx, []byte(ldif), "ldapmodify", "-Q", "-Y", "EXTERNAL", "-H", s.LDAPI)
}

// Dump returns the whole database as LDIF with its operational attributes: a backup. The server may run.
func (s *Server) Dump(ctx context.Context) ([]byte, error) {
	path, err := find("slapcat")
	if err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, path, "-f", s.path("slapd.conf")).Output()
	if err != nil {
		return nil, fmt.Errorf("slapcat: %w", err)
	}
	return out, nil
}

// Restore kills the server, replaces its database by a backup and starts it again on the same addresses.
func (s *Server) Restore(ctx context.Context, backup []byte) error {
	s.Kill()
	if err := os.RemoveAll(s.path("db")); err != nil {
		return err
	}
	if err := os.Mkdir(s.path("db"), 0o700); err != nil {
		return err
	}
	if err := s.run(ctx, backup, "slapadd", "-q", "-f", s.path("slapd.conf")); err != nil {
		return err
	}
	return s.Restart(ctx)
}

func (s *Server) run(ctx context.Context, stdin []byte, tool string, args ...string) error {
	return Tool(ctx, stdin, tool, args...)
}

// Tool runs a program of slapd or ldap-utils. Its error tells what the program said.
func Tool(ctx context.Context, stdin []byte, tool string, args ...string) error {
	path, err := find(tool)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", tool, err, bytes.TrimSpace(out))
	}
	return nil
}
