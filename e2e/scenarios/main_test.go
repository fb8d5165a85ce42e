package scenarios

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// binaries is the directory of the binaries under test.
var binaries string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if os.Geteuid() != 0 {
			fmt.Fprintln(os.Stderr, "scenarios need root for network namespaces; continuous integration runs them as root")
			return 0
		}
		dir, err := os.MkdirTemp("", "bailiwick-scenarios")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		build := exec.Command("go", "build", "-o", dir, "../../cmd/bailiwick", "../../cmd/bailiwick-controller", "../../cmd/bailiwick-node")
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "build the binaries:", err)
			return 1
		}
		binaries = dir
		return m.Run()
	}())
}
