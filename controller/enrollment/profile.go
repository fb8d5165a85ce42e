package enrollment

import (
	"slices"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/pki/ca"
)

// profile is that of the certificates that a claim leads to: what an administrator passes on is for a peer that does not
// renew by itself, and a machine that others reach networks through has that in its certificate.
func (d *Desk) profile(c claim) ca.Profile {
	if _, ok := c.(administratorClaim); ok && d.config.Peer.Kind() == ca.Peer {
		return d.config.Peer
	}
	if snapshot := d.config.Snapshot(); snapshot != nil {
		m, ok := snapshot.Machine(directory.UUID(c.machine()))
		if ok && slices.ContainsFunc(d.config.Gateways, func(r Rule) bool { return r.matches(snapshot, m) }) {
			return d.config.Gateway
		}
	}
	return d.config.Machine
}
