// Package interop holds IKE to real peers: the driver alone, on plain sockets and with a datapath that only records,
// against another implementation on the other end of the wire.
//
// Its invariant: the peer is a binary that people run, never a double of it. It leaves the whole daemon, with traffic, to
// the packages below it, and namespaces to e2e/lab.
package interop
