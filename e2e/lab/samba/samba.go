// Package samba runs a real Active Directory domain controller for tests: Samba makes the domain lab.example in a network
// namespace of its own, and serves LDAP there; a relay on loopback leads to it.
//
//	dc := samba.ForTest(t, samba.Options{Prefix: "bwad-"})
//	conn, err := dc.Dial()                 // as Administrator
//	... ldap.Config{URL: dc.LDAPS, CAFile: dc.CAFile, Bind: ldap.Simple{DN: dc.Administrator, PasswordFile: dc.PasswordFile}}
//
// It owns the namespace, the process, the relay and a temporary directory; Close removes them all. It needs root, and the
// packages of Samba, which come from Debian's mirror where they are not kept already. What the domain means is not its
// business.
package samba

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf16"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/daemon"
	"github.com/bailiwick-net/bailiwick/e2e/lab/krb5"
	"github.com/bailiwick-net/bailiwick/e2e/lab/root"
)

// Packages is a domain controller, apart from the machine's own packages.
var Packages = root.Config{Suite: "bookworm", Packages: []string{"samba", "samba-ad-dc", "samba-ad-provision", "python3-samba"}}

// address is that of the domain controller in its namespace.
const address = "10.77.0.1"

// ErrUnavailable says why there can be no domain controller here: the tests are not run as root, or nobody gives the packages.
var ErrUnavailable = errors.New("no Active Directory domain controller can be run")

// Options of a domain controller.
type Options struct {
	// Prefix of the namespace's name, for each package of tests its own, so that they run beside each other: "bwad-".
	Prefix string
	// Services are those of Samba, "ldap" when empty; "ldap kdc" has a key distribution centre too.
	Services string
}

// A Server is a running domain controller. Its methods are for one goroutine.
type Server struct {
	// LDAPS is the URL of a relay to it on loopback; LDAP is the same without protection, where the server takes no simple bind.
	LDAPS, LDAP string
	// CAFile verifies the certificate, whose name is 127.0.0.1.
	CAFile string
	// Realm is that of Kerberos; Krb5Config is the path of a krb5.conf for its clients.
	Realm, Krb5Config string
	// Base is the domain, Administrator the DN of who may do everything.
	Base, Administrator, Password, PasswordFile string
	// Host is where it runs; Dir holds all that it writes, and Root its programs.
	Host *lab.Host
	Dir  string
	Root *root.Root

	options Options
	lab     *lab.Lab
	process *lab.Process
	relays  []*relay
}

// Start makes a domain, starts its controller and waits until it answers. The error wraps ErrUnavailable where a test may
// be left out for it.
func Start(ctx context.Context, o Options) (*Server, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: network namespaces need root", ErrUnavailable)
	}
	programs, err := root.Open(ctx, Packages)
	if errors.Is(err, root.ErrUnreachable) {
		return nil, fmt.Errorf("%w: its packages are not kept, and no mirror gives them: %w", ErrUnavailable, err)
	}
	if err != nil {
		return nil, err
	}
	if o.Services == "" {
		o.Services = "ldap"
	}
	dir, err := os.MkdirTemp("", "bw-samba-")
	if err != nil {
		return nil, fmt.Errorf("start samba: %w", err)
	}
	s := &Server{
		Base: "DC=lab,DC=example", Administrator: "CN=Administrator,CN=Users,DC=lab,DC=example", Password: "Passw0rd!lab",
		Realm: "LAB.EXAMPLE", Dir: dir, Root: programs, options: o,
	}
	if err := s.make(ctx); err != nil {
		return nil, fmt.Errorf("start samba: %w", errors.Join(err, s.Close()))
	}
	return s, nil
}

// ForTest starts a domain controller that ends with the test, which is left out where there can be none.
func ForTest(t testing.TB, o Options) *Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s, err := Start(ctx, o)
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	return daemon.ForTest(t, s, err)
}

func (s *Server) path(name string) string { return filepath.Join(s.Dir, name) }

func (s *Server) make(ctx context.Context) error {
	var err error
	if s.lab, err = lab.New(s.options.Prefix); err != nil {
		return err
	}
	if s.Host, err = s.lab.Host("dc"); err != nil {
		return err
	}
	if err := s.Host.AddAddress("lo", netip.MustParsePrefix(address+"/32")); err != nil {
		return err
	}
	if err := s.writeCertificate(); err != nil {
		return err
	}
	s.CAFile, s.PasswordFile, s.Krb5Config = s.path("server.pem"), s.path("password"), s.path("krb5.conf")
	if err := os.WriteFile(s.PasswordFile, []byte(s.Password+"\n"), 0o600); err != nil {
		return err
	}
	provision := s.Root.Command([]string{s.Dir}, "samba-tool", "domain", "provision", "--realm="+s.Realm, "--domain=LAB", "--server-role=dc",
		"--dns-backend=SAMBA_INTERNAL", "--adminpass="+s.Password, "--targetdir="+s.path("domain"), "--host-name=dc1", "--host-ip="+address,
		"--users=root", "--option=vfs objects=dfs_samba4 acl_xattr xattr_tdb", "--option=ldb:nosync = true")
	if _, err := s.Host.RunContext(ctx, provision...); err != nil {
		return fmt.Errorf("make the domain: %w", err)
	}
	var kdc string
	for port, local := range map[string]*string{"636": &s.LDAPS, "389": &s.LDAP, "88": &kdc} {
		relay, err := newRelay(s.Host, net.JoinHostPort(address, port))
		if err != nil {
			return err
		}
		s.relays = append(s.relays, relay)
		*local = relay.listener.Addr().String()
	}
	s.LDAPS, s.LDAP = "ldaps://"+s.LDAPS, "ldap://"+s.LDAP
	if err := os.WriteFile(s.Krb5Config, []byte(krb5.ClientConfig(s.Realm, kdc)), 0o600); err != nil {
		return err
	}
	return s.Run(ctx)
}

// Run starts the controller again after Stop, and waits until it answers.
func (s *Server) Run(ctx context.Context) error {
	log, err := os.OpenFile(s.path("log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := s.Host.Command(s.Root.Command([]string{s.Dir}, "sh", "-c", "mkdir -p /run/samba; exec samba -i -M single -s "+s.path("domain")+"/etc/smb.conf "+
		"'--option=server services="+s.options.Services+"' '--option=tls certfile="+s.path("server.pem")+"' '--option=tls keyfile="+s.path("server.key")+
		"' '--option=tls cafile=' '--option=ldb:nosync = true'")...)
	cmd.Stdout, cmd.Stderr = log, log
	if s.process, err = s.Host.Start(cmd); err != nil {
		return err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := s.Dial()
		if err == nil {
			return conn.Close()
		}
		select {
		case <-tick.C:
			continue
		case <-s.process.Done():
		case <-ctx.Done():
		}
		content, _ := os.ReadFile(s.path("log"))
		return fmt.Errorf("samba does not answer: %w\n%s", err, content[max(0, len(content)-4000):])
	}
}

// Stop ends the controller; its data stays.
func (s *Server) Stop() error { return s.process.Stop(2 * time.Second) }

// Save copies the data of a stopped controller, and Restore brings it back: a backup that nobody tells the domain of.
func (s *Server) Save() error { return s.copyDomain("domain", "saved") }

// Restore replaces the data of a stopped controller by those that Save copied.
func (s *Server) Restore() error { return s.copyDomain("saved", "domain") }

func (s *Server) copyDomain(from, to string) error {
	if err := os.RemoveAll(s.path(to)); err != nil {
		return err
	}
	// cp knows of sockets and of the files that have two names.
	if out, err := exec.Command("cp", "-a", s.path(from), s.path(to)).CombinedOutput(); err != nil {
		return fmt.Errorf("copy the domain: %w: %s", err, out)
	}
	return nil
}

// Dial returns a connection that is bound as Administrator.
func (s *Server) Dial() (*goldap.Conn, error) { return s.DialAs(s.Administrator, s.Password) }

// DialAs returns a connection that is bound as somebody.
func (s *Server) DialAs(dn, password string) (*goldap.Conn, error) {
	config, err := s.tlsConfig()
	if err != nil {
		return nil, err
	}
	conn, err := goldap.DialURL(s.LDAPS, goldap.DialWithTLSConfig(config))
	if err != nil {
		return nil, err
	}
	conn.SetTimeout(30 * time.Second)
	if err := conn.Bind(dn, password); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// Add adds an entry below the domain; attributes are NAME=VALUE. A password is given as text in unicodePwd.
func (s *Server) Add(conn *goldap.Conn, rdn string, attributes ...string) error {
	add := goldap.NewAddRequest(rdn+","+s.Base, nil)
	for _, a := range attributes {
		name, value, _ := strings.Cut(a, "=")
		if name == "unicodePwd" { // in quotes, UTF-16LE (MS-ADTS 3.1.1.3.1.5)
			var octets []byte
			for _, c := range utf16.Encode([]rune(`"` + value + `"`)) {
				octets = binary.LittleEndian.AppendUint16(octets, c)
			}
			value = string(octets)
		}
		add.Attribute(name, []string{value})
	}
	if err := conn.Add(add); err != nil {
		return fmt.Errorf("add %s: %w", rdn, err)
	}
	return nil
}

// Tool runs samba-tool on the controller's own data.
func (s *Server) Tool(ctx context.Context, args ...string) (string, error) {
	args = append([]string{"samba-tool"}, append(args, "--configfile="+s.path("domain")+"/etc/smb.conf")...)
	return s.Host.RunContext(ctx, s.Root.Command([]string{s.Dir}, args...)...)
}

// Keytab writes the present keys of principals into a new file that only its owner can read, and returns its path, which
// ends with the server.
func (s *Server) Keytab(ctx context.Context, file string, principals ...string) (string, error) {
	path := s.path(file)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	for _, p := range principals {
		if _, err := s.Tool(ctx, "domain", "exportkeytab", path, "--principal="+p); err != nil {
			return "", err
		}
	}
	return path, nil
}

// AsSystem runs a script of Python on the controller's own database, as the system may: db is the database (samba.samdb.SamDB)
// and args are the arguments.
func (s *Server) AsSystem(ctx context.Context, script string, args ...string) (string, error) {
	prelude := `
import sys
from samba.auth import system_session
from samba.param import LoadParm
from samba.samdb import SamDB
lp = LoadParm()
lp.load(sys.argv[1])
db = SamDB(session_info=system_session(), lp=lp)
args = sys.argv[2:]
`
	command := append([]string{"python3", "-c", prelude + script, s.path("domain") + "/etc/smb.conf"}, args...)
	return s.Host.RunContext(ctx, s.Root.Command([]string{s.Dir}, command...)...)
}

// Log returns what the controller wrote.
func (s *Server) Log() string {
	content, _ := os.ReadFile(s.path("log"))
	return strings.TrimSpace(string(content))
}

// Close ends the controller and removes everything.
func (s *Server) Close() error {
	var errs []error
	for _, r := range s.relays {
		errs = append(errs, r.close())
	}
	if s.lab != nil {
		errs = append(errs, s.lab.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(s.Dir))...)
}

// relay passes connections from loopback on into the namespace.
type relay struct {
	listener net.Listener
	all      sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

func newRelay(h *lab.Host, to string) (*relay, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{listener: l, conns: map[net.Conn]struct{}{}}
	r.all.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			var there net.Conn
			if err := h.Do(func() (err error) { there, err = net.DialTimeout("tcp", to, 5*time.Second); return err }); err != nil {
				from.Close()
				continue
			}
			r.pass(from, there)
		}
	})
	return r, nil
}

func (r *relay) pass(a, b net.Conn) {
	r.mu.Lock()
	r.conns[a], r.conns[b] = struct{}{}, struct{}{}
	r.mu.Unlock()
	for from, to := range map[net.Conn]net.Conn{a: b, b: a} {
		r.all.Go(func() {
			_, _ = io.Copy(to, from) // its end, of whatever kind, ends both directions
			a.Close()
			b.Close()
			r.mu.Lock()
			delete(r.conns, from)
			r.mu.Unlock()
		})
	}
}

func (r *relay) close() error {
	err := r.listener.Close()
	r.mu.Lock()
	for c := range r.conns {
		c.Close()
	}
	r.mu.Unlock()
	r.all.Wait()
	return err
}
