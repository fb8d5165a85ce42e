// Package audit writes down who was let in, who was not and why: the events of IKE that Windows writes to its security
// log, under the same numbers.
//
// Its invariant: whatever peers do, the audit costs a bounded number of lines, and no event goes uncounted: what is not
// written by itself is in the count of a later line. It never holds up the IKE engine, and holds no secret. It leaves what
// happens to node/ike, and rotating files to the system.
package audit
