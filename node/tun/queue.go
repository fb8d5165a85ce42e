package tun

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Queue is one queue of a device. One goroutine may read while another writes. The read and write calls never block,
// so they go to the kernel without telling the Go scheduler; Wait does tell it.
type Queue struct {
	offloads Offload
	wake     int // eventfd that becomes readable when the device is closed

	mu     sync.RWMutex // held for reading during system calls, so that Close waits for them
	fd     int
	closed bool
}

// NewQueue returns a queue over a descriptor that carries virtio-net headers and packets as a TUN does, and takes
// ownership of it. It is for fakes; Open makes real ones.
func NewQueue(fd int, offloads Offload) (*Queue, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("make descriptor %d non-blocking: %w", fd, err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make an eventfd: %w", err)
	}
	return &Queue{offloads: offloads, wake: wake, fd: fd}, nil
}

// FD returns the descriptor, non-blocking, for poll(2). It stays valid until Close.
func (q *Queue) FD() int { return q.fd }

// Offloads returns what the kernel took.
func (q *Queue) Offloads() Offload { return q.offloads }

// Read reads one packet without blocking; pkt lies in buf, with all of buf's spare capacity behind it. buf is best
// BufferSize long: a packet that does not fit is lost with an error. ErrWouldBlock when there is none, ErrClosed after
// Close.
func (q *Queue) Read(buf []byte) (h Header, pkt []byte, err error) {
	if len(buf) < HeaderLen {
		return h, nil, fmt.Errorf("read TUN into %d octets: %w", len(buf), ErrTruncated)
	}
	q.mu.RLock()
	if q.closed {
		q.mu.RUnlock()
		return h, nil, ErrClosed
	}
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(q.fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
	q.mu.RUnlock()
	switch errno {
	case 0:
	case unix.EAGAIN, unix.EINTR:
		return h, nil, ErrWouldBlock
	default:
		return h, nil, fmt.Errorf("read TUN: %w", errno)
	}
	if h, err = ParseHeader(buf[:n]); err != nil {
		return h, nil, err
	}
	return h, buf[HeaderLen:n], nil
}

// Write writes one packet with its header.
func (q *Queue) Write(h Header, pkt []byte) error {
	var header [HeaderLen]byte
	h.Append(header[:0])
	if len(pkt) == 0 {
		return fmt.Errorf("write an empty packet to the TUN: %w", ErrSegmentation)
	}
	return q.writev([]unix.Iovec{iovec(header[:]), iovec(pkt)})
}

// writev writes the parts of one packet; the first is the header.
func (q *Queue) writev(parts []unix.Iovec) error {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if q.closed {
		return ErrClosed
	}
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(q.fd), uintptr(unsafe.Pointer(&parts[0])), uintptr(len(parts)))
		runtime.KeepAlive(parts)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
			continue
		}
		return fmt.Errorf("write %d parts to TUN: %w", len(parts), errno)
	}
}

// Wait blocks until Read may succeed, the timeout passes (negative: none; nil error) or the device is closed (ErrClosed).
func (q *Queue) Wait(timeout time.Duration) error {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if q.closed {
		return ErrClosed
	}
	fds := [2]unix.PollFd{{Fd: int32(q.fd), Events: unix.POLLIN}, {Fd: int32(q.wake), Events: unix.POLLIN}}
	ms := -1
	if timeout >= 0 {
		ms = int((timeout + time.Millisecond - 1) / time.Millisecond)
	}
	if _, err := unix.Poll(fds[:], ms); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("poll TUN: %w", err)
	}
	if fds[1].Revents != 0 {
		return ErrClosed
	}
	return nil
}

// Close ends every Wait with ErrClosed, waits for calls under way and closes the descriptor. A second Close does nothing.
func (q *Queue) Close() error {
	if err := q.interrupt(); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil
	}
	q.closed = true
	err := unix.Close(q.fd)
	if e := unix.Close(q.wake); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("close TUN: %w", err)
	}
	return nil
}

// interrupt wakes Wait for good: the eventfd is never read.
func (q *Queue) interrupt() error {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if q.closed {
		return nil
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	if _, err := unix.Write(q.wake, one[:]); err != nil && !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("wake TUN reader: %w", err)
	}
	return nil
}
