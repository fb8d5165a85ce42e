package node

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

func TestGroupsOutliveARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	g, err := loadGroups(dir)
	if err != nil {
		t.Fatal(err)
	}
	if names := g.Groups().Names(); len(names) != 0 {
		t.Fatalf("a new node knows the groups %q", names)
	}
	set, err := trust.NewGroups(map[string][]pki.UUID{"CN=Auditors": {{1}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.SetGroups(set); err != nil {
		t.Fatal(err)
	}
	again, err := loadGroups(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !again.Groups().Contains("CN=Auditors", pki.UUID{1}) {
		t.Error("after a restart the member is forgotten")
	}
	if err := os.WriteFile(filepath.Join(dir, groupsFile), []byte{0x30}, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadGroups(dir); err == nil {
		t.Error("a damaged file is taken for nobody in any group")
	}
	// Where the disk refuses, the members count all the same.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := g.SetGroups(trust.Groups{}); err == nil {
		t.Error("members were stored in a folder that is not there")
	}
	if g.Groups().Contains("CN=Auditors", pki.UUID{1}) {
		t.Error("what could not be stored is not in force")
	}
}
