// Package admin is the admin API: what an administrator may ask of the controller and change in it, and who that is.
//
// Invariants: every call is of somebody: root or the controller's own user over the unix socket, or the administrator
// of a verified certificate; a change of documents is applied whole or not at all, after all documents together were
// validated; what refuses says where it is wrong and what to do.
//
// It decides nothing itself about policy, directory or certificates; it asks the parts of the controller that do.
package admin
