package userspace

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/node/tun"
)

// rawSockets send whole IP packets: those that the policy lets go in clear after they were on their way to an SA, and those
// of ESP that have more than a plain header. Their mark takes them past the rules that would steer them back.
type rawSockets struct{ v4, v6 int }

func openRawSockets(v6 bool, mark uint32) (*rawSockets, error) {
	s := &rawSockets{v4: -1, v6: -1}
	var err error
	if s.v4, err = openRaw(unix.AF_INET, mark); err != nil {
		return nil, fmt.Errorf("open the raw socket for whole packets: %w", err)
	}
	if !v6 {
		return s, nil
	}
	if s.v6, err = openRaw(unix.AF_INET6, mark); err != nil {
		return nil, errors.Join(fmt.Errorf("open the raw IPv6 socket for whole packets: %w", err), s.close())
	}
	return s, nil
}

// openRaw opens a socket that takes packets with their header (IPPROTO_RAW implies IP_HDRINCL) and receives nothing.
func openRaw(family int, mark uint32) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func (s *rawSockets) send(pkt []byte, info packet.Info) error {
	if info.Version == 4 {
		return unix.Sendto(s.v4, pkt, 0, &unix.SockaddrInet4{Addr: info.Destination.As4()})
	}
	return unix.Sendto(s.v6, pkt, 0, &unix.SockaddrInet6{Addr: info.Destination.As16()})
}

func (s *rawSockets) close() error {
	var errs []error
	for _, fd := range []int{s.v4, s.v6} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	return errors.Join(errs...)
}

// reinject sends a packet in clear. The caller has asked the policy.
func (l *loop) reinject(header tun.Header, pkt []byte, info packet.Info) {
	if err := l.splitter.Reset(header, pkt); err != nil {
		l.counters[counterUnparsed]++
		return
	}
	for segment, ok := l.splitter.Next(); ok; segment, ok = l.splitter.Next() {
		if err := l.clear.send(segment, info); err != nil {
			l.counters[counterReinjectFailed]++
			l.warn("cannot send a packet in clear", err)
			continue
		}
		l.counters[counterReinjected]++
	}
}
