// Package wire turns IKEv2 datagrams into payload values and back (RFC 7296 section 3, RFC 7383 for fragments).
//
// Its invariant: no input panics, every length is checked before it is used, and what Parse accepted Append writes so
// that Parse gives the same value again. Byte slices in parsed values are views into the datagram: whoever keeps one
// beyond the datagram's life copies it. The package also owns the translation between the offers of a policy
// (policies/proposal) and SA payloads, with the rules of RFC 7296 3.3.6 about what may be chosen.
//
// It leaves the non-ESP marker to the transport, all cryptography to node/ike/suite, and the question which payload is
// allowed when to node/ike/ikev2.
package wire
