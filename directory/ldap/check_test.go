package ldap

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/e2e/lab/slapd"
)

// reader is an account like the one that a controller has: neither root nor anonymous.
const reader = "cn=reader,dc=bank,dc=example"

const readerEntry = "\ndn: " + reader + "\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\ncn: reader\nuserPassword: read me\n"

// startReader runs a slapd with the Bank, the reader and a database configuration of the test's.
func startReader(t *testing.T, o slapd.Options) (*lab, Config) {
	t.Helper()
	bank, err := os.ReadFile("../../e2e/bank/bank.ldif")
	if err != nil {
		t.Fatal(err)
	}
	o.Offline = append(bank, readerEntry...)
	l := start(t, o)
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("read me\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return l, l.config(func(c *Config) { c.Bind = Simple{DN: reader, PasswordFile: password} })
}

const login = "access to attrs=userPassword by anonymous auth\n"

// wantFinding looks for a finding about the subject, of the outcome, with the words in its detail and hint.
func wantFinding(t *testing.T, all []Finding, subject string, o Outcome, words ...string) {
	t.Helper()
	i := slices.IndexFunc(all, func(f Finding) bool { return f.Subject == subject && f.Outcome == o })
	if i < 0 {
		t.Errorf("nothing %v about %s in %+v", o, subject, all)
		return
	}
	for _, w := range words {
		if !strings.Contains(all[i].Detail+"\n"+all[i].Hint, w) {
			t.Errorf("finding %+v does not say %q", all[i], w)
		}
	}
}

func TestCheckOfAGoodConfiguration(t *testing.T) {
	_, c := startReader(t, slapd.Options{Config: login + "access to * by dn.exact=\"" + reader + "\" read by * none\n"})
	findings, snapshot := CheckTree(t.Context(), c, time.Now)
	// The laboratory's certificate lives for a day, which is told.
	for _, f := range findings {
		if f.Outcome != OK && f.Subject != subjectCertificate {
			t.Errorf("%+v", f)
		}
	}
	wantFinding(t, findings, subjectCertificate, Warning, "TLS 1.3", "localhost", "in 0 days")
	wantFinding(t, findings, subjectBind, OK, reader)
	wantFinding(t, findings, subjectServer, OK, "OpenLDAP")
	wantFinding(t, findings, subjectRead, OK, "7 machines, 2 groups, 5 containers")
	wantFinding(t, findings, subjectMachines, OK, "7 computer")
	wantFinding(t, findings, subjectChanges, OK, "RFC 4533")
	if snapshot == nil {
		t.Fatal("there is no tree")
	}
	if _, machines, _ := snapshot.Len(); machines != 7 {
		t.Errorf("the tree has %d machines, wanted 7", machines)
	}
}

// TestCheckOfMistakes plants one mistake after the other in a real server or in the configuration; each must be found, with
// what mends it.
func TestCheckOfMistakes(t *testing.T) {
	all := "access to * by dn.exact=\"" + reader + "\" read by * none\n"
	wrong := filepath.Join(t.TempDir(), "wrong")
	if err := os.WriteFile(wrong, []byte("guess\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		server  slapd.Options
		edit    func(l *lab, c *Config)
		subject string
		outcome Outcome
		words   []string
	}{
		"hidden UUID": {slapd.Options{Config: login + "access to attrs=entryUUID by * none\n" + all}, nil, subjectIdentity, Failure,
			[]string{"14 of 14 entries", "access to dn.subtree=", "attrs=entry,entryUUID", reader}},
		"UUIDs hidden in a container": {slapd.Options{Config: login + "access to dn.subtree=\"ou=SecureServers,dc=bank,dc=example\" attrs=entryUUID by * none\n" + all}, nil,
			subjectIdentity, Failure, []string{"of 14 entries", "SecureServers"}},
		"hidden account state": {slapd.Options{Config: login + "access to attrs=userAccountControl by * none\n" + all}, nil, subjectAccounts, Warning,
			[]string{"knows userAccountControl", "none of 7 machines", "attrs=entry,userAccountControl"}},
		"hidden members": {slapd.Options{Config: login + "access to attrs=member by * none\n" + all}, nil, subjectMembers, Failure,
			[]string{"2 of 2 groups", "member"}},
		"hidden classes": {slapd.Options{Config: login + "access to attrs=objectClass by * search\n" + all}, nil, subjectBase, Failure,
			[]string{"objectClass is hidden", "attrs=entry,objectClass"}},
		"hidden container": {slapd.Options{Config: login + "access to dn.base=\"ou=Servers,dc=bank,dc=example\" by * search\n" + all}, nil, subjectTree, Failure,
			[]string{"files1", "containerClasses"}},
		"size limit": {slapd.Options{Config: login + all + "limits dn.exact=\"" + reader + "\" size.prtotal=5\n"}, nil, subjectRead, Failure,
			[]string{"Size Limit Exceeded", "limits dn.exact=\"" + reader + "\" size=unlimited"}},
		"nobody may read": {slapd.Options{Config: login + "access to * by * none\n"}, nil, subjectBase, Failure, []string{"hidden from us", "dc=bank,dc=example"}},
		"no syncprov":     {slapd.Options{NoSyncprov: true, Config: login + all}, nil, subjectChanges, Warning, []string{"refuses it here", "overlay syncprov"}},
		"wrong base": {slapd.Options{Config: login + all}, func(_ *lab, c *Config) { c.Base = directory.MustParseDN("ou=Nowhere,dc=bank,dc=example") }, subjectBase, Failure,
			[]string{"ou=Nowhere", "the server holds dc=bank,dc=example"}},
		"base of nobody": {slapd.Options{Config: login + all}, func(_ *lab, c *Config) { c.Base = directory.MustParseDN("ou=Devices,dc=bank,dc=example") }, subjectMachines, OK, nil},
		"wrong schema": {slapd.Options{Config: login + all}, func(_ *lab, c *Config) { s := directory.ActiveDirectory(); c.Schema = &s }, subjectServer, Warning,
			[]string{"set schema to openldap", "objectGUID"}},
		"classes that nobody has": {slapd.Options{Config: login + all}, func(_ *lab, c *Config) {
			s := directory.OpenLDAP()
			s.MachineClasses = []string{"ieee802Device"}
			c.Schema = &s
		},
			subjectMachines, Failure, []string{"ieee802Device", "computer"}},
		"filter that nobody passes": {slapd.Options{Config: login + all}, func(_ *lab, c *Config) { s := directory.OpenLDAP(); s.MachineFilter = "(cn=zzz*)"; c.Schema = &s },
			subjectMachines, Failure, []string{"filter (cn=zzz*)"}},
		"wrong password": {slapd.Options{Config: login + all}, func(_ *lab, c *Config) { c.Bind = Simple{DN: reader, PasswordFile: wrong} }, subjectBind, Failure,
			[]string{"Invalid Credentials", "check bindDN and the password"}},
		"password for everybody": {slapd.Options{Config: login + all}, func(_ *lab, c *Config) { c.Bind = Simple{DN: reader, PasswordFile: wrong} }, subjectBind, Warning, []string{"chmod 600"}},
		"no password file":       {slapd.Options{Config: login + all}, func(_ *lab, c *Config) { c.Bind = Simple{DN: reader, PasswordFile: wrong + "x"} }, subjectBind, Failure, []string{"check the password file"}},
		"expired certificate": {slapd.Options{Config: login + all, Certificate: func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
		}}, nil,
			subjectCertificate, Failure, []string{"has expired", "renew the server's certificate"}},
		"certificate of tomorrow": {slapd.Options{Config: login + all, Certificate: func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(24*time.Hour), time.Now().Add(48*time.Hour)
		}}, nil,
			subjectCertificate, Failure, []string{"not valid yet", "clocks"}},
		"other name": {slapd.Options{Config: login + all}, func(_ *lab, c *Config) { c.ServerName = "dc1.bank.example" }, subjectCertificate, Failure,
			[]string{`not for "dc1.bank.example"`, "ldap.bank.example", "serverName"}},
		"foreign CA":    {slapd.Options{Config: login + all}, func(l *lab, c *Config) { c.CAFile = l.OtherCAFile }, subjectCertificate, Failure, []string{"no authority that is trusted", "caFile"}},
		"clear port":    {slapd.Options{Config: login + all}, func(l *lab, c *Config) { c.URL = strings.Replace(l.LDAP, "ldap:", "ldaps:", 1) }, subjectCertificate, Failure, []string{"636"}},
		"nobody there":  {slapd.Options{Config: login + all}, func(_ *lab, c *Config) { c.URL = "ldaps://127.0.0.1:1" }, subjectConnection, Failure, []string{"127.0.0.1:1", "firewalls"}},
		"configuration": {slapd.Options{Config: login + all}, func(_ *lab, c *Config) { c.URL = "http://127.0.0.1" }, subjectConfig, Failure, []string{"scheme"}},
	} {
		t.Run(name, func(t *testing.T) {
			l, c := startReader(t, tc.server)
			if tc.edit != nil {
				tc.edit(l, &c)
			}
			findings := Check(t.Context(), c, time.Now)
			wantFinding(t, findings, tc.subject, tc.outcome, tc.words...)
			for _, f := range findings {
				if strings.Contains(f.Detail+f.Hint, "read me") || strings.Contains(f.Detail+f.Hint, "guess") {
					t.Errorf("%+v shows a password", f)
				}
				if f.Outcome >= Warning && f.Hint == "" {
					t.Errorf("%+v has no hint", f)
				}
			}
		})
	}
}
