// Package ldap reads a directory over LDAP (RFC 4511) and polls it for changes.
//
// Invariants: a snapshot is one that the server really had, read to the end, or there is none: a limit, a referral, a
// lost connection or a tree that changed while its pages were fetched is an error or another attempt, never a shorter
// tree. The server's certificate is always verified, nothing is read over an unprotected network, and no password
// leaves the machine in clear.
//
// What attributes mean is directory.Schema's business; whether a change may be applied is directory/guard's. Protocols
// that send changes (RFC 4533, DirSync) fit the same directory.Source and are not here.
package ldap
