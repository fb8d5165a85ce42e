package controller

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "controller.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadConfig(t *testing.T) {
	c, err := ReadConfig(writeConfig(t, `# everything at once
stateDir: /srv/bailiwick
trustDomain: Bank.Example
listen: ["0.0.0.0:7443", "[::1]:7443"]
names: [controller.bank.example, 192.0.2.1, "2001:db8::1"]
admin:
  socket: /run/b.sock
  listen: 192.0.2.1:7444
directory:
  ldap:
    url: ldaps://ldap.bank.example
    base: dc=bank,dc=example
    schema: active-directory
    bindDN: cn=reader,dc=bank,dc=example
    passwordFile: /etc/bailiwick/ldap.password
    interval: 10s
  guard: {share: 0.05, floor: 3, ceiling: 100}
  grace: 48h
store:
  endpoints: ["https://etcd1:2379"]
  caFile: /etc/bailiwick/etcd-ca.pem
  maxTxnOps: 512
ca:
  keyFile: /etc/bailiwick/ca.secret
  machineLifetime: 168h
reportInterval: 15s
`))
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.validate()
	if err != nil {
		t.Fatal(err)
	}
	if v.TrustDomain != "bank.example" || len(v.dnsNames) != 1 || len(v.addresses) != 2 || v.directories.Sources[0].Limits.Ceiling != 100 ||
		v.directories.Sources[0].LDAP.Interval != 10*time.Second || v.machine.Lifetime() != 168*time.Hour || v.Directory.Grace != 48*time.Hour || v.ReportInterval != 15*time.Second {
		t.Errorf("validated is %+v", v)
	}
}

func TestUnknownFieldHasItsPlace(t *testing.T) {
	_, err := ReadConfig(writeConfig(t, "stateDir: /srv\ndirectory:\n  ldif:\n    file: x\n"))
	if !errors.Is(err, ErrConfig) {
		t.Fatalf("got %v, wanted ErrConfig", err)
	}
	for _, want := range []string{"[4:5]", "file", "controller.yaml"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not say %q: %v", want, err)
		}
	}
}

// good is the least that a controller needs.
func good() Config {
	return Config{Directory: DirectoryConfig{LDIF: &LDIFConfig{Path: "fleet.ldif"}}, CA: CAConfig{KeyFile: "ca.secret"}}
}

func TestValidateRefuses(t *testing.T) {
	if _, err := good().validate(); err != nil {
		t.Fatalf("the least configuration is refused: %v", err)
	}
	for name, test := range map[string]struct {
		spoil func(c *Config)
		want  string
	}{
		"no directory":            {func(c *Config) { c.Directory.LDIF = nil }, "exactly one of ldif and ldap"},
		"two directories":         {func(c *Config) { c.Directory.LDAP = &LDAPConfig{} }, "exactly one of ldif and ldap"},
		"no path":                 {func(c *Config) { c.Directory.LDIF.Path = "" }, "directory.ldif.path"},
		"bad base":                {func(c *Config) { c.Directory.LDIF.Base = "nonsense" }, "directory.ldif.base"},
		"unknown schema":          {func(c *Config) { ldapOf(c).Schema = "novell" }, `"novell"`},
		"no base":                 {func(c *Config) { ldapOf(c).Base = "" }, "directory.ldap"},
		"clear LDAP":              {func(c *Config) { ldapOf(c).URL = "ldap://ldap.bank.example" }, "directory.ldap"},
		"password without DN":     {func(c *Config) { ldapOf(c).PasswordFile = "x" }, "bindDN"},
		"two ways to bind":        {func(c *Config) { l := ldapOf(c); l.External, l.BindDN = true, "cn=x" }, "exclude each other"},
		"guard that lets all":     {func(c *Config) { c.Directory.Guard = GuardConfig{Share: 2} }, "directory.guard"},
		"negative grace":          {func(c *Config) { c.Directory.Grace = -1 }, "directory.grace"},
		"listen without port":     {func(c *Config) { c.Listen = []string{"127.0.0.1"} }, "host:port"},
		"admin listen":            {func(c *Config) { c.Admin.Listen = "x" }, "admin.listen"},
		"name":                    {func(c *Config) { c.Names = []string{"*.bank.example"} }, "names"},
		"trust domain":            {func(c *Config) { c.TrustDomain = "bank example" }, "bank example"},
		"etcd in clear":           {func(c *Config) { c.Store.Endpoints = []string{"http://etcd1:2379"} }, "must not cross a network in clear"},
		"TLS for nothing":         {func(c *Config) { c.Store.CAFile = "x" }, "there are no endpoints"},
		"certificate without key": {func(c *Config) { c.Store.Endpoints, c.Store.CertFile = []string{"https://e:1"}, "x" }, "needs keyFile"},
		"prefix":                  {func(c *Config) { c.Store.Prefix = "bailiwick" }, "store.prefix"},
		"claim too short":         {func(c *Config) { c.Store.Endpoints, c.Store.ClaimTTL = []string{"https://e:1"}, time.Second }, "store.claimTTL"},
		"CA locked":               {func(c *Config) { c.CA.KeyFile = "" }, "unlocks the CA's keys"},
		"CA locked twice":         {func(c *Config) { c.CA.PassphraseFile = "x" }, "exactly one of"},
		"lifetime":                {func(c *Config) { c.CA.MachineLifetime = time.Minute }, "lifetime"},
		"gateways": {func(c *Config) {
			c.Enrollment.Gateways = []MachinesConfig{{Group: "cn=gateways,dc=bank,dc=example"}, {}}
		}, "enrollment.gateways, entry 2"},
		"gateway lifetime": {func(c *Config) { c.CA.GatewayLifetime = time.Hour }, "gateway profile"},
		"report interval":  {func(c *Config) { c.ReportInterval = time.Millisecond }, "reportInterval"},
	} {
		t.Run(name, func(t *testing.T) {
			c := good()
			test.spoil(&c)
			_, err := c.validate()
			if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, wanted ErrConfig with %q", err, test.want)
			}
		})
	}
}

// ldapOf turns a configuration into one with a good LDAP directory, for one thing to be spoilt.
func ldapOf(c *Config) *LDAPConfig {
	c.Directory.LDIF = nil
	c.Directory.LDAP = &LDAPConfig{URL: "ldaps://ldap.bank.example", Base: "dc=bank,dc=example"}
	return c.Directory.LDAP
}

func TestSetDirectory(t *testing.T) {
	var c Config
	ldapOf(&c)
	if err := c.SetDirectory("ldif:fleet.ldif"); err != nil || c.Directory.LDAP != nil || c.Directory.LDIF.Path != "fleet.ldif" {
		t.Errorf("directory is %+v, error %v", c.Directory, err)
	}
	for _, bad := range []string{"", "fleet.ldif", "ldif:", "ldaps://x"} {
		if err := c.SetDirectory(bad); !errors.Is(err, ErrConfig) {
			t.Errorf("%q gave %v, wanted ErrConfig", bad, err)
		}
	}
}
