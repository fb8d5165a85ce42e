// Package arch holds the rules of the repository's structure as tests: which package may import which, what pure
// packages must not touch, one package comment each, and file sizes.
//
// Its invariant: the table in arch_test.go is the import table of ARCHITECTURE.md. It leaves style to the linters.
package arch
