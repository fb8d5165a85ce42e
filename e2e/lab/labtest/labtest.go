// Package labtest makes labs for tests.
//
// Its invariant: a lab goes with the test that it was made for, and what it leaves behind fails that test. It leaves what a lab
// is to e2e/lab.
package labtest

import (
	"os"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
)

// New makes a lab that goes with the test. CI runs as root, so nothing is left out there.
func New(t testing.TB, prefix string) *lab.Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	l, err := lab.New(prefix)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}
