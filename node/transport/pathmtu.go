package transport

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// withFragments lets IP fragment what send sends on sock, and then sets sock back to what it was. An ESP packet that
// another thread sends at this moment may be fragmented as well, which harms nothing.
func (s *Sockets) withFragments(sock *socket, send func() error) error {
	return s.withDiscovery(sock, unix.IP_PMTUDISC_WANT, send)
}

// withDiscovery has sock do path MTU discovery in another way for what send sends. The ways have the same numbers for IPv4
// and IPv6.
func (s *Sockets) withDiscovery(sock *socket, way int, send func() error) error {
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
	if err := unix.SetsockoptInt(sock.fd, level, option, way); err != nil {
		return fmt.Errorf("set path MTU discovery of a socket to %d: %w", way, err)
	}
	err = send()
	if restore := unix.SetsockoptInt(sock.fd, level, option, before); restore != nil {
		err = errors.Join(err, fmt.Errorf("set path MTU discovery back to %d: %w", before, restore))
	}
	return err
}

// SendWhole sends m, which is one packet, so that nobody cuts it: neither this machine nor, with DF set, a router. What the kernel
// believes of the path does not count, only the interface does: ErrTooBig where the packet is longer.
func (q *Queue) SendWhole(m *Message) error {
	sock := q.find(m)
	if sock == nil {
		return fmt.Errorf("send ESP to %s: %w", m.Remote, ErrNoSocket)
	}
	err := q.sockets.withDiscovery(sock, unix.IP_PMTUDISC_PROBE, func() error { return q.send(sock, m, m.Payload, len(m.Payload)) })
	if err != nil {
		return q.failed(m, err)
	}
	return nil
}
