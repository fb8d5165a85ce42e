// Package authority keeps the CAs of the fleet: it owns their state in the store, opens their keys, issues with the one
// that is active, takes the steps of a rotation, and audits the journal.
//
// The state is one value in the store, which all controllers of a cluster share; keys are in it sealed under what unlocks
// the CA, or are only named and stay in a token. A step of a rotation is one transaction: the new state, and its record in
// the journal. What is in memory follows the store and never goes before it, so a controller that dies between two steps
// finds on its next start what was decided.
//
// Invariants: nothing is signed that is not in the journal before; no CA issues that a connected node does not trust yet,
// unless an administrator insists; no CA is retired while a certificate of it counts, unless an administrator insists; a
// key that cannot be opened stops the start, and the error says which and what is missing.
//
// It leaves to others: which steps there are (pki/slots), certificates and their rules (pki/ca), who may have one
// (controller/enrollment), and telling nodes (controller/distribute).
package authority
