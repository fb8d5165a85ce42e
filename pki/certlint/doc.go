// Package certlint owns the rules that a certificate must keep before it may be signed: one table, each rule with the
// place it comes from. The CA lints a twin of the certificate that nobody signed, so every rule looks at
// parsed bytes and not at the template that somebody meant.
//
// Invariant: a certificate without findings is exactly what [Expected] says, inside its issuer's validity, and nothing
// more; every deviation is a finding, there are no warnings.
//
// It leaves to others: who may have the certificate (pki/enroll and the controller), building and signing it (pki/ca),
// believing it later (pki/trust). It is pure.
package certlint
