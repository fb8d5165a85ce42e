package transport

import (
	"errors"
	"net/netip"
	"time"
)

// Errors.
var (
	ErrClosed     = errors.New("sockets are closed")
	ErrWouldBlock = errors.New("nothing to receive now")
	ErrTooBig     = errors.New("packet is longer than the path MTU")
	ErrDropped    = errors.New("socket buffer is full, packet dropped")
)

// Sockets holds all of them.
type Sockets struct{}

// Listen opens the sockets.
func Listen(cfg Config) (*Sockets, error) { return nil, ErrClosed }

// Close ends every ReadIKE with ErrClosed and closes the sockets. Packet threads must have stopped.
func (s *Sockets) Close() error { return nil }

// ReadIKE waits for the next IKE message, without marker. local.Port tells the port it came to.
func (s *Sockets) ReadIKE(buf []byte) (n int, local, remote netip.AddrPort, err error) {
	return 0, local, remote, ErrClosed
}

// WriteIKE sends one IKE message from local, with the non-ESP marker when local.Port is NATPort.
func (s *Sockets) WriteIKE(local, remote netip.AddrPort, b []byte) error { return ErrClosed }

// WriteKeepalive sends a NAT keepalive (RFC 3948 4).
func (s *Sockets) WriteKeepalive(local, remote netip.AddrPort) error { return ErrClosed }

// PathMTU asks the kernel for the MTU of the path.
func (s *Sockets) PathMTU(local, remote netip.Addr) (int, error) { return 0, ErrClosed }

// Queue returns the sockets of packet thread i.
func (s *Sockets) Queue(i int) *Queue { return nil }

// Stats counts.
type Stats struct {
	IKEDropped, Keepalives, Short, SendDropped, TooBig uint64
}

// Stats returns the counters; anyone may call it.
func (s *Sockets) Stats() Stats { return Stats{} }

// Queue is what one packet thread reads and writes.
type Queue struct{}

// FDs returns the descriptors to poll for input.
func (q *Queue) FDs() []int { return nil }

// Batch holds the buffers of ReceiveESP. One goroutine owns it.
type Batch struct{ Datagrams []Datagram }

// NewBatch returns room for n datagrams of 64 KiB for each socket call.
func NewBatch(n int) *Batch { return &Batch{} }

// ReceiveESP fills b without blocking; ErrWouldBlock when there is nothing. The datagrams are valid until the next call.
func (q *Queue) ReceiveESP(b *Batch) error { return ErrClosed }

// Next returns the bounds of the next ESP packet in d.Buffer. IKE messages on the way go to ReadIKE, keepalives vanish.
// Open a packet before the call of Next that follows or keep its bounds: both are allowed.
func (d *Datagram) Next() (start, end int, ok bool) { return 0, 0, false }

// SendESP sends m: ErrTooBig when a packet exceeds the path MTU, ErrDropped when the socket is full.
func (q *Queue) SendESP(m *Message) error { return ErrClosed }

// Poller waits for input on several descriptors, for the one locked thread that runs the packet path.
type Poller struct{}

// NewPoller returns a Poller over fds.
func NewPoller(fds ...int) (*Poller, error) { return nil, ErrClosed }

// Wait blocks until a descriptor is ready, Wake was called, or timeout passed (negative: never).
func (p *Poller) Wait(timeout time.Duration) error { return ErrClosed }

// Ready reports whether descriptor i of NewPoller was ready in the last Wait.
func (p *Poller) Ready(i int) bool { return false }

// Wake ends the current or the next Wait; anyone may call it.
func (p *Poller) Wake() {}

// Close frees the Poller.
func (p *Poller) Close() error { return nil }
