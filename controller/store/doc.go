// Package store owns everything that the controller remembers: policy documents, join tokens, the journal of issued
// certificates, what each node last acknowledged, and the directory as it was last accepted. It is a typed view of
// etcd, embedded or external.
//
// Invariants: a change of several documents is one transaction against the revision that it was computed from, so that
// nothing is half applied and no concurrent change is lost; a join token is redeemed by at most one caller, in the
// same transaction that records what it is redeemed for; a value that cannot be read is an error, never an absence.
// A watch is only a hint: whoever is woken by one reads the whole again.
//
// One controller writes below a prefix at a time. It holds much of the state in memory (sessions, revisions of
// assignments, held changes of the directory) and a CA on its own disk, so two would contradict each other even though
// each transaction is sound: on an external etcd the controller holds a Claim, a second one is refused with ErrHeld, and
// a writer that was replaced while it slept gets ErrNotWriter at its next write. The embedded etcd is locked with its
// directory. After a crash the next controller waits for the lease of the dead one, ten seconds at most.
//
// It leaves the meaning of the documents to policies, what a token allows to controller/enrollment, and running etcd
// to store/embedded.
package store
