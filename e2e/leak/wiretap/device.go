package main

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// reader reads what one device receives.
type reader struct {
	device string
	fd     int
	stop   int // eventfd

	mu struct {
		sync.Mutex
		err error
	}
}

// ignoreOutgoing is PACKET_IGNORE_OUTGOING: each frame is judged once, where it comes from its sender.
const ignoreOutgoing = 23

// listen opens the devices. Everything that they receive from now on is judged.
func listen(devices []string) ([]*reader, error) {
	var out []*reader
	for _, device := range devices {
		r := &reader{device: device}
		if err := r.open(); err != nil {
			return nil, fmt.Errorf("listen on %s: %w", device, err)
		}
		out = append(out, r)
	}
	return out, nil
}

func (r *reader) open() error {
	nic, err := net.InterfaceByName(r.device)
	if err != nil {
		return err
	}
	// Protocol 0 receives nothing until bind sets protocol and device.
	if r.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return err
	}
	if r.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return err
	}
	const buffer = 64 << 20
	return errors.Join(
		unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer),
		unix.SetsockoptInt(r.fd, unix.SOL_PACKET, ignoreOutgoing, 1),
		unix.Bind(r.fd, &unix.SockaddrLinklayer{Protocol: 0x0300, Ifindex: nic.Index}), // ETH_P_ALL in network order
	)
}

// read reads until end, and what had arrived by then. The time of a frame is that of its reading: at most the wait of
// this process after the frame.
func (r *reader) read(observe func(at time.Time, where string, data []byte)) {
	data := make([]byte, 256<<10)
	fds := []unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLIN}, {Fd: int32(r.stop), Events: unix.POLLIN}}
	for {
		n, _, err := unix.Recvfrom(r.fd, data, 0)
		switch {
		case err == nil:
			observe(time.Now(), r.device, data[:n])
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			if fds[1].Revents != 0 {
				return
			}
			if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
				r.fail(err)
				return
			}
		default:
			r.fail(err)
			return
		}
	}
}

func (r *reader) end() {
	one := [8]byte{1}
	if _, err := unix.Write(r.stop, one[:]); err != nil {
		r.fail(err)
	}
}

func (r *reader) lost() (uint64, error) {
	stats, err := unix.GetsockoptTpacketStats(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, fmt.Errorf("ask how many frames of %s were lost: %w", r.device, err)
	}
	return uint64(stats.Drops), nil
}

func (r *reader) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.err = errors.Join(r.mu.err, fmt.Errorf("read frames of %s: %w", r.device, err))
}

func (r *reader) failed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.err
}
