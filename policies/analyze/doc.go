// Package analyze owns the answers about a fleet's policies that need no packet to be sent: what would happen to a flow
// between two machines and why, which pairs of policies cannot negotiate, and what is wrong or dangerous in a set of
// documents.
//
// Its invariant: it decides nothing by itself. The match of a packet is spd.Set.Lookup, its fate spd.Outbound and
// spd.Inbound, a negotiation spd.Narrow, proposal.ChooseIKE and proposal.ChooseESP: the functions that the datapath and
// the IKE engine use. Every answer has a code for programs and a sentence for people. It leaves the choice of a policy
// for a machine to policies/resolve, and finding addresses, names and secrets to its callers.
package analyze
