// Package guard decides whether a change of the directory may be applied: a change that takes more machines away, or
// alters more of them, than a set share is held back as a whole until an administrator releases exactly that.
//
// Invariants: what was not admitted is never partly applied; a released set is the one that was shown; a directory
// without any machine is never admitted without release. The guard does not know why a change came: a wrong base DN, a
// filter with a typing error and a script gone wild all look like this.
//
// Changes of what Group Policy assigns are weighed beside those of the directory, by the same limits.
//
// The package is pure: one goroutine owns a Guard and passes the time in. Reading the directory, applying what was
// admitted and asking people is left to the caller.
package guard
