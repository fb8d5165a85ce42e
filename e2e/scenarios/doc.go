// Package scenarios tells whole stories with the real binaries: the Bank from the first token to a lost controller, what
// must never be on the wire, and what wrong input does.
//
// Its invariant: a story asserts what a capture or a real exchange saw. It leaves the building of networks to e2e/lab and
// e2e/bank.
package scenarios
