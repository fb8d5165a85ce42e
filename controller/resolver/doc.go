// Package resolver is the loop that gives every machine its assignment: a pure function of the directory in force and
// the policy documents, evaluated again when either changes, with the changes of a moment taken together.
//
// Invariants: a Table belongs to one state of the directory and one revision of the documents, and is published whole;
// a machine whose policy cannot be worked out keeps the assignment before, it never gets none because of an error; the
// revision of a machine's assignment grows with every change of it, over restarts too; only machines with a change are
// announced.
//
// It leaves the evaluation to policies/resolve and policies/compile, the directory to the mirror, and telling the nodes
// to distribute.
package resolver
