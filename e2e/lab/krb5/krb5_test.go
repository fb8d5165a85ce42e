package krb5

import (
	"os"
	"testing"
)

func TestServerMakesPrincipalsAndLeavesNothing(t *testing.T) {
	s := ForTest(t, Options{})
	if err := s.AddPrincipal(t.Context(), "host/sql1.bank.example"); err != nil {
		t.Fatal(err)
	}
	if err := s.AddPrincipal(t.Context(), "host/sql1.bank.example"); err == nil {
		t.Error("one principal was made twice")
	}
	path, err := s.Keytab(t.Context(), "sql1.keytab", "host/sql1.bank.example")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("keytab: %v, error %v; want the mode 0600", info, err)
	}
	if _, err := s.Keytab(t.Context(), "none.keytab", "host/nobody.bank.example"); err == nil {
		t.Error("a keytab was made of a principal that does not exist")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.dir); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", s.dir, err)
	}
}
