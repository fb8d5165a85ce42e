// Package enroll owns what a machine hands in to get a certificate: the certificate request and the join token, their
// encodings and their checks.
//
// Invariants: a [Request] that exists was signed by the key in it, with a key and an algorithm that the fleet accepts,
// and states the names of one subject, or the DNS name of a machine that does not know its UUID yet, and nothing
// else: no extension, no attribute of the subject is taken from the requester. A [Token] never prints its secret
// except through Text; the controller keeps only a [Stored] form, from which the secret cannot be found, and compares
// in constant time.
//
// It leaves to others: consuming a token exactly once (a transaction of the controller's store), deciding which
// directory object a token is for, making keys, and issuing (pki/ca). It is pure: time and entropy are arguments, and
// requests are signed deterministically where the key allows it.
package enroll
