// Package tuntest is a TUN queue without a kernel device: what it owns is a pair of connected sockets that carry
// virtio-net headers and packets just as /dev/net/tun does, for tests of the packet path.
//
// Its invariant: one write is one read at the other end, in order, none lost. It leaves offload semantics to the test.
package tuntest

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/node/tun"
)

// bufferSize lets some super-packets wait in either direction.
const bufferSize = 1 << 20

// Peer is the kernel's end of a fake queue.
type Peer struct {
	file  *os.File
	queue *tun.Queue
	// Timeout bounds Written; New sets 5 s.
	Timeout time.Duration
}

// New returns a queue and its other end.
func New(offloads tun.Offload) (*tun.Queue, *Peer, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	for _, fd := range pair {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, bufferSize))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("set socket buffer: %w", err)
	}
	q, err := tun.NewQueue(pair[0], offloads)
	if err != nil {
		return nil, nil, err
	}
	return q, &Peer{file: os.NewFile(uintptr(pair[1]), "tuntest"), queue: q, Timeout: 5 * time.Second}, nil
}

// Inject makes the queue read pkt with header h.
func (p *Peer) Inject(h tun.Header, pkt []byte) error {
	if _, err := p.file.Write(append(h.Append(nil), pkt...)); err != nil {
		return fmt.Errorf("inject packet of %d octets: %w", len(pkt), err)
	}
	return nil
}

// Written waits for the next packet written to the queue.
func (p *Peer) Written() (tun.Header, []byte, error) {
	if err := p.file.SetReadDeadline(time.Now().Add(p.Timeout)); err != nil {
		return tun.Header{}, nil, fmt.Errorf("set deadline: %w", err)
	}
	buf := make([]byte, tun.BufferSize)
	n, err := p.file.Read(buf)
	if err != nil {
		return tun.Header{}, nil, fmt.Errorf("read what was written to the queue: %w", err)
	}
	h, err := tun.ParseHeader(buf[:n])
	return h, buf[tun.HeaderLen:max(n, tun.HeaderLen)], err
}

// Discard takes the next packet written to the queue into buf and forgets it, without allocating.
func (p *Peer) Discard(buf []byte) error {
	if _, err := p.file.Read(buf); err != nil {
		return fmt.Errorf("read what was written to the queue: %w", err)
	}
	return nil
}

// Close closes both ends.
func (p *Peer) Close() error { return errors.Join(p.queue.Close(), p.file.Close()) }
