// Package judge reads what crossed a wire and tells what must not have: packets in clear of flows that must be protected,
// alone, in fragments, inside other packets, quoted by ICMP errors, or under ESP that does not encrypt.
//
// Its invariant: it believes nothing but the octets of the frames and a plain statement of what must be protected. It shares
// no code with what it judges: it imports the standard library and nothing else. What it cannot read it counts, and searches
// for the markers that protected traffic carries. It leaves the reading of the wire to its callers.
package judge
