// Package engine holds all IKE SAs of a machine as one pure machine: demultiplexing by SPI, stateless cookies and the
// limits on half-open SAs, the flows that wait for an association, fallback, duplicate SAs with one peer, and the
// earliest deadline.
//
// Its invariant: Step never blocks, never reads a clock and returns the same actions for the same configuration, seed
// and events; bad input becomes a Trace or a Down with a reason, never an error. What happens inside one SA belongs to
// node/ike/ikev2; executing actions, and the goroutine that calls Step, to node/ike/driver.
package engine
