package lab

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
	"unsafe"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/sys/unix"
)

// Frame is one captured Ethernet frame.
type Frame struct {
	Time     time.Time
	Outgoing bool // sent by the host of the capture
	Data     []byte
}

// Capture records what passes a device. It sees packets as the device does: before GSO super-packets are cut, which
// virtual Ethernet never does.
type Capture struct {
	fd   int
	stop int // eventfd
	done chan struct{}

	mu struct {
		sync.Mutex
		frames  []Frame
		dropped uint32
		err     error
	}
}

// Capture starts a capture on a device of the host. It records from the moment that it returns.
func (h *Host) Capture(device string) (*Capture, error) {
	c := &Capture{done: make(chan struct{})}
	if err := h.Do(func() error { return c.open(device) }); err != nil {
		return nil, fmt.Errorf("capture on %s of host %s: %w", device, h.Name, err)
	}
	go c.read()
	return c, nil
}

func (c *Capture) open(device string) error {
	nic, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	// Protocol 0 receives nothing until bind sets protocol and device: no frame of another device gets in between.
	if c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return err
	}
	if c.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return errors.Join(err, unix.Close(c.fd))
	}
	const buffer = 64 << 20
	err = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer)
	if errors.Is(err, unix.EPERM) { // in a user namespace the system's limit holds
		err = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer)
	}
	return errors.Join(
		err,
		unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.Bind(c.fd, &unix.SockaddrLinklayer{Protocol: 0x0300, Ifindex: nic.Index}), // ETH_P_ALL in network order
	)
}

// read owns the socket; it is the only goroutine of a capture.
func (c *Capture) read() {
	defer close(c.done)
	buf := make([]byte, 256<<10)
	oob := make([]byte, 256)
	fds := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}, {Fd: int32(c.stop), Events: unix.POLLIN}}
	for {
		n, oobn, _, from, err := unix.Recvmsg(c.fd, buf, oob, 0)
		switch {
		case errors.Is(err, unix.EAGAIN):
			// What had arrived when Stop was called has been read.
			if fds[1].Revents != 0 {
				c.count()
				return
			}
			if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
				c.fail(err)
				return
			}
			continue
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			c.fail(err)
			return
		}
		f := Frame{Time: timestamp(oob[:oobn]), Data: append([]byte(nil), buf[:n]...)}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok {
			f.Outgoing = ll.Pkttype == unix.PACKET_OUTGOING
		}
		c.mu.Lock()
		c.mu.frames = append(c.mu.frames, f)
		c.mu.Unlock()
	}
}

func timestamp(oob []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err == nil {
		for _, m := range messages {
			if m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= int(unsafe.Sizeof(unix.Timespec{})) {
				ts := (*unix.Timespec)(unsafe.Pointer(&m.Data[0]))
				return time.Unix(ts.Unix())
			}
		}
	}
	return time.Now()
}

func (c *Capture) count() {
	stats, err := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.mu.err = err
		return
	}
	c.mu.dropped = stats.Drops
}

func (c *Capture) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.err = err
}

// Frames returns what was captured up to now.
func (c *Capture) Frames() []Frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.frames[:len(c.mu.frames):len(c.mu.frames)]
}

// Stop ends the capture after everything that had arrived, and returns its frames. The error tells when frames were
// lost: a capture with losses proves nothing.
func (c *Capture) Stop() ([]Frame, error) {
	one := [8]byte{1}
	if _, err := unix.Write(c.stop, one[:]); err != nil {
		return nil, fmt.Errorf("stop the capture: %w", err)
	}
	<-c.done
	err := errors.Join(unix.Close(c.fd), unix.Close(c.stop))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.dropped > 0 {
		err = errors.Join(err, fmt.Errorf("capture lost %d frames", c.mu.dropped))
	}
	return c.mu.frames, errors.Join(err, c.mu.err)
}

// WritePcap writes frames as a pcap file, for tshark and people.
func WritePcap(w io.Writer, frames []Frame) error {
	p := pcapgo.NewWriterNanos(w)
	if err := p.WriteFileHeader(256<<10, layers.LinkTypeEthernet); err != nil {
		return err
	}
	for _, f := range frames {
		info := gopacket.CaptureInfo{Timestamp: f.Time, CaptureLength: len(f.Data), Length: len(f.Data)}
		if err := p.WritePacket(info, f.Data); err != nil {
			return err
		}
	}
	return nil
}

// SavePcap writes frames to a file.
func SavePcap(path string, frames []Frame) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(WritePcap(f, frames), f.Close())
}
