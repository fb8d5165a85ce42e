// Package strongswan holds the node to real peers: Debian's strongSwan on the other end of the wire, either side
// initiating, with a capture that decides what went in clear.
//
// Its invariant: both ends are the binaries that people run; what passed is judged by the exchange and by the wire, and
// what either daemon says of itself is compared with what the other one says. It leaves namespaces to e2e/lab, and the
// strongSwan to e2e/lab/charon.
package strongswan
