package enrollment

import (
	"errors"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	"github.com/bailiwick-net/bailiwick/pki/kerberos"
)

// An account is one machine or nobody: never the next best.
func TestAccountIsOneMachine(t *testing.T) {
	machine := func(n byte, dn, name, dnsName string) directory.Machine {
		return directory.Machine{UUID: directory.UUID{n}, DN: directory.MustParseDN(dn), Name: name, DNSName: dnsName}
	}
	o := newOffice(t)
	o.put(
		machine(1, "cn=sql1,dc=bank,dc=example", "sql1", "sql1.bank.example"),
		machine(2, "cn=files1,dc=bank,dc=example", "files1", ""), // files1 in the trust domain
		machine(3, "cn=web1,dc=bank,dc=example", "web1", "www.bank.example"),
		// twice is the DNS name of one, and the short name in the trust domain of the other.
		machine(4, "cn=old,dc=bank,dc=example", "old", "twice."+catest.TrustDomain),
		machine(5, "cn=twice,dc=bank,dc=example", "twice", ""),
	)
	for _, c := range []struct {
		principal string
		form      AccountForm
		container string
		want      byte
		err       error
	}{
		{"host/sql1.bank.example@BANK.EXAMPLE", HostAccounts, "", 1, nil},
		{"host/SQL1.Bank.Example@BANK.EXAMPLE", HostAccounts, "", 1, nil},
		{"host/files1." + catest.TrustDomain + "@BANK.EXAMPLE", HostAccounts, "", 2, nil},
		{"host/www.bank.example@BANK.EXAMPLE", HostAccounts, "dc=bank,dc=example", 3, nil},
		{"SQL1$@BANK.EXAMPLE", ComputerAccounts, "", 1, nil},
		{"web1$@BANK.EXAMPLE", ComputerAccounts, "dc=example", 3, nil},

		{"host/sql1@BANK.EXAMPLE", HostAccounts, "", 0, ErrAccount},
		{"host/sql1.elsewhere.example@BANK.EXAMPLE", HostAccounts, "", 0, ErrAccount},
		{"host/web1.bank.example@BANK.EXAMPLE", HostAccounts, "", 0, ErrAccount}, // it has another DNS name
		{"host/twice." + catest.TrustDomain + "@BANK.EXAMPLE", HostAccounts, "", 0, ErrAccount},
		{"host/nobody.bank.example@BANK.EXAMPLE", HostAccounts, "", 0, ErrAccount},
		{"host/sql1.bank.example/admin@BANK.EXAMPLE", HostAccounts, "", 0, ErrAccount},
		{"http/sql1.bank.example@BANK.EXAMPLE", HostAccounts, "", 0, ErrAccount},
		{"SQL1$@BANK.EXAMPLE", HostAccounts, "", 0, ErrAccount},
		{"sql1@BANK.EXAMPLE", HostAccounts, "", 0, ErrAccount},
		{"sql1@BANK.EXAMPLE", ComputerAccounts, "", 0, ErrAccount}, // a person, or a computer that lost its $
		{"$@BANK.EXAMPLE", ComputerAccounts, "", 0, ErrAccount},
		{"sql1.bank.example$@BANK.EXAMPLE", ComputerAccounts, "", 0, ErrAccount},
		{"host/sql1.bank.example@BANK.EXAMPLE", ComputerAccounts, "", 0, ErrAccount},
		{"host/sql1.bank.example@BANK.EXAMPLE", HostAccounts, "ou=Machines,dc=bank,dc=example", 0, ErrAccount},
		{"host/sql1.bank.example@bank.example", HostAccounts, "", 0, kerberos.ErrRealm},
		{"host/sql1.bank.example@ELSEWHERE.EXAMPLE", HostAccounts, "", 0, kerberos.ErrRealm},
	} {
		p, err := kerberos.ParsePrincipal(c.principal)
		if err != nil {
			t.Fatal(err)
		}
		realm := Realm{Name: "BANK.EXAMPLE", Accounts: c.form}
		if c.container != "" {
			realm.Container = directory.MustParseDN(c.container)
		}
		rules := &KerberosRules{Realms: []Realm{{Name: "LAB.EXAMPLE", Accounts: HostAccounts}, realm}}
		got, err := rules.machineOf(o.snapshot, catest.TrustDomain, p)
		if !errors.Is(err, c.err) || got.UUID[0] != c.want {
			t.Errorf("%s as %v below %q: machine %d, error %v; want %d, error %v", c.principal, c.form, c.container, got.UUID[0], err, c.want, c.err)
		}
	}
}

// A verified account goes the way of every other claim.
func TestAccountGoesThroughTheAuthorizer(t *testing.T) {
	o := newOffice(t)
	claim := accountClaim{desk: o.Desk, uuid: pki.UUID(sql1.UUID), principal: kerberos.Principal{Components: []string{"SQL1$"}, Realm: "BANK.EXAMPLE"}}
	if _, err := o.authorize(t.Context(), claim, o.request("files1."+catest.TrustDomain)); !errors.Is(err, enroll.ErrNameMismatch) {
		t.Errorf("another machine's name: %v, want ErrNameMismatch", err)
	}
	disabled := sql1
	disabled.Disabled = true
	o.put(disabled)
	if _, err := o.authorize(t.Context(), claim, o.request("sql1."+catest.TrustDomain)); !errors.Is(err, ErrMachineDisabled) {
		t.Errorf("disabled: %v, want ErrMachineDisabled", err)
	}
	o.put(sql1)
	if _, err := o.authorize(t.Context(), claim, o.request("sql1."+catest.TrustDomain)); err != nil {
		t.Fatal(err)
	}
	if held := o.holdings[claim.uuid]; held.How != "Kerberos account SQL1$@BANK.EXAMPLE" {
		t.Errorf("the machine's certificate came by %q, want its account", held.How)
	}
	revoked := o.holdings[claim.uuid].Serial
	o.config.Barred = func(h store.Holding) string {
		if h.Serial == revoked {
			return "keyCompromise"
		}
		return ""
	}
	if _, err := o.authorize(t.Context(), claim, o.request("sql1."+catest.TrustDomain)); !errors.Is(err, ErrBarred) {
		t.Errorf("revoked: %v, want ErrBarred", err)
	}
	if o.authority.issued != 1 {
		t.Errorf("%d certificates, want 1", o.authority.issued)
	}
	o.config.Barred = nil
	for err := error(nil); err == nil && o.authority.issued <= machineBurst; {
		if _, err = o.authorize(t.Context(), claim, o.request("sql1."+catest.TrustDomain)); err != nil && !errors.Is(err, ErrTooOften) {
			t.Errorf("too often: %v, want ErrTooOften", err)
		}
	}
	if o.authority.issued != machineBurst {
		t.Errorf("%d certificates in a row, want %d", o.authority.issued, machineBurst)
	}
}

// What is wrong before anybody is believed says so, and says nothing of the controller's files.
func TestAccountBeforeItIsVerified(t *testing.T) {
	o := newOffice(t)
	var exporter [kerberos.ExporterSize]byte
	ask := func() error {
		_, err := o.EnrollAccount(t.Context(), []byte("proof"), exporter, o.request("sql1."+catest.TrustDomain))
		return err
	}
	if err := ask(); !errors.Is(err, ErrKerberosClosed) {
		t.Errorf("not configured: %v, want ErrKerberosClosed", err)
	}
	if _, err := o.ServicePrincipal(); !errors.Is(err, ErrKerberosClosed) {
		t.Errorf("service where it is not configured: %v, want ErrKerberosClosed", err)
	}
	fails := errors.New("/etc/secret is gone")
	o.config.Kerberos = &KerberosRules{Keytab: func() (kerberos.Keytab, error) { return kerberos.Keytab{}, fails }}
	if err := ask(); !errors.Is(err, ErrKeytab) || errors.Is(err, fails) {
		t.Errorf("no keytab: %v, want ErrKeytab and nothing of the file", err)
	}
	fails = nil
	if err := ask(); !errors.Is(err, kerberos.ErrMalformed) {
		t.Errorf("no proof: %v, want ErrMalformed", err)
	}
	if code, _ := Code(ErrBarred); code != codes.PermissionDenied {
		t.Errorf("code of ErrBarred %v", code)
	}
	for range strangerBurst {
		if err := ask(); errors.Is(err, ErrTooOften) {
			return
		}
	}
	t.Errorf("%d proofs that are none in a row, want ErrTooOften", strangerBurst)
}
