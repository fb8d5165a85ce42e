// Package directory is the fleet as a value: distinguished names, entry identities, and the tree of containers,
// machines and groups as one immutable Snapshot, with the Diff between two of them.
//
// Invariants: a Snapshot is complete or it does not exist (Builder refuses duplicates and orphans and never leaves
// entries out to get along); it never changes once built; a UUID is the identity of an entry and its DN only its
// present name, so that a move or a rename is never a removal and an addition.
//
// The package is pure. Reading a directory belongs to the sources (directory/ldif, directory/ldap), which share the
// mapping from attributes to entries in Schema; deciding whether a Diff may be applied belongs to directory/guard;
// what a container's links mean for a machine belongs to policies/resolve.
package directory
