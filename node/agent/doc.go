// Package agent reconciles what the controller wants with what the node enforces: it turns a bundle and the facts of the
// machine into a policy set and an IKE configuration, puts both into force, keeps the last good one on disk, and reports.
//
// Its invariant: the policy in force is always one that was opened whole and whose digest was checked; a new one is
// committed only after the controller was heard under it, else the previous one returns. Losing the controller changes
// nothing. One goroutine, Run's, owns all of it. It leaves the conversation to node/control, keys to node/identity,
// negotiation to node/ike and packets to node/datapath.
package agent
