package transport

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"unsafe"

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
	for {
		if m, ok := s.ikeQueue.take(); ok {
			if len(m.octets) > len(buf) {
				return 0, m.local, m.remote, fmt.Errorf("IKE message of %d octets from %s: %w", len(m.octets), m.remote, ErrTooShort)
			}
			return copy(buf, m.octets), m.local, m.remote, nil
		}
		select {
		case <-s.ikeQueue.ready:
		case err := <-s.broken:
			return 0, local, remote, err
		case <-s.done:
			return 0, local, remote, ErrClosed
		}
	}
}

// Arrivals has a value when NextIKE may have a message. One reader drains the queue after each.
func (s *Sockets) Arrivals() <-chan struct{} { return s.ikeQueue.ready }

// NextIKE returns the next IKE message as ReadIKE does, but does not wait. The octets belong to the caller.
func (s *Sockets) NextIKE() (octets []byte, local, remote netip.AddrPort, ok bool) {
	m, ok := s.ikeQueue.take()
	return m.octets, m.local, m.remote, ok
}

// Ended waits until messages stop coming, and tells why as ReadIKE does, or until stop, which is no error.
func (s *Sockets) Ended(stop <-chan struct{}) error {
	select {
	case <-stop:
		return nil
	case err := <-s.broken:
		return err
	case <-s.done:
		return ErrClosed
	}
}

// deliver hands an IKE message on, answers it, or drops it: a flood of them must not hold up the packet thread.
func (s *Sockets) deliver(octets []byte, local, remote netip.AddrPort) {
	lane := LaneThird
	if screen := s.screen.Load(); screen != nil {
		var room [screenRoom]byte
		var answer []byte
		if lane, answer = (*screen)(local, remote, octets, room[:0]); len(answer) > 0 {
			// Who did not get it asks again.
			_ = s.WriteIKE(local, remote, answer)
		}
	}
	if lane < lanes && !s.ikeQueue.put(lane, octets, local, remote) {
		s.ikeDropped.Add(1)
	}
}

// screenRoom is what a Screen can answer without allocating, in octets.
const screenRoom = 128

// readIKEPort moves what comes to the IKE port to ReadIKE until Close.
func (s *Sockets) readIKEPort(sock *socket) {
	q := &Queue{sockets: s}
	q.add(sock)
	s.pump(sock, q, func(d *Datagram) { s.deliver(d.Buffer[d.start:d.end], d.Local, d.Remote) })
}

// drain reads sock for IKE messages until Close; ESP has no reader and is dropped.
func (s *Sockets) drain(sock *socket) {
	q := &Queue{sockets: s}
	q.add(sock)
	s.pump(sock, q, func(d *Datagram) {
		for ok := true; ok; {
			_, _, ok = d.Next()
		}
	})
}

// batchIKE is how many datagrams one call reads.
const batchIKE = 32

// pump reads sock until Close. It waits by Go's network poller: these messages are read by goroutines, and no thread has
// to wake another for them.
func (s *Sockets) pump(sock *socket, q *Queue, take func(*Datagram)) {
	b := NewBatch(batchIKE)
	raw, err := sock.file.SyscallConn()
	for err == nil {
		var received error
		err = raw.Read(func(uintptr) bool {
			received = q.ReceiveESP(b)
			return !errors.Is(received, ErrWouldBlock)
		})
		if err != nil || received != nil {
			continue
		}
		for i := range b.Datagrams {
			take(&b.Datagrams[i])
		}
	}
	select {
	case <-s.done:
	default:
		s.broken <- fmt.Errorf("wait for IKE messages: %w", err)
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

// write sends one datagram made of parts, at most two. The call does not block, so it goes to the kernel without telling
// the Go scheduler.
func (k *socket) write(local netip.Addr, remote netip.AddrPort, parts [][]byte) error {
	var call struct {
		control controlBuffer
		name    unix.RawSockaddrInet6
		vectors [2]unix.Iovec
		header  unix.Msghdr
	}
	h := &call.header
	h.Name = (*byte)(unsafe.Pointer(&call.name))
	h.Namelen = k.address(&call.name, remote)
	for i, part := range parts {
		if len(part) > 0 {
			call.vectors[i].Base = &part[0]
			call.vectors[i].SetLen(len(part))
		}
	}
	h.Iov = &call.vectors[0]
	h.SetIovlen(len(parts))
	if control := call.control.build(k.v6, local, 0, 0, 0); len(control) > 0 {
		h.Control = &control[0]
		h.SetControllen(len(control))
	}
	for tried := false; ; tried = true {
		_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(k.fd), uintptr(unsafe.Pointer(h)), unix.MSG_DONTWAIT)
		runtime.KeepAlive(parts)
		switch {
		case errno == 0:
			return nil
		case errno == unix.EINTR:
			continue
		case errno != unix.EAGAIN:
			return errno
		case tried:
			return ErrDropped
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(k.fd), Events: unix.POLLOUT}}, writeWait) // the next try tells
	}
}

// address writes a socket address of the family of the socket, and returns its length.
func (k *socket) address(name *unix.RawSockaddrInet6, to netip.AddrPort) uint32 {
	if k.v6 {
		*name = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: networkOrder(to.Port()), Addr: to.Addr().As16()}
		return unix.SizeofSockaddrInet6
	}
	*(*unix.RawSockaddrInet4)(unsafe.Pointer(name)) = unix.RawSockaddrInet4{
		Family: unix.AF_INET, Port: networkOrder(to.Port()), Addr: to.Addr().As4(),
	}
	return unix.SizeofSockaddrInet4
}
