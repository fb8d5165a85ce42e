// Package driver runs the IKE engine: the one goroutine that feeds it datagrams, timeouts, datapath events, job results
// and commands, and that executes its actions in order.
//
// Its invariant: the engine is touched by that goroutine only; an InstallIn has completed before a later Send; job
// results and datapath events are never dropped, datagrams are dropped first. It decides nothing: that is left to
// node/ike/engine. Sockets belong to node/transport, packets to node/datapath, trust to pki.
package driver
