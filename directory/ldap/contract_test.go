package ldap

import (
	"context"
	"strings"
	"testing"
	"time"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/sourcetest"
	"github.com/bailiwick-net/bailiwick/e2e/lab/ds389"
	"github.com/bailiwick-net/bailiwick/e2e/lab/samba"
	"github.com/bailiwick-net/bailiwick/e2e/lab/slapd"
)

// TestContractSlapd tells the story that all sources live through, by every protocol that OpenLDAP allows. The server that
// takes over is another one with the same content, behind the same address.
func TestContractSlapd(t *testing.T) {
	for name, tc := range map[string]struct {
		options slapd.Options
		edit    func(*Config)
	}{
		"content synchronization": {slapd.Options{}, quiet},
		"with a session log":      {slapd.Options{SyncprovConfig: "syncprov-sessionlog 100\n"}, quiet},
		"polling":                 {slapd.Options{}, func(c *Config) { c.PollOnly = true }},
		"polling without marker":  {slapd.Options{NoSyncprov: true}, func(c *Config) { c.PollOnly = true }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := start(t, tc.options)
			p := newProxy(t, first.LDAP)
			now := first
			sourcetest.Run(t, sourcetest.Server{
				Dialect: sourcetest.Standard(),
				Apply:   func(_ *testing.T, ldif string, _ *sourcetest.Company) { now.modify(ldif) },
				Open: func(t *testing.T) directory.Source {
					return mustOpen(t, first.clear(p, tc.edit))
				},
				Cut:   func(*testing.T) { p.cut() },
				Stop:  func(*testing.T) { now.Kill() },
				Start: func(t *testing.T) { restarted(t, now.Restart(t.Context())) },
				FailOver: func(t *testing.T) {
					backup, err := now.Dump(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					options := tc.options
					options.Offline = backup
					second := start(t, options)
					p.lead(second.LDAP)
					now.Kill()
					now = second
				},
			})
		})
	}
}

// TestContract389 tells it in front of 389 Directory Server: where it synchronizes content, and where it only counts changes.
func TestContract389(t *testing.T) {
	for name, tc := range map[string]struct {
		options  ds389.Options
		protocol string
	}{
		"content synchronization": {ds389.Options{ContentSync: true}, protocolSync},
		"counting changes":        {ds389.Options{USN: true}, protocolPoll},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := ds389.ForTest(t, tc.options)
			p := newProxy(t, first.LDAP)
			now := first
			var sources []*Source
			sourcetest.Run(t, sourcetest.Server{
				Dialect: sourcetest.Standard(),
				Apply: func(t *testing.T, ldif string, _ *sourcetest.Company) {
					if err := now.Modify(t.Context(), ldif); err != nil {
						t.Fatal(err)
					}
				},
				Open: func(t *testing.T) directory.Source {
					schema := directory.DirectoryServer389()
					s := mustOpen(t, Config{
						URL: "ldap://" + p.address(), AllowClear: true, Base: base, Schema: &schema, Interval: 100 * time.Millisecond, Timeout: 5 * time.Second,
						Bind: Simple{DN: first.RootDN, PasswordFile: first.PasswordFile},
					})
					sources = append(sources, s)
					return s
				},
				Cut:   func(*testing.T) { p.cut() },
				Stop:  func(*testing.T) { now.Kill() },
				Start: func(t *testing.T) { restarted(t, now.Restart(t.Context())) },
				FailOver: func(t *testing.T) {
					now.Stop()
					options := tc.options
					options.Copy = now
					second := ds389.ForTest(t, options)
					p.lead(second.LDAP)
					p.cut()
					now = second
				},
			})
			if tc.protocol == protocolPoll && !sources[0].live {
				t.Error("the server's count of changes was never seen to move")
			}
			if st := sources[0].Status(); st.Protocol != tc.protocol {
				t.Errorf("the protocol is %q (%s), want %q", st.Protocol, st.ProtocolNote, tc.protocol)
			}
		})
	}
}

// TestContractSamba tells it in front of an Active Directory domain, in a container of it. There is one controller only:
// what happens when another answers is tested without a second one.
func TestContractSamba(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	dc := samba.ForTest(t, samba.Options{Prefix: "bwcontract-"})
	dialect := sourcetest.ActiveDirectory(dc.Base)
	for name, edit := range map[string]func(*Config){
		"the best protocol": func(*Config) {},
		"polling":           func(c *Config) { c.PollOnly = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() { removeTree(t, dc, dialect.Base) })
			p := newProxy(t, strings.Replace(dc.LDAPS, "ldaps:", "ldap:", 1))
			sourcetest.Run(t, sourcetest.Server{
				Dialect: dialect,
				Apply: func(t *testing.T, ldif string, _ *sourcetest.Company) {
					if err := slapd.Tool(t.Context(), []byte(ldif), "ldapmodify", "-x", "-H", dc.LDAPS, "-o", "TLS_CACERT="+dc.CAFile,
						"-D", dc.Administrator, "-w", dc.Password); err != nil {
						t.Fatal(err)
					}
				},
				Open: func(t *testing.T) directory.Source {
					schema := directory.ActiveDirectory()
					c := Config{
						URL: "ldaps://" + p.address(), CAFile: dc.CAFile, Base: directory.MustParseDN(dialect.Base), Schema: &schema,
						Interval: 100 * time.Millisecond, Timeout: 10 * time.Second, Bind: Simple{DN: dc.Administrator, PasswordFile: dc.PasswordFile},
					}
					edit(&c)
					return mustOpen(t, c)
				},
				Cut:   func(*testing.T) { p.cut() },
				Stop:  func(t *testing.T) { restarted(t, dc.Stop()) },
				Start: func(t *testing.T) { restarted(t, dc.Run(ctx)) },
			})
		})
	}
}

// removeTree makes room for the next story.
func removeTree(t *testing.T, dc *samba.Server, dn string) {
	conn, err := dc.Dial()
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	if err := conn.Del(goldap.NewDelRequest(dn, []goldap.Control{goldap.NewControlSubtreeDelete()})); err != nil {
		t.Error(err)
	}
}

func mustOpen(t *testing.T, c Config) *Source {
	t.Helper()
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func restarted(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lead makes new connections go to another server.
func (p *proxy) lead(url string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.target = strings.TrimPrefix(url, "ldap://")
}
