// Package ds389 runs a real 389 Directory Server for tests, as FreeIPA has it inside: plain LDAP on loopback, with or
// without the plugins that tell of changes.
//
// It owns the process and a temporary directory; Close removes both. The server comes from packages of Debian that
// e2e/lab/root unpacks, so that it needs root and a mirror. What a directory means is not its business.
package ds389

import (
	"context"
	"crypto/rand"
	"crypto/sha512"
	_ "embed"
	"encoding/base64"
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
	"github.com/bailiwick-net/bailiwick/e2e/lab/root"
	"github.com/bailiwick-net/bailiwick/e2e/lab/slapd"
)

//go:embed schema.ldif
var schema []byte

// noEntryUUID keeps the server from adding the plugin by itself.
const noEntryUUID = `dn: cn=entryuuid,cn=plugins,cn=config
objectClass: top
objectClass: nsSlapdPlugin
cn: entryuuid
nsslapd-pluginpath: libentryuuid-plugin
nsslapd-plugininitfunc: entryuuid_plugin_init
nsslapd-plugintype: betxnpreoperation
nsslapd-pluginenabled: off
nsslapd-pluginId: entryuuid
nsslapd-pluginVersion: none
nsslapd-pluginVendor: 389 Project
nsslapd-pluginDescription: entryuuid

`

// Root holds the server.
var Root = root.Config{Suite: "bookworm", Packages: []string{"389-ds-base"}}

// rootDN may do everything.
const rootDN = "cn=Directory Manager"

// Options of a server; the zero value serves dc=bank,dc=example without telling of changes.
type Options struct {
	// Suffix of the only database; "" means dc=bank,dc=example.
	Suffix string
	// ContentSync offers content synchronization (RFC 4533), which takes the retro changelog.
	ContentSync bool
	// USN numbers the changes (entryUSN, and lastusn in the root DSE).
	USN bool
	// NoEntryUUID leaves the plugin out that gives entries an entryUUID (RFC 4530), as servers before 2.0 do.
	NoEntryUUID bool
	// Copy is a server, stopped, whose database the new one starts with.
	Copy *Server
}

// A Server is a running ns-slapd. Its methods are for one goroutine.
type Server struct {
	// LDAP is the URL of its only listener.
	LDAP string
	// RootDN may do everything.
	RootDN, Password, PasswordFile string
	Suffix                         string

	root   *root.Root
	dir    string
	daemon *daemon.Daemon
}

// Start configures and starts a server and waits until it answers. Its errors wrap root.ErrUnreachable where no mirror
// gives the packages.
func Start(ctx context.Context, o Options) (*Server, error) {
	r, err := root.Open(ctx, Root)
	if err != nil {
		return nil, err
	}
	if o.Suffix == "" {
		o.Suffix = "dc=bank,dc=example"
	}
	dir, err := os.MkdirTemp("", "bw-389-")
	if err != nil {
		return nil, fmt.Errorf("start 389 Directory Server: %w", err)
	}
	s := &Server{root: r, dir: dir, Suffix: o.Suffix, RootDN: rootDN, Password: "a secret of the laboratory"}
	if err := s.start(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("start 389 Directory Server: %w", err), s.Close())
	}
	return s, nil
}

// ForTest starts a server that ends with the test, which is left out where there can be none.
func ForTest(t testing.TB, o Options) *Server {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the packages of 389 Directory Server are unpacked into a root, which needs root")
	}
	s, err := Start(t.Context(), o)
	if errors.Is(err, root.ErrUnreachable) {
		t.Skipf("the packages of 389 Directory Server are needed, and no mirror gives them: %v", err)
	}
	return daemon.ForTest(t, s, err)
}

func (s *Server) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

func (s *Server) start(ctx context.Context, o Options) error {
	for _, d := range []string{"schema", "lock", "tmp", "cert", "ldif", "bak", "run", "instance", "log", "db", "home"} {
		if err := os.Mkdir(s.path(d), 0o700); err != nil {
			return err
		}
	}
	if o.Copy != nil {
		if err := os.CopyFS(s.path("db"), os.DirFS(o.Copy.path("db"))); err != nil {
			return err
		}
	}
	if err := os.CopyFS(s.path("schema"), os.DirFS(filepath.Join(s.root.Dir, "etc/dirsrv/schema"))); err != nil {
		return err
	}
	collations, err := os.ReadFile(filepath.Join(s.root.Dir, "etc/dirsrv/config/slapd-collations.conf"))
	if err != nil {
		return err
	}
	s.PasswordFile = s.path("password")
	for name, data := range map[string][]byte{
		"password": []byte(s.Password + "\n"), "slapd-collations.conf": collations, "schema/98bailiwick.ldif": schema,
	} {
		if err := os.WriteFile(s.path(name), data, 0o600); err != nil {
			return err
		}
	}
	for attempt := 0; ; attempt++ {
		port, err := freePort()
		if err != nil {
			return err
		}
		s.LDAP = fmt.Sprintf("ldap://127.0.0.1:%d", port)
		dse, err := s.config(o, port)
		if err != nil {
			return err
		}
		if err := os.WriteFile(s.path("dse.ldif"), dse, 0o600); err != nil {
			return err
		}
		// Another process may have taken the port in the meantime.
		if err = s.Restart(ctx); err == nil || attempt == 2 {
			return err
		}
	}
}

// config fills in the template that the server's own installer starts from.
func (s *Server) config(o Options, port int) ([]byte, error) {
	data := filepath.Join(s.root.Dir, "usr/share/dirsrv/data")
	var template []byte
	for _, name := range []string{"template-dse.ldif", "template-suffix-db.ldif"} {
		part, err := os.ReadFile(filepath.Join(data, name))
		if err != nil {
			return nil, err
		}
		template = append(append(template, '\n'), part...)
	}
	hash, err := hashPassword(s.Password)
	if err != nil {
		return nil, err
	}
	text := strings.NewReplacer(
		"%schema_dir%", s.path("schema"), "%lock_dir%", s.path("lock"), "%tmp_dir%", s.path("tmp"), "%cert_dir%", s.path("cert"),
		"%ldif_dir%", s.path("ldif"), "%bak_dir%", s.path("bak"), "%run_dir%", s.path("run"), "%inst_dir%", s.path("instance"),
		"%log_dir%", s.path("log"), "%fqdn%", "localhost", "%ds_port%", fmt.Sprint(port), "%ds_user%", "root", "%rootdn%", rootDN,
		"%ds_passwd%", hash, "%ldapi_enabled%", "off", "%ldapi_autobind%", "off", "%ldapi%", s.path("ldapi"),
		"%config_dir%", s.dir, "%ds_suffix%", s.Suffix, "%ds_bename%", "userRoot",
		"%db_lib%", "mdb", "%db_home_dir%", s.path("home"), "%db_dir%", s.path("db"),
	).Replace(string(template))
	if i := strings.IndexByte(text, '%'); i >= 0 {
		return nil, fmt.Errorf("the server's template has an unknown variable at %.40q", text[i:])
	}
	enabled := map[string]bool{
		"cn=Content Synchronization,": o.ContentSync, "cn=Retro Changelog Plugin,": o.ContentSync, "cn=USN,": o.USN,
	}
	var b strings.Builder
	for entry := range strings.SplitSeq(text, "\n\n") {
		for name, on := range enabled {
			if on && strings.HasPrefix(strings.TrimSpace(entry), "dn: "+name) {
				entry = strings.Replace(entry, "nsslapd-pluginenabled: off", "nsslapd-pluginenabled: on", 1)
			}
		}
		if strings.HasPrefix(strings.TrimSpace(entry), "dn: cn=config\n") {
			entry = strings.TrimRight(entry, "\n") + "\nnsslapd-listenhost: 127.0.0.1"
		}
		b.WriteString(strings.Trim(entry, "\n") + "\n\n")
	}
	if o.NoEntryUUID {
		b.WriteString(noEntryUUID)
	}
	return []byte(b.String()), nil
}

// hashPassword makes the form that the server accepts in its configuration.
func hashPassword(password string) (string, error) {
	salt := make([]byte, 8)
	if _, err := rand.Read(salt); err != nil {
		return "", err
	}
	sum := sha512.Sum512(append([]byte(password), salt...))
	return "{SSHA512}" + base64.StdEncoding.EncodeToString(append(sum[:], salt...)), nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// Restart starts the server again on the same address with the same data, after Kill or Stop.
func (s *Server) Restart(ctx context.Context) error {
	s.Kill()
	args := s.root.Command([]string{s.dir}, "ns-slapd", "-D", s.dir, "-i", s.path("run", "pid"), "-d", "0")
	// A mount namespace of its own, in which the root gets its /tmp; the network is that of the test.
	var err error
	if s.daemon, err = daemon.Start(exec.Command("unshare", append([]string{"--mount", "--"}, args...)...)); err != nil {
		return err
	}
	// The server answers a search later than it accepts connections.
	err = s.daemon.Await(ctx, 30*time.Second, func(ctx context.Context) error {
		return slapd.Tool(ctx, nil, "ldapsearch", "-x", "-H", s.LDAP, "-s", "base", "-b", "", "1.1")
	})
	if err != nil {
		said, _ := os.ReadFile(s.path("log", "errors")) // it may have ended before it had a log
		return fmt.Errorf("ns-slapd: %w\n%s", err, said)
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

// Load adds entries with ldapadd, as RootDN.
func (s *Server) Load(ctx context.Context, ldif []byte) error {
	return slapd.Tool(ctx, ldif, "ldapmodify", "-a", "-x", "-D", s.RootDN, "-w", s.Password, "-H", s.LDAP)
}

// Modify applies change records with ldapmodify, as RootDN.
func (s *Server) Modify(ctx context.Context, ldif string) error {
	return slapd.Tool(ctx, []byte(ldif), "ldapmodify", "-x", "-D", s.RootDN, "-w", s.Password, "-H", s.LDAP)
}
