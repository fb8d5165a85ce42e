package nftable

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// netfilterSocket is a netlink socket of one caller at a time.
type netfilterSocket struct {
	fd     int
	port   uint32
	serial uint32
	buffer []byte
}

func openNetfilter() (*netfilterSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &netfilterSocket{fd: fd, buffer: make([]byte, 1<<17)}
	err = errors.Join(
		setBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF),
		setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
	)
	if err == nil {
		err = s.learnPort()
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return s, nil
}

func (s *netfilterSocket) close() error { return unix.Close(s.fd) }

// commit has the kernel carry a transaction out. The kernel answers before it returns from sendto: for the last message,
// which asks for it, and for each that it refuses.
func (s *netfilterSocket) commit(x *transaction) error {
	if x.err != nil || x.last == 0 {
		return x.err
	}
	s.serial++
	flags := binary.NativeEndian.Uint16(x.b[x.last+6:])
	binary.NativeEndian.PutUint16(x.b[x.last+6:], flags|unix.NLM_F_ACK)
	x.b = batchEdge(x.b, unix.NFNL_MSG_BATCH_END)
	for at := 0; at < len(x.b); at += int(binary.NativeEndian.Uint32(x.b[at:])) {
		binary.NativeEndian.PutUint32(x.b[at+8:], s.serial)
	}
	if err := s.send(x.b); err != nil {
		return fmt.Errorf("send %d octets: %w", len(x.b), err)
	}
	var refused error
	done := false
	for {
		n, _, err := unix.Recvfrom(s.fd, s.buffer, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN) && (done || refused != nil):
			return refused
		case errors.Is(err, unix.EAGAIN):
			return errors.New("the kernel did not answer")
		case err != nil:
			return os.NewSyscallError("recvfrom", err)
		}
		for m := range messages(s.buffer[:n]) {
			if m.kind != unix.NLMSG_ERROR || m.serial != s.serial || len(m.data) < 4 {
				continue
			}
			if code := int32(binary.NativeEndian.Uint32(m.data)); code == 0 {
				done = true
			} else if refused == nil {
				refused = fmt.Errorf("message of type %#x: %w", refusedType(m.data), unix.Errno(-code))
			}
		}
	}
}

// refusedType returns the type of the message that an error is about (struct nlmsgerr).
func refusedType(data []byte) uint16 {
	if len(data) < 10 {
		return 0
	}
	return binary.NativeEndian.Uint16(data[8:])
}

func (s *netfilterSocket) send(b []byte) error {
	for {
		err := unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("sendto", err)
		}
	}
}

// netlinkMessage is one that was received; data is behind its header.
type netlinkMessage struct {
	kind   uint16
	serial uint32
	data   []byte
}

func messages(b []byte) func(func(netlinkMessage) bool) {
	return func(yield func(netlinkMessage) bool) {
		for len(b) >= 16 {
			n := int(binary.NativeEndian.Uint32(b))
			if n < 16 || n > len(b) {
				return
			}
			if !yield(netlinkMessage{binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:]), b[16:n]}) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}

// dump asks for a list and calls f with the attributes of each entry.
func (s *netfilterSocket) dump(kind uint16, fill func(*transaction), f func(attributes []byte)) error {
	s.serial++
	x := &transaction{}
	x.begin(kind, unix.NLM_F_DUMP)
	fill(x)
	x.end()
	binary.NativeEndian.PutUint32(x.b[8:], s.serial)
	if err := s.send(x.b); err != nil {
		return err
	}
	for {
		n, _, err := unix.Recvfrom(s.fd, s.buffer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		for m := range messages(s.buffer[:n]) {
			switch {
			case m.serial != s.serial:
			case m.kind == unix.NLMSG_DONE:
				return nil
			case m.kind == unix.NLMSG_ERROR:
				if len(m.data) >= 4 {
					if code := int32(binary.NativeEndian.Uint32(m.data)); code != 0 {
						return unix.Errno(-code)
					}
				}
				return nil
			case len(m.data) >= 4:
				f(m.data[4:])
			}
		}
	}
}

// attributes walks over netlink attributes.
func attributes(b []byte) func(func(uint16, []byte) bool) {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= attributeBound {
			n := int(binary.NativeEndian.Uint16(b))
			if n < attributeBound || n > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[attributeBound:n]) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}
