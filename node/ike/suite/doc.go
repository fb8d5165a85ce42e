// Package suite owns the cryptography of an IKEv2 SA: key exchange, key schedule, protection of SK and SKF payloads,
// and the octets and signatures of AUTH (RFC 7296 2.13 to 2.18, RFC 5282, RFC 7383, RFC 7427).
//
// Its invariant: keys are sa.Secrets and never leave in an error; nothing is decrypted before its integrity is proved;
// a peer's public value, signature or algorithm identifier that a standard does not allow exactly is refused. Only
// NewKeyExchange and Sign use system randomness; they run in the driver's jobs, never in the protocol machine.
//
// It leaves the payload encoding to node/ike/wire and the order of exchanges to node/ike/ikev2.
package suite
