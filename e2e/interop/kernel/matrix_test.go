package kernel

import (
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/interop"
)

// shows registers a test of this folder for rows of the interop matrix.
func shows(t *testing.T, rows ...int) {
	t.Helper()
	interop.Shows(t, "interop/kernel", rows...)
}
