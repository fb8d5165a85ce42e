// Package secrets keeps the fleet's preshared keys: it seals them for the store, opens them for the nodes that may have
// them, and ends the old value of a changed one in time.
//
// Invariants: a value is in the store only under AES-256-GCM, bound to its name, kind and place; the key that seals is
// in a file beside the CA, itself sealed under what unlocks the CA, and never in the store; what cannot be opened is an
// error with its reason and never an empty value; no value is printed or told to an administrator.
//
// It leaves to others who may have which value (controller/distribute, from the bundle of each machine), who may change
// them (controller/admin), and what a key is as text (policies/preshared).
package secrets
