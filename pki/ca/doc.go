// Package ca issues the certificates of the fleet: it owns the two tiers (a root, and the issuing CA below it), their
// keys on disk, the profiles, and the steps from a request to a signed certificate.
//
// The steps are explicit and in this order; none can be left out:
//
//  1. Prepare checks request, subject, profile and the issuer's remaining life, draws the serial number, and lints
//     a twin of the certificate that nobody signed (pki/certlint). The result can be redeemed once.
//  2. Issue redeems it and records the intention, with the very octets to be signed, in the [Journal]. A journal that
//     fails ends it here: nothing was signed.
//  3. Issue signs, compares the octets with the intention, and records the certificate.
//
// Invariants: the CA key never signs octets that were not linted and durably recorded before; serial numbers are 128
// random bits; a certificate never outlives its issuer; private keys are on disk only encrypted and readable by their
// owner alone. A [CA] is immutable and safe for use by several goroutines.
//
// It leaves to others: who may have which certificate (the controller, the only caller), where the intentions go when
// there is more than one controller (a Journal over its store), and revocation (pki/trust holds the set).
package ca
