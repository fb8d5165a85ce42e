// Package revocation is how the fleet tells machines without our daemon which certificates must not be believed any more:
// it owns the reasons of RFC 5280, what a certificate revocation list holds and how it is split, the requests and
// responses of OCSP (RFC 6960), the places that certificates name for both, and the reading of a root's list that was signed
// elsewhere.
//
// Invariants: a list or response that is made says when the next one comes; a list that does not hold all revocations
// of its issuer says so in a critical extension; a response repeats the nonce of its request, whole or not at all; what
// a stranger sends is bounded before it is read.
//
// It leaves to others: who is revoked and why (controller/revocation), the keys that sign (pki/ca), serving, and the
// revocations that our own nodes are told (pki/trust). It is pure: time and randomness are arguments.
package revocation
