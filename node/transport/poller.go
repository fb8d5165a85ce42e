package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Poller waits for input on several descriptors, for the one locked thread that runs the packet path: the Go network
// poller costs a goroutine switch for each wake-up. One goroutine calls Wait and Ready; anyone may call Wake.
type Poller struct {
	fds     []unix.PollFd // the last one is wake
	wake    int
	timeout unix.Timespec
	mu      struct { // who wakes a closed one must not write to what has its number now
		sync.Mutex
		closed bool
	}
}

// NewPoller returns a Poller over fds, which it does not own.
func NewPoller(fds ...int) (*Poller, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make an eventfd: %w", err)
	}
	p := &Poller{wake: wake}
	for _, fd := range append(fds, wake) {
		p.fds = append(p.fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	return p, nil
}

// Wait blocks until a descriptor is ready, Wake was called, or timeout passed (negative: never). Timeout 0 only looks.
func (p *Poller) Wait(timeout time.Duration) error {
	var limit *unix.Timespec
	if timeout >= 0 {
		p.timeout = unix.NsecToTimespec(int64(timeout))
		limit = &p.timeout
	}
	n := uintptr(len(p.fds))
	var errno unix.Errno
	var ready uintptr
	if timeout == 0 { // cannot block, so the scheduler need not know
		ready, _, errno = unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p.fds[0])), n, uintptr(unsafe.Pointer(limit)), 0, 0, 0)
	} else {
		ready, _, errno = unix.Syscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p.fds[0])), n, uintptr(unsafe.Pointer(limit)), 0, 0, 0)
	}
	if errno != 0 && errno != unix.EINTR {
		return fmt.Errorf("poll %d descriptors: %w", n, errno)
	}
	if errno != 0 || ready == 0 {
		for i := range p.fds {
			p.fds[i].Revents = 0
		}
		return nil
	}
	if p.fds[n-1].Revents != 0 {
		var counter [8]byte
		if _, err := unix.Read(p.wake, counter[:]); err != nil && !errors.Is(err, unix.EAGAIN) {
			return fmt.Errorf("read eventfd: %w", err)
		}
	}
	return nil
}

// Ready reports whether descriptor i of NewPoller was ready, or broken, in the last Wait.
func (p *Poller) Ready(i int) bool { return p.fds[i].Revents != 0 }

// Wake ends the Wait under way, or the next one. After Close it does nothing.
func (p *Poller) Wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = unix.Write(p.wake, one[:]) // fails only where the counter is full, which wakes as well
}

// Close frees the Poller. Nothing may call Wait any more.
func (p *Poller) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return nil
	}
	p.mu.closed = true
	if err := unix.Close(p.wake); err != nil {
		return fmt.Errorf("close eventfd: %w", err)
	}
	return nil
}
