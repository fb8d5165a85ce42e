// Package contentsync is the consumer's side of the LDAP Content Synchronization Operation (RFC 4533) as a state machine:
// what is known of a directory, and what each message of the server makes of it.
//
// Invariants: a refresh becomes content as a whole or not at all, with the cookie that belongs to it; a message that the
// stage does not allow, or that says something about entries which cannot be so, is an error that calls for everything to
// be read anew, never a guess; an entry whose container is renamed is renamed with it, although no message says so.
//
// Connections, time, and the decision whether content may be believed are package ldap's.
package contentsync
