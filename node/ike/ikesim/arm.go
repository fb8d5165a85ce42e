//go:build !ikebug

package ikesim

// arm switches the faults of a node on while it works: there are none in this build.
func (n *Node) arm() {}

// disarm switches them off.
func (n *Node) disarm() {}
