package ds389

import (
	"os"
	"testing"
)

func TestServerLoadsTheBankAndLeavesNothing(t *testing.T) {
	s := ForTest(t, Options{ContentSync: true, USN: true})
	bank, err := os.ReadFile("../../bank/bank.ldif")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Load(t.Context(), bank); err != nil {
		t.Fatalf("load the Bank: %v", err)
	}
	if err := s.Load(t.Context(), bank); err == nil {
		t.Error("the Bank was loaded twice")
	}
	s.Kill()
	if err := s.Restart(t.Context()); err != nil {
		t.Fatalf("restart: %v", err)
	}
	if err := s.Modify(t.Context(), "dn: cn=ws2,OU=Workstations,dc=bank,dc=example\nchangetype: modrdn\nnewrdn: cn=ws2\ndeleteoldrdn: 1\nnewsuperior: OU=SecureServers,dc=bank,dc=example\n"); err != nil {
		t.Errorf("move ws2 after the restart: %v", err)
	}
	dir := s.dir
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", dir, err)
	}
}
