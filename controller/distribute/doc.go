// Package distribute holds the sessions of the nodes: it gives each node the assignment of its own machine, and bundles
// on demand, and takes acknowledgements and reports.
//
// Invariants: whose session it is comes from the verified client certificate and from nothing that the node says; a
// node gets the bundle of its own assignment and no other; a machine has at most one session, the newest; a machine
// that is disabled in the directory has none. A session costs two goroutines and no timer; nothing is polled, and the
// bytes of a bundle are shared by all sessions.
//
// It leaves what the assignments are to the resolver, and certificates to enrollment and the TLS configuration.
package distribute
