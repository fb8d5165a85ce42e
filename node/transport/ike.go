package transport

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// writeWait bounds the wait of a sender for room in the socket, in milliseconds.
const writeWait = 10

var (
	nonESPMarker = [4]byte{}     // RFC 3948 2.2, RFC 7296 2.23
	keepalive    = [1]byte{0xff} // RFC 3948 2.3
)

// message is one IKE message, without marker.
type message struct {
	octets        []byte
	local, remote netip.AddrPort
}

// ReadIKE waits for the next IKE message and copies it to buf, without marker. local.Port tells the port it came to, by
// which the peer may have been told to move (RFC 7296 2.23). ErrClosed after Close; ErrTooShort where buf could not hold
// the message, which is lost. Any other error means that a socket is no longer read.
func (s *Sockets) ReadIKE(buf []byte) (n int, local, remote netip.AddrPort, err error) {
	select {
	case m := <-s.ready:
		if len(m.octets) > len(buf) {
			return 0, m.local, m.remote, fmt.Errorf("IKE message of %d octets from %s: %w", len(m.octets), m.remote, ErrTooShort)
		}
		return copy(buf, m.octets), m.local, m.remote, nil
	case err = <-s.broken:
		return 0, local, remote, err
	case <-s.done:
		return 0, local, remote, ErrClosed
	}
}

// deliver hands an IKE message to ReadIKE, or drops it: a flood of them must not hold up the packet thread.
func (s *Sockets) deliver(octets []byte, local, remote netip.AddrPort) {
	if len(s.ready) == cap(s.ready) {
		s.ikeDropped.Add(1)
		return
	}
	select {
	case s.ready <- message{octets: append([]byte(nil), octets...), local: local, remote: remote}:
	default:
		s.ikeDropped.Add(1)
	}
}

// readIKEPort moves what comes to the IKE port to ReadIKE until Close.
func (s *Sockets) readIKEPort(sock *socket, p *Poller) {
	b := NewBatch(8)
	q := &Queue{sockets: s}
	q.add(sock)
	for s.awaitInput(p) {
		if err := q.ReceiveESP(b); err != nil {
			continue
		}
		for i := range b.Datagrams {
			d := &b.Datagrams[i]
			s.deliver(d.Buffer[d.start:d.end], d.Local, d.Remote)
		}
	}
}

// drain reads q for IKE messages until Close; ESP has no reader and is dropped.
func (s *Sockets) drain(q *Queue, p *Poller) {
	b := NewBatch(8)
	for s.awaitInput(p) {
		if err := q.ReceiveESP(b); err != nil {
			continue
		}
		for i := range b.Datagrams {
			for ok := true; ok; {
				_, _, ok = b.Datagrams[i].Next()
			}
		}
	}
}

// awaitInput waits for input; false after Close, and after an error, which ReadIKE then returns.
func (s *Sockets) awaitInput(p *Poller) bool {
	if err := p.Wait(-1); err != nil {
		s.broken <- fmt.Errorf("wait for IKE messages: %w", err)
		return false
	}
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

// WriteIKE sends one IKE message from local, with the non-ESP marker when local.Port is Config.NATPort. The zero Addr in
// local lets the kernel choose the address. A message longer than the path MTU is fragmented by IP.
func (s *Sockets) WriteIKE(local, remote netip.AddrPort, b []byte) error {
	sock := s.find(local.Port(), remote.Addr().Is4())
	if sock == nil {
		return fmt.Errorf("send IKE message from %s to %s: %w", local, remote, ErrNoSocket)
	}
	parts := [][]byte{b}
	if local.Port() == s.cfg.NATPort {
		parts = [][]byte{nonESPMarker[:], b}
	}
	err := sock.write(local.Addr(), remote, parts)
	if errors.Is(err, unix.EMSGSIZE) && local.Port() == s.cfg.NATPort {
		err = s.withFragments(sock, func() error { return sock.write(local.Addr(), remote, parts) })
	}
	if err != nil {
		return fmt.Errorf("send IKE message of %d octets from %s to %s: %w", len(b), local, remote, err)
	}
	return nil
}

// withFragments lets IP fragment what send sends on sock, and then sets sock back to what it was. An ESP packet that
// another thread sends at this moment may be fragmented as well, which harms nothing.
func (s *Sockets) withFragments(sock *socket, send func() error) error {
	s.mtuMode.Lock()
	defer s.mtuMode.Unlock()
	level, option := unix.SOL_IP, unix.IP_MTU_DISCOVER
	if sock.v6 {
		level, option = unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER
	}
	before, err := unix.GetsockoptInt(sock.fd, level, option)
	if err != nil {
		return fmt.Errorf("read the path MTU discovery of a socket: %w", err)
	}
	if err := unix.SetsockoptInt(sock.fd, level, option, unix.IP_PMTUDISC_WANT); err != nil {
		return fmt.Errorf("let IP fragment: %w", err)
	}
	err = send()
	if restore := unix.SetsockoptInt(sock.fd, level, option, before); restore != nil {
		err = errors.Join(err, fmt.Errorf("set path MTU discovery back to %d: %w", before, restore))
	}
	return err
}

// WriteKeepalive sends a NAT keepalive (RFC 3948 4) from local, whose port is Config.NATPort.
func (s *Sockets) WriteKeepalive(local, remote netip.AddrPort) error {
	sock := s.find(local.Port(), remote.Addr().Is4())
	if sock == nil || local.Port() != s.cfg.NATPort {
		return fmt.Errorf("send NAT keepalive from %s to %s: %w", local, remote, ErrNoSocket)
	}
	if err := sock.write(local.Addr(), remote, [][]byte{keepalive[:]}); err != nil {
		return fmt.Errorf("send NAT keepalive from %s to %s: %w", local, remote, err)
	}
	return nil
}

// find returns the UDP socket of a port and family.
func (s *Sockets) find(port uint16, v4 bool) *socket {
	candidates := s.ike
	if port == s.cfg.NATPort {
		candidates = s.queues[0].all
	}
	for _, sock := range candidates {
		if !sock.raw && sock.port == port && sock.v6 != v4 {
			return sock
		}
	}
	return nil
}

// write sends one datagram made of parts.
func (k *socket) write(local netip.Addr, remote netip.AddrPort, parts [][]byte) error {
	var control controlBuffer
	for tried := false; ; tried = true {
		_, err := unix.SendmsgBuffers(k.fd, parts, control.build(k.v6, local, 0, 0), sockaddr(remote), 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if !errors.Is(err, unix.EAGAIN) {
			return err
		}
		if tried {
			return ErrDropped
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(k.fd), Events: unix.POLLOUT}}, writeWait) // the next try tells
	}
}
