// Package pki owns the identity of whoever holds a certificate of the fleet, and its three spellings: the directory
// object (UUID and DNS name), the subject alternative names of a certificate, and the IKE identification payload.
//
// The forms, decided once here:
//
//   - A machine's certificate carries exactly two subject alternative names: one dNSName, the machine's DNS name, and
//     one URI, "bailiwick://<trust domain>/machine/<uuid>". The trust domain is the directory root written as a DNS
//     name ("dc=bank,dc=example" is "bank.example"); the UUID is the directory object's, which a rename or a move
//     keeps.
//   - The controller's certificate carries its DNS names, its addresses and "bailiwick://<trust domain>/controller/<name>";
//     an administrator's only "bailiwick://<trust domain>/administrator/<name>". The URI is what tells the three roles
//     apart, so that no certificate passes for one of another role.
//   - A machine's IKE ID is ID_FQDN with its DNS name: short, and understood by every implementation.
//   - The subject's common name repeats the DNS name for people; nothing is ever decided from it.
//
// Invariant: an [Identity], [Controller] or [Administrator] that is not the zero value is valid and in canonical form
// (names in lower case), so values compare with ==, or with Equal where they hold lists. An IKE ID is only ever
// matched with a subject alternative name of its own type or with the whole subject name, octet for octet; there is no
// fall-back to the common name and no wildcard.
//
// It leaves to others: whether a certificate is to be believed (pki/trust), what may be signed (pki/certlint, pki/ca),
// requests and join tokens (pki/enroll). It is pure: no I/O, no clock, no randomness.
package pki
