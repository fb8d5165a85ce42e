package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/node/tun"
)

// The relay is the floor of every datapath of this shape: what the kernel hands out of a TUN device goes into one UDP
// send with segmentation offload, and what arrives goes back into a TUN device, with nothing done to it.

const (
	relayArgument = "relay"
	relayDevice   = "bwbnrelay"
	relayPort     = 4501
	// relaySegment fits the wire: 1500 octets less the IPv4 and UDP headers.
	relaySegment = 1472
	relayMagic   = 0x62776267
	// relayHeader is magic, length of what follows, and the virtio-net header.
	relayHeader = 8 + tun.HeaderLen
)

func startRelay(_ context.Context, n *network, _ options) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for i := range n.hosts {
		if err := n.daemon(i, fmt.Sprintf("relay%d.log", i), self, relayArgument, outer[i].String(), outer[1-i].String()); err != nil {
			return err
		}
	}
	for i, h := range n.hosts {
		var err error
		for range 100 { // the device is about to be there
			_, err = h.Run("ip", "route", "add", nets[1-i].String(), "dev", relayDevice, "src", inner[i].String())
			if err == nil {
				break
			}
			if _, err := h.Run("sleep", "0.05"); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// relay is the process at one end.
func relay(local, remote string) error {
	from, err1 := netip.ParseAddr(local)
	to, err2 := netip.ParseAddr(remote)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	device, err := tun.Open(tun.Config{Name: relayDevice, MTU: 1400})
	if err != nil {
		return err
	}
	defer device.Close()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make the relay's socket: %w", err)
	}
	defer unix.Close(fd)
	for _, o := range []struct{ level, name, value int }{
		{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8 << 20}, {unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8 << 20}, {unix.IPPROTO_UDP, unix.UDP_GRO, 1},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return fmt.Errorf("set option %d of the relay's socket: %w", o.name, err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: relayPort, Addr: from.As4()}); err != nil {
		return fmt.Errorf("bind the relay's socket: %w", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: relayPort, Addr: to.As4()}); err != nil {
		return fmt.Errorf("connect the relay's socket: %w", err)
	}
	runtime.LockOSThread()
	r := relayer{fd: fd, queue: device.Queue(0), out: make([]byte, relayHeader+tun.MaxPacket), in: make([]byte, 0, 2*65536), control: segmentControl()}
	return r.loop()
}

type relayer struct {
	fd      int
	queue   *tun.Queue
	out, in []byte
	control []byte
}

// segmentControl asks for UDP_SEGMENT.
func segmentControl() []byte {
	b := make([]byte, unix.CmsgSpace(2))
	h := (*[unix.SizeofCmsghdr]byte)(b)
	binary.NativeEndian.PutUint64(h[0:], uint64(unix.CmsgLen(2)))
	binary.NativeEndian.PutUint32(h[8:], unix.IPPROTO_UDP)
	binary.NativeEndian.PutUint32(h[12:], unix.UDP_SEGMENT)
	binary.NativeEndian.PutUint16(b[unix.CmsgLen(0):], relaySegment)
	return b
}

func (r *relayer) loop() error {
	fds := []unix.PollFd{{Fd: int32(r.queue.FD()), Events: unix.POLLIN}, {Fd: int32(r.fd), Events: unix.POLLIN}}
	for {
		busy := false
		for range 16 {
			worked, err := r.toWire()
			if err != nil {
				return err
			}
			if !worked {
				break
			}
			busy = true
		}
		for range 8 {
			worked, err := r.toDevice()
			if err != nil {
				return err
			}
			if !worked {
				break
			}
			busy = true
		}
		if busy {
			continue
		}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll: %w", err)
		}
	}
}

func (r *relayer) toWire() (bool, error) {
	h, packet, err := r.queue.Read(r.out[relayHeader-tun.HeaderLen:])
	if err != nil {
		if errors.Is(err, tun.ErrWouldBlock) {
			return false, nil
		}
		return false, err
	}
	binary.BigEndian.PutUint32(r.out, relayMagic)
	binary.BigEndian.PutUint32(r.out[4:], uint32(len(packet)))
	h.Append(r.out[8:8])
	message, control := r.out[:relayHeader+len(packet)], r.control
	if len(message) <= relaySegment {
		control = nil
	}
	_, err = unix.SendmsgN(r.fd, message, control, nil, 0)
	if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ECONNREFUSED) {
		return false, fmt.Errorf("send %d octets: %w", len(message), err)
	}
	return true, nil
}

func (r *relayer) toDevice() (bool, error) {
	n, err := unix.Read(r.fd, r.in[len(r.in):len(r.in)+65536])
	if err != nil {
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EINTR) {
			return false, nil
		}
		return false, fmt.Errorf("receive: %w", err)
	}
	r.in = r.in[:len(r.in)+n]
	rest := r.in
	for len(rest) >= relayHeader {
		length := int(binary.BigEndian.Uint32(rest[4:]))
		if binary.BigEndian.Uint32(rest) != relayMagic || length > tun.MaxPacket { // something was lost before
			rest = nil
			break
		}
		if len(rest) < relayHeader+length {
			break
		}
		h, err := tun.ParseHeader(rest[8:])
		if err != nil {
			return false, err
		}
		_ = r.queue.Write(h, rest[relayHeader:relayHeader+length]) // what the kernel refuses is lost
		rest = rest[relayHeader+length:]
	}
	if len(rest) > 65536 {
		rest = nil
	}
	r.in = r.in[:copy(r.in[:cap(r.in)], rest)]
	return true, nil
}
