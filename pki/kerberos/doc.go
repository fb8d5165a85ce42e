// Package kerberos owns the proof by which a machine shows the controller its Kerberos account: an AP-REQ (RFC 4120
// 5.5.1) whose authenticator carries a keyed checksum over the certificate request and the TLS connection.
//
// Invariants: a [Principal] that [Acceptor.Verify] returns holds the session key of a ticket that a key distribution
// centre made for this service, it made the proof within the clock skew, and it made it for this very request on this very
// connection. A captured proof is therefore worth nothing with another key, on another connection or at another controller,
// and needs no replay cache, which the controllers of a cluster would have to share. Nothing but AES is spoken: tickets,
// authenticators and session keys of DES, triple DES or RC4 are refused. Keys and tickets do not print.
//
// It leaves to others: getting tickets from a key distribution centre (node/kerberos), reading files, and which machine of
// the directory a principal is (controller/enrollment). Time is an argument; random numbers are drawn by [Prove] alone.
package kerberos
