// Package tuntest is a TUN queue without a kernel device: what it owns is a pair of connected sockets that carry
// virtio-net headers and packets just as /dev/net/tun does, for tests of the packet path.
//
// Its invariant: one write is one read at the other end, in order, none lost. It leaves offload semantics to the test.
package tuntest

import (
	"errors"

	"github.com/bailiwick-net/bailiwick/node/tun"
)

// Peer is the kernel's end of a fake queue.
type Peer struct{}

// New returns a queue and its other end.
func New(offloads tun.Offload) (*tun.Queue, *Peer, error) { return nil, nil, errors.ErrUnsupported }

// Inject makes the queue read pkt with header h.
func (p *Peer) Inject(h tun.Header, pkt []byte) error { return errors.ErrUnsupported }

// Written waits for the next packet written to the queue.
func (p *Peer) Written() (tun.Header, []byte, error) { return tun.Header{}, nil, errors.ErrUnsupported }

// Close closes both ends.
func (p *Peer) Close() error { return nil }
