//go:build ikebug

package ikesim

import "github.com/bailiwick-net/bailiwick/node/ike/impair"

// arm switches the faults of a node on while it works.
func (n *Node) arm() {
	if len(n.Wrong) > 0 {
		impair.Set(n.Wrong...)
	}
}

// disarm switches them off.
func (n *Node) disarm() {
	if len(n.Wrong) > 0 {
		impair.Set()
	}
}
