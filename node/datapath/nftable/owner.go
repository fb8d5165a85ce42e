package nftable

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// NewOwner opens a socket for Open, in the network namespace of the calling thread. Tables belong to the socket and not to
// a process: whoever holds it open, a process that does nothing else say, keeps other programs from them when the process
// that made them is dead.
func NewOwner() (*os.File, error) {
	s, err := openNetfilter()
	if err != nil {
		return nil, fmt.Errorf("open the netlink socket that nftables tables belong to: %w", err)
	}
	return os.NewFile(uintptr(s.fd), "nftables"), nil
}

// CheckOwner refuses a file that is no socket of NewOwner, or one of another network namespace than the calling thread's.
func CheckOwner(file *os.File) error {
	domain, err := unix.GetsockoptInt(int(file.Fd()), unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("use %s for nftables: %w", file.Name(), os.NewSyscallError("getsockopt", err))
	}
	protocol, err := unix.GetsockoptInt(int(file.Fd()), unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return fmt.Errorf("use %s for nftables: %w", file.Name(), os.NewSyscallError("getsockopt", err))
	}
	if domain != unix.AF_NETLINK || protocol != unix.NETLINK_NETFILTER {
		return fmt.Errorf("use %s for nftables: it is a socket of domain %d and protocol %d, want netlink's (%d) for netfilter (%d)",
			file.Name(), domain, protocol, unix.AF_NETLINK, unix.NETLINK_NETFILTER)
	}
	fd, err := unix.IoctlRetInt(int(file.Fd()), unix.SIOCGSKNS)
	if err != nil {
		return fmt.Errorf("ask for the network namespace of %s: %w", file.Name(), os.NewSyscallError("ioctl", err))
	}
	namespace := os.NewFile(uintptr(fd), "network namespace")
	defer namespace.Close()
	theirs, err := namespace.Stat()
	if err != nil {
		return fmt.Errorf("look at the network namespace of %s: %w", file.Name(), err)
	}
	ours, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("look at the network namespace of this process: %w", err)
	}
	if !os.SameFile(ours, theirs) {
		return fmt.Errorf("use %s for nftables: it is of another network namespace", file.Name())
	}
	return nil
}

// adoptNetfilter goes on with a socket of NewOwner, which stays open when this one is closed. A process that died may have
// left answers in it.
func adoptNetfilter(owner *os.File) (*netfilterSocket, error) {
	if err := CheckOwner(owner); err != nil {
		return nil, err
	}
	fd, err := unix.FcntlInt(owner.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	s := &netfilterSocket{fd: fd, buffer: make([]byte, 1<<17)}
	err = unix.SetNonblock(fd, false)
	if err == nil {
		err = s.drain()
	}
	if err == nil {
		err = s.learnPort()
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// drain reads what nobody waits for any more. A list that was asked for is not over before it is read to its end.
func (s *netfilterSocket) drain() error {
	for {
		switch _, _, err := unix.Recvfrom(s.fd, s.buffer, unix.MSG_DONTWAIT); {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOBUFS):
			return os.NewSyscallError("recvfrom", err)
		}
	}
}

// learnPort learns the port of the socket.
func (s *netfilterSocket) learnPort() error {
	own, err := unix.Getsockname(s.fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	address, ok := own.(*unix.SockaddrNetlink)
	if !ok {
		return fmt.Errorf("the address of a netlink socket is a %T", own)
	}
	s.port = address.Pid
	return nil
}
