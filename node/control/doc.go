// Package control is the node's side of the conversation with the controller: joining, renewing, and the session that
// brings policy and takes reports.
//
// Its invariant: the controller is believed only by a certificate that the fleet's trust bundle (or, while joining, the
// pin in the token) vouches for, and nothing is acted on here: messages become values for node/agent. Losing the
// controller changes nothing but that values stop coming. It leaves keys to node/identity and policy to node/agent.
package control
