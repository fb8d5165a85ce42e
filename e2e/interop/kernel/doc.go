// Package kernel holds the node to strongSwan on the IPsec of a Linux kernel, in a guest on the same wire: transport mode,
// extended sequence numbers, and what else userspace ESP of the peer cannot show.
//
// Its invariant: what passed is judged by the exchange, by the wire, and by what the guest's kernel says of its SAs. It
// leaves both ends to e2e/interop/pair.
package kernel
