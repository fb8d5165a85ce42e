// Package ikesim is a simulated world of IKE engines: virtual time, a network that loses, repeats, reorders and delays,
// jobs that take time, nodes that crash. It is for tests only.
//
// Its invariant: a world is a function of its seed. The rules that must hold after every step and at rest are in
// invariants.go. Key exchange and signatures are replaced by toys (toy.go), so that a run takes milliseconds; real ones
// are tested in node/ike/suite and against real peers.
package ikesim
