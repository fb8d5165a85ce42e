package controller

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/controller/enrollment"
	"github.com/bailiwick-net/bailiwick/directory/settings"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	lists "github.com/bailiwick-net/bailiwick/pki/revocation"
)

// The defaults of a Config.
const (
	DefaultStateDir    = "/var/lib/bailiwick/controller"
	DefaultListen      = "[::]:7443"
	DefaultAdminSocket = "/run/bailiwick/controller.sock"
)

// Config is the configuration as written. The zero value of each field is safe; a directory is needed.
type Config struct {
	// StateDir holds the embedded etcd, the CA and the key of the secrets; default DefaultStateDir.
	StateDir string `yaml:"stateDir"`
	// TrustDomain is the fleet's name in certificates, a DNS name. Default: the one that the fleet was made with, or,
	// the first time, what the DC components of the directory's base spell.
	TrustDomain string `yaml:"trustDomain"`
	// Listen is where nodes connect, host:port; default DefaultListen.
	Listen []string `yaml:"listen"`
	// Names are the DNS names and addresses under which nodes reach the controller; its certificate has them. Default:
	// the host's name and its addresses.
	Names     []string        `yaml:"names"`
	Admin     AdminConfig     `yaml:"admin"`
	Metrics   MetricsConfig   `yaml:"metrics"`
	Directory DirectoryConfig `yaml:"directory"`
	Store     StoreConfig     `yaml:"store"`
	CA        CAConfig        `yaml:"ca"`
	// Revocation is about revocation lists and OCSP.
	Revocation RevocationConfig `yaml:"revocation"`
	// Enrollment says which machines get a certificate, and how.
	Enrollment EnrollmentConfig `yaml:"enrollment"`
	// EST is for machines without our daemon.
	EST ESTConfig `yaml:"est"`
	// Connections bounds what callers may hold of the listeners.
	Connections ConnectionConfig `yaml:"connections"`
	// ReportInterval is how often a node reports without a change; default 30 s, 1 s to 1 h.
	ReportInterval time.Duration `yaml:"reportInterval"`

	// Log takes all messages; nil discards them.
	Log hclog.Logger `yaml:"-"`
	// Now is the clock; nil means time.Now.
	Now func() time.Time `yaml:"-"`

	// file is where it was read, for the places of mistakes.
	file configFile
}

// configFile is a file that was read; the zero value is none.
type configFile struct {
	path string
	text []byte
}

// AdminConfig says how administrators reach the controller.
type AdminConfig struct {
	// Socket is the path of the unix socket, open to root and to the user of the controller; default DefaultAdminSocket.
	Socket string `yaml:"socket"`
	// Listen is host:port for administrators with a certificate; empty means that there is no such listener.
	Listen string `yaml:"listen"`
}

// The directory section and its parts; see package settings.
type (
	DirectoryConfig = settings.Directory
	LDIFConfig      = settings.LDIF
	LDAPConfig      = settings.LDAP
	GuardConfig     = settings.Guard
)

// StoreConfig says where the state is. Without endpoints it is in StateDir.
type StoreConfig struct {
	// Endpoints are URLs of an external etcd.
	Endpoints []string `yaml:"endpoints"`
	// CAFile, CertFile and KeyFile, in PEM, are for TLS with it.
	CAFile   string `yaml:"caFile"`
	CertFile string `yaml:"certFile"`
	KeyFile  string `yaml:"keyFile"`
	// Prefix of all keys; default store.DefaultPrefix.
	Prefix string `yaml:"prefix"`
	// MaxTxnOps is what --max-txn-ops of the external etcd was set to; default 128.
	MaxTxnOps int `yaml:"maxTxnOps"`
	// ClaimTTL is how long the etcd remembers a controller that died, and refuses another one; default 10 s. It is
	// rounded up to seconds.
	ClaimTTL time.Duration `yaml:"claimTTL"`
}

// CAConfig says how the CA's keys are unlocked, and how long certificates live.
type CAConfig struct {
	// Init makes the CA when there is none.
	Init bool `yaml:"init"`
	// OfflineRoot makes only the issuing CA's key and a request for a root that is kept elsewhere, together with Init.
	OfflineRoot bool `yaml:"offlineRoot"`
	// CertificateFile is that root's answer, in PEM: the issuing CA's certificate and the root's.
	CertificateFile string `yaml:"certificateFile"`
	// Algorithm is the kind of the issuing CA's key, RootAlgorithm of the root's: ecdsa-p256 (the default), ecdsa-p384,
	// ed25519, rsa-3072 or rsa-4096. They count for CAs that are made from now on.
	Algorithm     string `yaml:"algorithm"`
	RootAlgorithm string `yaml:"rootAlgorithm"`
	// IssuingLifetime and RootLifetime are those of CA certificates made from now on; default 5 and 20 years.
	IssuingLifetime time.Duration `yaml:"issuingLifetime"`
	RootLifetime    time.Duration `yaml:"rootLifetime"`
	// Domains are the DNS domains that the issuing CA may vouch for, in its certificate; empty for all.
	Domains []string `yaml:"domains"`
	// PassphraseFile holds a passphrase, KeyFile 32 or more random octets: exactly one of them. Both may be
	// "credential:NAME", a credential of systemd.
	PassphraseFile string `yaml:"passphraseFile"`
	KeyFile        string `yaml:"keyFile"`
	// PKCS11 is a token in which issuing keys are made and kept from now on; the root's key is not, keep it off line.
	PKCS11 *TokenConfig `yaml:"pkcs11"`
	// The lifetimes of certificates; default 30 days for machines and the controller, 7 days for administrators.
	MachineLifetime time.Duration `yaml:"machineLifetime"`
	ServerLifetime  time.Duration `yaml:"serverLifetime"`
	AdminLifetime   time.Duration `yaml:"adminLifetime"`
	// PeerLifetime is that of certificates for peers that run other software; default 90 days.
	PeerLifetime time.Duration `yaml:"peerLifetime"`
	// GatewayLifetime is that of the machines of enrollment.gateways; default 30 days.
	GatewayLifetime time.Duration `yaml:"gatewayLifetime"`
}

// TokenConfig is a PKCS #11 token.
type TokenConfig struct {
	// Module is the path of the library, Token the label of the token.
	Module string `yaml:"module"`
	Token  string `yaml:"token"`
	// PINFile holds the user's PIN; it may be "credential:NAME".
	PINFile string `yaml:"pinFile"`
}

// maxConfigFile bounds what is read.
const maxConfigFile = 1 << 20

// ReadConfig reads a configuration file. Unknown fields are errors; an error has line, column and excerpt.
func ReadConfig(path string) (Config, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Config{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if info.Size() > maxConfigFile {
		return Config{}, fmt.Errorf("%w: %s has %d octets, more than %d", ErrConfig, path, info.Size(), maxConfigFile)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return parseConfig(path, text)
}

// parseConfig reads the content of the file at path.
func parseConfig(path string, text []byte) (Config, error) {
	var c Config
	if err := yaml.UnmarshalWithOptions(text, &c, yaml.Strict()); err != nil {
		return Config{}, fmt.Errorf("%w: %s: %w", ErrConfig, path, err)
	}
	c.file = configFile{path, text}
	return c, nil
}

// SetDirectory sets the directory from the short form of the command line: "ldif:PATH".
func (c *Config) SetDirectory(text string) error {
	path, ok := strings.CutPrefix(text, "ldif:")
	if !ok || path == "" {
		return fmt.Errorf("%w: directory %q is not ldif:PATH; a directory server is described in the configuration file, under directory.ldap", ErrConfig, text)
	}
	c.Directory.LDIF, c.Directory.LDAP, c.Directory.Sources = &LDIFConfig{Path: path}, nil, nil
	c.file = configFile{} // it no longer says what the directory is
	return nil
}

// validated is a Config that was checked and completed.
type validated struct {
	Config
	dnsNames  []string
	addresses []netip.Addr
	// directories are those of the directory section.
	directories settings.Checked
	machine     ca.Profile
	server      ca.Profile
	admin       ca.Profile
	peer        ca.Profile
	gateway     ca.Profile
	rules       enrollment.Rules
	gateways    []enrollment.Rule
	kerberos    *enrollment.KerberosRules // nil without Kerberos
	responder   ca.Profile
	// pointers are what certificates say of revocation.
	pointers lists.Pointers
	// authorities says what CAs to make, but for the trust domain.
	authorities ca.Config
}

func (c Config) validate() (validated, error) {
	v := validated{Config: c}
	if v.StateDir == "" {
		v.StateDir = DefaultStateDir
	}
	if len(v.Listen) == 0 {
		v.Listen = []string{DefaultListen}
	}
	if v.Admin.Socket == "" {
		v.Admin.Socket = DefaultAdminSocket
	}
	if v.Log == nil {
		v.Log = hclog.NewNullLogger()
	}
	if v.Now == nil {
		v.Now = time.Now
	}
	if v.ReportInterval == 0 {
		v.ReportInterval = 30 * time.Second
	}
	errs := []error{v.checkAddresses(), v.checkNames(), v.checkDirectory(), v.checkStore(), v.checkRevocation(), v.checkCA(), v.checkEnrollment(), v.Connections.complete()}
	if v.ReportInterval < time.Second || v.ReportInterval > time.Hour {
		errs = append(errs, fmt.Errorf("reportInterval %v, wanted 1s to 1h", v.ReportInterval))
	}
	if v.TrustDomain != "" {
		domain, err := pki.ParseDNSName(v.TrustDomain)
		v.TrustDomain = domain
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return validated{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return v, nil
}

func (v *validated) checkAddresses() error {
	var errs []error
	for _, a := range v.Listen {
		if _, _, err := net.SplitHostPort(a); err != nil {
			errs = append(errs, fmt.Errorf("listen %q is not host:port", a))
		}
	}
	if v.Admin.Listen != "" {
		if _, _, err := net.SplitHostPort(v.Admin.Listen); err != nil {
			errs = append(errs, fmt.Errorf("admin.listen %q is not host:port", v.Admin.Listen))
		}
	}
	if v.Metrics.Listen != "" {
		if a, err := netip.ParseAddrPort(v.Metrics.Listen); err != nil || !a.Addr().IsLoopback() {
			errs = append(errs, fmt.Errorf("metrics.listen %q is not a port of a loopback address, as 127.0.0.1:9743: the figures are for this machine, without protection", v.Metrics.Listen))
		}
	}
	if v.EST.Listen != "" {
		if _, _, err := net.SplitHostPort(v.EST.Listen); err != nil {
			errs = append(errs, fmt.Errorf("est.listen %q is not host:port", v.EST.Listen))
		}
	}
	return errors.Join(errs...)
}

// maxNames is how many addresses of the host go into the certificate by default.
const maxNames = 16

func (v *validated) checkNames() error {
	for _, n := range v.Names {
		if a, err := netip.ParseAddr(n); err == nil {
			v.addresses = append(v.addresses, a.WithZone(""))
			continue
		}
		name, err := pki.ParseDNSName(n)
		if err != nil {
			return fmt.Errorf("names: %w", err)
		}
		v.dnsNames = append(v.dnsNames, name)
	}
	if len(v.Names) == 0 {
		found, err := net.InterfaceAddrs()
		if err != nil {
			return fmt.Errorf("names: asking for the host's addresses: %w; set them", err)
		}
		for _, f := range found {
			prefix, err := netip.ParsePrefix(f.String())
			if err == nil && !prefix.Addr().IsLinkLocalUnicast() && len(v.addresses) < maxNames {
				v.addresses = append(v.addresses, prefix.Addr().Unmap())
			}
		}
	}
	if len(v.dnsNames) == 0 {
		// The certificate needs one; nodes that connect by address do not look at it.
		v.dnsNames = []string{"bailiwick-controller"}
		if host, err := os.Hostname(); err == nil {
			if name, err := pki.ParseDNSName(host); err == nil {
				v.dnsNames[0] = name
			}
		}
	}
	return nil
}

func (v *validated) checkDirectory() error {
	checked, err := v.Directory.Check()
	v.directories = checked
	return settings.Locate(v.file.path, v.file.text, err)
}

func (v *validated) checkStore() error {
	s := v.Store
	switch {
	case len(s.Endpoints) == 0 && (s.CAFile != "" || s.CertFile != "" || s.KeyFile != "" || s.MaxTxnOps != 0 || s.ClaimTTL != 0):
		return errors.New("store: caFile, certFile, keyFile, maxTxnOps and claimTTL are for an external etcd, but there are no endpoints")
	case (s.CertFile == "") != (s.KeyFile == ""):
		return errors.New("store: certFile needs keyFile and the other way round")
	case s.Prefix != "" && (!strings.HasPrefix(s.Prefix, "/") || !strings.HasSuffix(s.Prefix, "/")):
		return fmt.Errorf("store.prefix %q does not begin and end with a slash", s.Prefix)
	case s.MaxTxnOps < 0:
		return fmt.Errorf("store.maxTxnOps %d is negative", s.MaxTxnOps)
	case s.ClaimTTL != 0 && (s.ClaimTTL < 2*time.Second || s.ClaimTTL > 5*time.Minute):
		return fmt.Errorf("store.claimTTL %v is not 2 s to 5 min", s.ClaimTTL)
	}
	for _, e := range s.Endpoints {
		if !strings.HasPrefix(e, "https://") && !strings.HasPrefix(e, "http://127.0.0.1:") && !strings.HasPrefix(e, "http://[::1]:") {
			return fmt.Errorf("store.endpoints: %q is not https: the state must not cross a network in clear", e)
		}
	}
	return nil
}

func (v *validated) checkCA() error {
	if (v.CA.PassphraseFile == "") == (v.CA.KeyFile == "") {
		return errors.New("ca: exactly one of passphraseFile and keyFile is needed (--ca-passphrase-file, --ca-key-file): it unlocks the CA's keys")
	}
	if t := v.CA.PKCS11; t != nil && (t.Module == "" || t.Token == "" || t.PINFile == "") {
		return errors.New("ca.pkcs11: module, token and pinFile are all needed")
	}
	algorithm, err := ca.ParseAlgorithm(v.CA.Algorithm)
	errs := []error{err}
	rootAlgorithm, err := ca.ParseAlgorithm(v.CA.RootAlgorithm)
	errs = append(errs, err)
	v.authorities = ca.Config{
		RootLifetime: v.CA.RootLifetime, IssuerLifetime: v.CA.IssuingLifetime, RootAlgorithm: rootAlgorithm, Algorithm: algorithm, Domains: v.CA.Domains,
	}
	// The trust domain is known only once the store was read; what depends on it was checked when it was set.
	complete := v.authorities
	complete.TrustDomain = "bailiwick"
	if err := complete.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("ca: %w", err))
	}
	for _, p := range []struct {
		profile  *ca.Profile
		kind     ca.Kind
		lifetime time.Duration
	}{{&v.machine, ca.Machine, v.CA.MachineLifetime}, {&v.server, ca.Server, v.CA.ServerLifetime}, {&v.admin, ca.Admin, v.CA.AdminLifetime}, {&v.peer, ca.Peer, v.CA.PeerLifetime}, {&v.gateway, ca.Gateway, v.CA.GatewayLifetime}, {&v.responder, ca.Responder, 0}} {
		profile, err := ca.NewProfile(p.kind, ca.ProfileConfig{Lifetime: p.lifetime, Pointers: v.pointers})
		*p.profile = profile
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (v validated) caDir() string { return filepath.Join(v.StateDir, "ca") }

func (v validated) secretsKey() string { return filepath.Join(v.StateDir, "secrets.key") }

func (v validated) storeDir() string { return filepath.Join(v.StateDir, "etcd") }
