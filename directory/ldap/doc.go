// Package ldap reads a directory over LDAP (RFC 4511), and again when it changes: told by content synchronization (RFC
// 4533) where the server offers that, by DirSync or queries by uSNChanged where it is Active Directory (MS-ADTS) and our
// rights allow it, else by polling.
//
// Invariants: a snapshot is one that the server really had, read to the end, or there is none: a limit, a referral, a
// lost connection or a tree that changed while its pages were fetched is an error or another attempt, never a shorter
// tree. What a server says of changes is believed when nothing is missing of it, held against reads of the whole tree
// again and again, and dropped for such a read in any doubt. Content that is older than before, emptied, or another
// directory's is held back with an error. The server's certificate is always verified, nothing is read over an
// unprotected network, and no password leaves the machine in clear.
//
// What attributes mean is directory.Schema's business; whether a change may be applied is directory/guard's, what a
// message of RFC 4533 means is contentsync's, and what a domain controller's changes mean replication's.
package ldap
