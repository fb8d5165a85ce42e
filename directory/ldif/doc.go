// Package ldif reads a directory from an LDIF file (RFC 2849, content records) and watches the file.
//
// Invariant: a file that cannot be read, parsed and built as a whole yields an error and no entries. Replace the file by
// renaming a new one over it: a file that is written in place may be seen half-written when its writer pauses, and a
// prefix that ends between two records is a valid file; such a read is only stopped by the mass-change guard.
//
// Entries need no entryUUID here. Without one a machine's identity is derived from its domain and name, so that it
// survives a move within the file; a machine renamed in the file is then a new machine. A file that carries entryUUID
// (slapcat writes it) is taken at its word.
//
// What entries mean is directory.Schema's business; whether a change may be applied is directory/guard's.
package ldif
