package charon

import (
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/guest"
	"github.com/bailiwick-net/bailiwick/e2e/lab/root"
)

// Config configures a Daemon.
type Config struct {
	Host *lab.Host
	// Root holds the strongSwan to run; nil is the machine's own.
	Root *root.Root
	// Guest is where the daemon runs instead of Host, with the guest's strongSwan and kernel.
	Guest *guest.Guest
	// Dir keeps all files, in the guest under the same path. Its path must be short: it holds a unix socket.
	Dir string
	// Options are settings of the daemon beside those that the launcher needs, by their names of strongswan.conf(5).
	Options map[string]string
	// Further is further text of the daemon's section: settings that are in sections of their own.
	Further string
	// Plugins are settings of plugins, as "kernel-libipsec.raw_esp".
	Plugins map[string]string
	// Bare leaves out the log and IPsec in user space, so that IKE alone is measured. Child SAs cannot be made then.
	Bare bool
	// Connections and what they need.
	Connections  []Connection
	Secrets      []Secret
	Certificates []Certificate
	// Authorities are the roots that the daemon trusts, as DER.
	Authorities [][]byte
	// Load names further plugins, separated by spaces.
	Load string
	// Files are further files of the daemon's directory, by their names in it: "x509crl/ca.pem".
	Files map[string][]byte
	// Sections is further text of swanctl.conf(5): pools, authorities, secrets of other kinds.
	Sections string
}

// Connection is one connection of swanctl.conf(5).
type Connection struct {
	Name          string
	Local, Remote netip.Addr
	Proposals     []string // as strongSwan writes them: "aes256gcm16-prfsha384-ecp384"
	Auth          Auth     // how both sides authenticate
	// LocalID and RemoteID are identities; RemoteID "%any" accepts every one.
	LocalID, RemoteID string
	// Certificate names the one to use with AuthCertificate.
	Certificate string
	// Settings are further settings of the connection, "dpd_delay" for example; LocalSettings and RemoteSettings those of
	// the two ends. A setting here comes after, and instead of, the one that the launcher writes.
	Settings, LocalSettings, RemoteSettings map[string]string
	// Sections is further text of the connection: more rounds of authentication, for example.
	Sections string
	Children []Child
}

// Auth is a way to authenticate.
type Auth uint8

// The ways to authenticate.
const (
	AuthPSK Auth = iota + 1
	AuthCertificate
)

// String is the word of swanctl.conf(5).
func (a Auth) String() string {
	switch a {
	case AuthPSK:
		return "psk"
	case AuthCertificate:
		return "pubkey"
	}
	return fmt.Sprintf("auth(%d)", uint8(a))
}

// Child is one Child SA configuration, in tunnel mode if Settings do not say otherwise. A selector that is not set is the
// end of the IKE SA.
type Child struct {
	Name              string
	LocalTS, RemoteTS netip.Prefix
	Proposals         []string // of ESP
	Settings          map[string]string
}

// Secret is a preshared key between two identities.
type Secret struct {
	IDs []string
	Key []byte
}

// Certificate is a certificate with its key.
type Certificate struct {
	Name  string
	Chain [][]byte // DER, leaf first; issuers are sent along
	Key   crypto.Signer
}

// userspaceESP is the plugin that keeps the SAs from the kernel.
const userspaceESP = "kernel-libipsec"

// plugins is the load order: kernel-libipsec must stand before kernel-netlink to get the SAs.
const plugins = "random nonce openssl aes des sha1 sha2 hmac kdf gcm chapoly curve25519 ctr cmac gmp drbg pem pkcs1 pkcs8 " +
	"pubkey x509 constraints revocation vici " + userspaceESP + " kernel-netlink socket-default updown counters"

func (c *Config) path(name string) string { return filepath.Join(c.Dir, name) }

func (c *Config) write() error {
	// A unix socket address has 108 octets, the last of them zero.
	if len(c.path("vici")) > 107 {
		return fmt.Errorf("directory %s: the path is too long for a unix socket in it", c.Dir)
	}
	for _, sub := range []string{"x509", "x509ca", "private", "x509ocsp", "x509aa", "x509ac", "x509crl", "pubkey", "rsa", "ecdsa", "bliss", "pkcs8", "pkcs12"} {
		if err := os.MkdirAll(c.path(sub), 0o700); err != nil {
			return err
		}
	}
	for i, root := range c.Authorities {
		if err := c.writePEM(fmt.Sprintf("x509ca/root%d.pem", i), "CERTIFICATE", root); err != nil {
			return err
		}
	}
	for _, cert := range c.Certificates {
		if err := c.writeCertificate(cert); err != nil {
			return err
		}
	}
	for name, content := range c.Files {
		if err := os.WriteFile(c.path(name), content, 0o600); err != nil {
			return err
		}
	}
	if err := os.WriteFile(c.path("strongswan.conf"), []byte(c.daemonConf()), 0o600); err != nil {
		return err
	}
	return os.WriteFile(c.path("swanctl.conf"), []byte(c.connectionConf()), 0o600)
}

func (c *Config) writeCertificate(cert Certificate) error {
	for i, der := range cert.Chain {
		file := "x509/" + cert.Name + ".pem"
		if i > 0 {
			file = fmt.Sprintf("x509ca/%s-issuer%d.pem", cert.Name, i)
		}
		if err := c.writePEM(file, "CERTIFICATE", der); err != nil {
			return err
		}
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.Key)
	if err != nil {
		return fmt.Errorf("key of certificate %s: %w", cert.Name, err)
	}
	return c.writePEM("private/"+cert.Name+".pem", "PRIVATE KEY", key)
}

func (c *Config) writePEM(file, kind string, der []byte) error {
	return os.WriteFile(c.path(file), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

func (c *Config) daemonConf() string {
	var b section
	b.open("charon-systemd")
	load := plugins
	if c.Guest != nil || c.Bare {
		load = strings.Replace(load, userspaceESP+" ", "", 1)
	}
	b.set("load", load+" "+c.Load)
	b.all(c.Options)
	b.line(c.Further)
	if c.Bare {
		b.open("journal")
		b.set("default", "-1")
		b.close()
	} else {
		c.logFile(&b)
	}
	b.open("plugins")
	b.open("vici")
	b.set("socket", "unix://"+c.path("vici"))
	b.close()
	for _, setting := range slices.Sorted(maps.Keys(c.Plugins)) {
		plugin, key, _ := strings.Cut(setting, ".")
		b.open(plugin)
		b.set(key, c.Plugins[setting])
		b.close()
	}
	b.close()
	b.close()
	b.open("swanctl")
	b.set("load", "pem pkcs1 pkcs8 x509 pubkey openssl random vici")
	b.close()
	return b.text.String()
}

func (c *Config) logFile(b *section) {
	b.open("filelog")
	b.open("main")
	b.set("path", c.path("charon.log"))
	b.set("time_format", "%H:%M:%S")
	b.set("default", "1")
	b.set("ike", "2")
	b.set("cfg", "1")
	b.set("flush_line", "yes")
	b.close()
	b.close()
}

func (c *Config) connectionConf() string {
	var b section
	b.open("connections")
	for _, conn := range c.Connections {
		conn.write(&b)
	}
	b.close()
	b.open("secrets")
	for i, s := range c.Secrets {
		b.open(fmt.Sprintf("ike-%d", i))
		for j, id := range s.IDs {
			b.set(fmt.Sprintf("id-%d", j), id)
		}
		b.set("secret", "0x"+hex.EncodeToString(s.Key))
		b.close()
	}
	b.close()
	b.line(c.Sections)
	return b.text.String()
}

func (c *Connection) write(b *section) {
	b.open(c.Name)
	b.set("version", "2")
	b.set("local_addrs", c.Local.String())
	b.set("remote_addrs", c.Remote.String())
	b.set("proposals", strings.Join(c.Proposals, ","))
	b.all(c.Settings)
	b.open("local")
	b.set("auth", c.Auth.String())
	b.set("id", c.LocalID)
	if c.Auth == AuthCertificate {
		b.set("certs", c.Certificate+".pem")
	}
	b.all(c.LocalSettings)
	b.close()
	b.open("remote")
	b.set("auth", c.Auth.String())
	b.set("id", c.RemoteID)
	b.all(c.RemoteSettings)
	b.close()
	b.line(c.Sections)
	b.open("children")
	for _, child := range c.Children {
		b.open(child.Name)
		for key, selector := range map[string]netip.Prefix{"local_ts": child.LocalTS, "remote_ts": child.RemoteTS} {
			if selector.IsValid() {
				b.set(key, selector.String())
			}
		}
		b.set("esp_proposals", strings.Join(child.Proposals, ","))
		b.set("mode", "tunnel")
		b.all(child.Settings)
		b.close()
	}
	b.close()
	b.close()
}

// section writes the nested form that strongswan.conf and swanctl.conf share.
type section struct {
	text  strings.Builder
	depth int
}

func (s *section) line(text string) {
	s.text.WriteString(strings.Repeat("  ", s.depth) + text + "\n")
}

func (s *section) open(name string) {
	s.line(name + " {")
	s.depth++
}

func (s *section) close() {
	s.depth--
	s.line("}")
}

func (s *section) set(key, value string) {
	if value != "" {
		s.line(key + " = " + value)
	}
}

func (s *section) all(settings map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		s.set(key, settings[key])
	}
}
