package enrollment

import "github.com/bailiwick-net/bailiwick/pki/ca"

// profile is that of the certificates that a claim leads to: what an administrator passes on is for a peer that does not
// renew by itself.
func (d *Desk) profile(c claim) ca.Profile {
	if _, ok := c.(administratorClaim); ok && d.config.Peer.Kind() == ca.Peer {
		return d.config.Peer
	}
	return d.config.Machine
}
