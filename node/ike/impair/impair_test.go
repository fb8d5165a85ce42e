package impair

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A normal build of the daemon has no trace of a fault, not even its name. The build with the tag has: so the test would
// see one.
func TestImpairIsAbsentFromReleases(t *testing.T) {
	if Enabled {
		t.Skip("this is the build with faults")
	}
	for _, c := range []struct {
		tags string
		want bool
	}{{"", false}, {"ikebug", true}} {
		binary := filepath.Join(t.TempDir(), "bailiwick-node")
		build := exec.Command("go", "build", "-tags", c.tags, "-o", binary, "github.com/bailiwick-net/bailiwick/cmd/bailiwick-node")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build with tags %q: %v\n%s", c.tags, err, out)
		}
		octets, err := os.ReadFile(binary)
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Contains(octets, []byte("ikebug-")); got != c.want {
			t.Errorf("built with tags %q, the binary names faults: %v, want %v", c.tags, got, c.want)
		}
	}
}
