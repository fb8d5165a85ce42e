// Package trust decides whether a certificate is to be believed: it owns the trust bundle (roots and intermediates, a
// numbered and digested value), the set of revocations, and the verdict over a chain, for IKE peers and TLS alike.
//
// Invariants:
//
//   - Nothing costly happens before it is bounded: the number of certificates, their size and their keys are checked
//     before the first signature is.
//   - A verdict is positive only if every check was made: validity against the caller's clock, a path to a root of the
//     bundle, key usage and extended key usage of every certificate that restricts them, revocation of every
//     certificate below the root, and the name where one was asked for. There is no option that turns one off.
//   - Every refusal has one [Reason] and says what was found and what was wanted; a refusal for time names both clocks.
//   - A certificate is revoked by its issuer's key and its serial number, or by its own key: never by a hash over the
//     certificate, whose signature can be rewritten without invalidating it.
//
// It leaves to others: who the holder is (pki), issuing (pki/ca), fetching and storing bundles, and what a verified
// holder may do. It is pure: time is an argument, and nothing here reads a file, a socket or the system's trust store.
package trust
