package kerberos

import (
	"crypto/ecdsa"
	"strings"
	"testing"
	"time"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/controller"
	"github.com/bailiwick-net/bailiwick/controller/controllertest"
	"github.com/bailiwick-net/bailiwick/e2e/lab/samba"
	nodekerberos "github.com/bailiwick-net/bailiwick/node/kerberos"
	"github.com/bailiwick-net/bailiwick/pki/kerberos"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// domain is a site whose directory and realm are one Active Directory domain.
type domain struct {
	*site
	dc   *samba.Server
	conn *goldap.Conn
}

const domainService = "bailiwick/controller.lab.example"

func newDomain(t *testing.T) *domain {
	t.Helper()
	dc := samba.ForTest(t, samba.Options{Prefix: "bwkrb5-", Services: "ldap kdc"})
	d := &domain{&site{t: t, fleet: controllertest.New(t, "dn: dc=x\nobjectClass: domain\n"), config: dc.Krb5Config}, dc, nil}
	var err error
	if d.conn, err = dc.Dial(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.conn.Close() })
	d.fleet.Config.TrustDomain = "lab.example"
	d.fleet.Config.Directory = controller.DirectoryConfig{LDAP: &controller.LDAPConfig{
		URL: dc.LDAPS, Base: dc.Base, Schema: "active-directory", CAFile: dc.CAFile, BindDN: dc.Administrator, PasswordFile: dc.PasswordFile,
		Interval: time.Second,
	}}
	return d
}

func (d *domain) add(rdn string, attributes ...string) {
	d.t.Helper()
	if err := d.dc.Add(d.conn, rdn, attributes...); err != nil {
		d.t.Fatal(err)
	}
}

// computer adds what a machine has in the domain after it joined.
func (d *domain) computer(name string) {
	d.t.Helper()
	fqdn := strings.ToLower(name) + "." + d.fleet.Config.TrustDomain
	d.add("CN="+name+",CN=Computers", "objectClass=computer", "sAMAccountName="+name+"$", "userAccountControl=4096", "dNSHostName="+fqdn,
		"servicePrincipalName=host/"+fqdn, "msDS-SupportedEncryptionTypes=24", "unicodePwd="+d.dc.Password)
}

func (d *domain) replace(rdn, attribute, value string) {
	d.t.Helper()
	m := goldap.NewModifyRequest(rdn+","+d.dc.Base, nil)
	m.Replace(attribute, []string{value})
	if err := d.conn.Modify(m); err != nil {
		d.t.Fatalf("set %s of %s: %v", attribute, rdn, err)
	}
}

func (d *domain) keys(file string, principals ...string) string {
	d.t.Helper()
	path, err := d.dc.Keytab(d.t.Context(), file, principals...)
	if err != nil {
		d.t.Fatal(err)
	}
	return path
}

// A computer of an Active Directory domain joins with its account, as itself and as nobody else, for as long as the account is
// enabled.
func TestComputerOfADomainEnrols(t *testing.T) {
	d := newDomain(t)
	d.computer("SQL1")
	d.computer("FILES1")
	d.add("CN=svc-bailiwick,CN=Users", "objectClass=user", "sAMAccountName=svc-bailiwick", "userAccountControl=512", "servicePrincipalName="+domainService,
		"unicodePwd="+d.dc.Password)
	sql1 := d.keys("sql1.keytab", "SQL1$", "host/sql1.lab.example")
	account, err := nodekerberos.Open(nodekerberos.Settings{Keytab: sql1, Config: d.config})
	if err != nil {
		t.Fatal(err)
	}
	if account.Principal().String() != "SQL1$@LAB.EXAMPLE" || account.HostName() != "sql1.lab.example" {
		t.Errorf("the machine is %v with the name %q, want SQL1$@LAB.EXAMPLE with sql1.lab.example", account.Principal(), account.HostName())
	}
	principal, err := kerberos.ParsePrincipal(domainService + "@LAB.EXAMPLE")
	if err != nil {
		t.Fatal(err)
	}
	// Unless the account of the service says that it knows AES, its tickets are sealed with RC4.
	_, err = account.Ticket(t.Context(), principal)
	d.wantRefusal(err, "msDS-SupportedEncryptionTypes")
	d.replace("CN=svc-bailiwick,CN=Users", "msDS-SupportedEncryptionTypes", "24")
	d.start(principal.String(), d.keys("controller.keytab", domainService), controller.RealmConfig{Name: "LAB.EXAMPLE", Accounts: "computer"})

	joined, err := d.join(sql1, "")
	if err != nil {
		t.Fatal(err)
	}
	if joined.Identity.DNSName() != "sql1.lab.example" {
		t.Errorf("joined as %v, want sql1.lab.example", joined.Identity)
	}
	n := d.fleet.Joined(joined.Key.(*ecdsa.PrivateKey), joined.RawChain(), joined.Trust)
	n.Connect(&nodev1.Hello{}).WantAssignment("none")

	t.Run("in another computer's name", func(t *testing.T) {
		_, err := d.join(sql1, "files1.lab.example")
		d.wantRefusal(err, "PermissionDenied", "files1.lab.example", "sql1.lab.example")
	})
	t.Run("with the keytab from before a change of the password", func(t *testing.T) {
		old := d.keys("files1.keytab", "FILES1$")
		if out, err := d.dc.Tool(t.Context(), "user", "setpassword", "FILES1$", "--newpassword=An0ther!one"); err != nil {
			t.Fatal(err, out)
		}
		_, err := d.join(old, "files1.lab.example")
		d.wantRefusal(err, "make the keytab anew")
	})
	t.Run("when its account is disabled", func(t *testing.T) {
		// A ticket from before is good for hours.
		l, request := d.line(), d.request("sql1.lab.example")
		ticket, err := account.Ticket(t.Context(), l.service)
		if err != nil {
			t.Fatal(err)
		}
		proof, err := kerberos.Prove(time.Now(), ticket, l.exporter, request)
		if err != nil {
			t.Fatal(err)
		}
		d.replace("CN=SQL1,CN=Computers", "userAccountControl", "4098")
		d.fleet.Eventually("the directory tells that the account is disabled", func() bool {
			r, err := d.fleet.Machines().ExplainMachine(t.Context(), &adminv1.ExplainMachineRequest{Machine: "SQL1"})
			return err == nil && r.GetMachine().GetDisabled()
		})
		_, err = l.client.Enroll(t.Context(), &nodev1.EnrollRequest{Kerberos: proof, Csr: request})
		d.wantRefusal(err, "disabled")
		_, err = d.join(sql1, "")
		d.wantRefusal(err, "log in to the realm LAB.EXAMPLE", "disabled or locked")
	})
}
