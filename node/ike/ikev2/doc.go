// Package ikev2 is the state machine of one IKE SA (RFC 7296): its exchanges, its message IDs and fragments, its Child
// SAs, its timers and what happens when both sides act at the same time.
//
// Its invariant: it is pure. Time is an argument, random octets come from the Host's seed, and everything slow or secret
// leaves as a job. Which message is legal in which state is the table of table.go; what an own and a peer's exchange do
// to each other is the table of collide.go. It leaves several SAs with one peer, cookies and limits to node/ike/engine,
// and keys and signatures to node/ike/suite and the jobs.
package ikev2
