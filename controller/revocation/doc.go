// Package revocation keeps which certificates and keys must not be believed any more: it writes the records, tells the
// sessions and the nodes through the set that it publishes, keeps the records in step with the directory, and makes the
// lists and the OCSP responses for machines that are told in no other way.
//
// Invariants:
//
//   - a revocation is in the store before anybody acts on it, and in force when Revoke returns;
//   - no certificate comes out of a request that began before a revocation and would have been refused after it: whoever
//     issues asks again once the certificate is in the journal, and nobody revokes meanwhile (the gate);
//   - nothing waits for a signature but who wants what is signed: a revocation is recorded and told while the keys of all
//     CAs hang, and the list before is given out while it is good;
//   - what an administrator revoked is never lifted by the directory; only a hold can be lifted at all (RFC 5280 5.3.1);
//   - the directory is believed only where it was read in this run and its change admitted by the guard;
//   - the list of a root that is kept off line is given out as it was handed in, newer than the one before, and never one that
//     revokes a CA which the fleet trusts; what is on it is in force before it is given out;
//   - the number of a list is drawn from the store, so that no two lists that are signed here have the same, whatever clock and restarts do.
//
// It leaves who may revoke to admin, sending to distribute, cutting to the nodes, and keys to pki/ca.
package revocation
