// Package vectortest finds the shared test vectors for the tests of other packages. They are recordings and published
// vectors under licences of their own, tens of megabytes, which do not belong to this repository: the environment variable
// BAILIWICK_VECTORS names their folder, .ci/run sets it where they lie beside the repository, and tests that need them skip
// where it is unset. What they must show is shown with smaller vectors in testdata all the same.
package vectortest

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Dir returns the folder, and skips the test where there is none.
func Dir(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("BAILIWICK_VECTORS")
	if dir == "" {
		t.Skip("BAILIWICK_VECTORS is unset: it names the folder of the shared test vectors, which are not part of this repository")
	}
	return dir
}

// Decode reads a JSON file of the folder into v; a name that ends in .gz is one of a compressed file.
func Decode(t testing.TB, name string, v any) {
	t.Helper()
	f, err := os.Open(filepath.Join(Dir(t), name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			t.Fatalf("read %s: %v", name, err)
		}
	}
	if err := json.NewDecoder(r).Decode(v); err != nil {
		t.Fatalf("read %s: %v", name, err)
	}
}
