package transport

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Source tells from which own address the kernel sends to remote: it asks the routing table, with the mark of these
// sockets, and sends nothing.
func (s *Sockets) Source(remote netip.Addr) (netip.Addr, error) {
	family := unix.AF_INET
	if remote.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the own address towards %s: %w", remote, err)
	}
	defer unix.Close(fd)
	if s.cfg.Mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(s.cfg.Mark)); err != nil {
			return netip.Addr{}, fmt.Errorf("find the own address towards %s: set the mark: %w", remote, err)
		}
	}
	// Connecting a datagram socket only looks up the route.
	if err := unix.Connect(fd, sockaddr(netip.AddrPortFrom(remote, DefaultIKEPort))); err != nil {
		return netip.Addr{}, fmt.Errorf("find the own address towards %s: %w", remote, err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the own address towards %s: %w", remote, err)
	}
	switch n := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(n.Addr), nil
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(n.Addr), nil
	}
	return netip.Addr{}, fmt.Errorf("find the own address towards %s: the socket has a name of another family", remote)
}
