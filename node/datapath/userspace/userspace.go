// Package userspace is the datapath that encrypts in this process: nftables and policy routing steer what the policy
// wants protected into a TUN device, one locked thread moves it through ESP, both ways.
//
// Its invariant: what the policy wants protected leaves the machine through an SA or not at all. The kernel's tables
// outlive the process and drop what it does not carry; the process looks every packet up again before it lets one go in
// clear. It leaves the semantics to policies/spd, the rules to its package steering, ESP to node/esp and sockets to
// node/transport.
package userspace

import (
	"errors"

	"github.com/bailiwick-net/bailiwick/node/datapath"
)

// New starts the backend in the network namespace of the calling thread: it makes the TUN device, the routing table
// and the marks' policy routing rules, and takes over the nftables table that an earlier process left. It enforces
// nothing new until SetPolicy.
func New(cfg Config) (datapath.Backend, error) {
	if _, err := cfg.withDefaults(); err != nil {
		return nil, err
	}
	return nil, errors.New("userspace datapath is not available in this build")
}
