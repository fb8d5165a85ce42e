package ldif

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/sourcetest"
)

// TestContract tells the story that all sources live through.
func TestContract(t *testing.T) {
	path := filepath.Join(t.TempDir(), "company.ldif")
	write := func(t *testing.T, data []byte) {
		if err := os.WriteFile(path+".new", data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	sourcetest.Run(t, sourcetest.Server{
		Dialect: sourcetest.Standard(),
		Apply:   func(t *testing.T, _ string, c *sourcetest.Company) { write(t, c.LDIF()) },
		Open: func(t *testing.T) directory.Source {
			s, err := Open(path, Options{})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		Stop: func(t *testing.T) {
			if err := os.Rename(path, path+".away"); err != nil {
				t.Fatal(err)
			}
		},
		Start: func(t *testing.T) {
			if err := os.Rename(path+".away", path); err != nil {
				t.Fatal(err)
			}
		},
	})
}
