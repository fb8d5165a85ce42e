package controller

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jcmturner/gokrb5/v8/keytab"

	"github.com/bailiwick-net/bailiwick/controller/enrollment"
)

func TestKerberosConfig(t *testing.T) {
	dir := t.TempDir()
	write := func(name, principal string, encryption int32, mode os.FileMode) string {
		k := keytab.New()
		if err := k.AddEntry(principal, "BANK.EXAMPLE", "password", time.Now(), 1, encryption); err != nil {
			t.Fatal(err)
		}
		octets, err := k.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, octets, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const aes, rc4 = 18, 23
	service := "bailiwick/controller.bank.example"
	good := write("good", service, aes, 0o600)
	bank := RealmConfig{Name: "BANK.EXAMPLE", Accounts: "host"}
	in := func(r RealmConfig, container string) RealmConfig {
		r.Container = container
		return r
	}
	lab := RealmConfig{Name: "LAB.EXAMPLE", Accounts: "computer"}
	for _, c := range []struct {
		name, principal, file string
		realms                []RealmConfig
		want                  string // "" for none
	}{
		{"one realm", service + "@BANK.EXAMPLE", good, []RealmConfig{bank}, ""},
		{"two realms", service + "@BANK.EXAMPLE", good, []RealmConfig{in(bank, "ou=a,dc=x"), in(lab, "ou=b,dc=x")}, ""},
		{"another service", "host/controller.bank.example@BANK.EXAMPLE", good, []RealmConfig{bank}, "wanted bailiwick/NAME@REALM"},
		{"no realm of the principal", service, good, []RealmConfig{bank}, "principal"},
		{"no keytab", service + "@BANK.EXAMPLE", "", []RealmConfig{bank}, "keytabFile is missing"},
		{"keytab that is not there", service + "@BANK.EXAMPLE", filepath.Join(dir, "absent"), []RealmConfig{bank}, "absent"},
		{"keytab that others can read", service + "@BANK.EXAMPLE", write("open", service, aes, 0o640), []RealmConfig{bank}, "0640"},
		{"keytab of another service", service + "@BANK.EXAMPLE", write("other", "host/x", aes, 0o600), []RealmConfig{bank}, "only of host/x@BANK.EXAMPLE"},
		{"keytab of RC4", service + "@BANK.EXAMPLE", write("weak", service, rc4, 0o600), []RealmConfig{bank}, "none of which is of AES"},
		{"no realms", service + "@BANK.EXAMPLE", good, nil, "realms is empty"},
		{"no form", service + "@BANK.EXAMPLE", good, []RealmConfig{{Name: "BANK.EXAMPLE"}}, `wanted "host"`},
		{"no name", service + "@BANK.EXAMPLE", good, []RealmConfig{{Accounts: "host"}}, "not that of a realm"},
		{"realm twice", service + "@BANK.EXAMPLE", good, []RealmConfig{in(bank, "ou=a,dc=x"), in(bank, "ou=b,dc=x")}, "named twice"},
		{"two realms without containers", service + "@BANK.EXAMPLE", good, []RealmConfig{bank, lab}, "has no container"},
		{"containers that overlap", service + "@BANK.EXAMPLE", good, []RealmConfig{in(bank, "dc=x"), in(lab, "ou=b,dc=x")}, "overlaps"},
		{"container that is none", service + "@BANK.EXAMPLE", good, []RealmConfig{in(bank, "nothing")}, "entry 1"},
	} {
		v := validated{Config: Config{Enrollment: EnrollmentConfig{Kerberos: &KerberosConfig{Principal: c.principal, KeytabFile: c.file, Realms: c.realms}}}}
		err := v.checkEnrollment()
		switch {
		case c.want == "" && (err != nil || len(v.kerberos.Realms) != len(c.realms)):
			t.Errorf("%s: error %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: error %v, want %q in it", c.name, err, c.want)
		}
	}
	v := validated{}
	if err := v.checkEnrollment(); err != nil || v.kerberos != nil {
		t.Errorf("without Kerberos: %v, error %v", v.kerberos, err)
	}
	if got := enrollment.AccountForm(9).String(); got != "AccountForm(9)" {
		t.Errorf("form 9 is called %q", got)
	}
}
