//go:build !ikebug

package impair

// Enabled tells that faults can be switched on in this build.
const Enabled = false

// On reports whether a fault is on: never, in this build.
func On(Fault) bool { return false }
