package ikeload

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// Flood sends IKE_SA_INIT requests that a responder would accept, each from an invented address, port and SPI: by a raw
// socket and sendmmsg, as fast as wanted.
type Flood struct {
	fd      int
	target  unix.RawSockaddrInet4
	sources netip.Prefix
	random  uint64
	packets [floodBatch][]byte
	vectors [floodBatch]unix.Iovec
	headers [floodBatch]floodHeader
}

// floodBatch is how many packets one call sends.
const floodBatch = 64

// floodHeader is struct mmsghdr.
type floodHeader struct {
	header unix.Msghdr
	length uint32
	_      [unsafe.Sizeof(uintptr(0)) - 4]byte
}

// FloodResult is what was sent.
type FloodResult struct {
	Sent    uint64
	Elapsed time.Duration
}

// PerSecond is the rate that was reached.
func (r FloodResult) PerSecond() float64 { return float64(r.Sent) / r.Elapsed.Seconds() }

// The lengths of the headers that a flood writes itself.
const (
	ipHeaderLen  = 20
	udpHeaderLen = 8
)

// NewFlood opens the socket in the network namespace that the calling thread is in. It needs root. sources is an IPv4
// prefix of 16 bits at the most, from which the invented addresses are taken.
func NewFlood(target netip.AddrPort, sources netip.Prefix) (*Flood, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW) // IP_HDRINCL is implied
	if err != nil {
		return nil, fmt.Errorf("open a raw socket for a flood: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20); err != nil {
		return nil, errors.Join(fmt.Errorf("set the buffer of a flood: %w", err), unix.Close(fd))
	}
	var port [2]byte
	binary.BigEndian.PutUint16(port[:], target.Port())
	f := &Flood{
		fd: fd, sources: sources.Masked(), random: 1,
		target: unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: target.Addr().As4(), Port: binary.NativeEndian.Uint16(port[:])},
	}
	for i := range f.packets {
		f.packets[i] = f.template(target)
		f.vectors[i].Base = &f.packets[i][0]
		f.vectors[i].SetLen(len(f.packets[i]))
		h := &f.headers[i].header
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&f.target)), unix.SizeofSockaddrInet4
		h.Iov = &f.vectors[i]
		h.SetIovlen(1)
	}
	return f, nil
}

// template is a packet whose source, SPI and nonce are to be written.
func (f *Flood) template(target netip.AddrPort) []byte {
	random := func(n int) []byte {
		b := make([]byte, n)
		_, _ = rand.Read(b) // never fails
		return b
	}
	offer := proposal.IKE{Encryption: proposal.EncrAESGCM16, KeyBits: 256, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupX25519}
	message := wire.AppendMessage(nil, wire.Message{
		Header: wire.Header{SPIi: 1, Exchange: wire.IKESAInit, Flags: wire.FlagInitiator},
		Payloads: []wire.Payload{
			wire.Nonce{Data: random(32)}, // first, where update finds it
			wire.SAFromIKE([]proposal.IKE{offer}, 0),
			wire.KE{Group: proposal.GroupX25519, Data: random(32)},
			wire.Notify{Type: wire.NotifyNATDetectionSourceIP, Data: random(20)},
			wire.Notify{Type: wire.NotifyNATDetectionDestinationIP, Data: random(20)},
			wire.Notify{Type: wire.NotifyFragmentationSupported},
		},
	})
	p := make([]byte, ipHeaderLen+udpHeaderLen, ipHeaderLen+udpHeaderLen+len(message))
	p = append(p, message...)
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_UDP // the kernel writes length and checksum
	to := target.Addr().As4()
	copy(p[16:], to[:])
	udp := p[ipHeaderLen:]
	binary.BigEndian.PutUint16(udp[2:], target.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(udpHeaderLen+len(message))) // no checksum: RFC 768 allows that
	return p
}

// update invents another sender.
func (f *Flood) update(p []byte) {
	next := func() uint64 { // xorshift: nothing secret about it
		f.random ^= f.random << 13
		f.random ^= f.random >> 7
		f.random ^= f.random << 17
		return f.random
	}
	from := f.sources.Addr().As4()
	r := next()
	host := uint32(r) & (1<<(32-f.sources.Bits()) - 1)
	binary.BigEndian.PutUint32(p[12:], binary.BigEndian.Uint32(from[:])|host)
	binary.BigEndian.PutUint16(p[ipHeaderLen:], uint16(r>>32)|1024)
	message := p[ipHeaderLen+udpHeaderLen:]
	binary.BigEndian.PutUint64(message, next()|1)
	binary.BigEndian.PutUint64(message[wire.HeaderLen+4:], next())
}

// Run sends rate packets a second, or as many as the machine can, until ctx ends.
func (f *Flood) Run(ctx context.Context, rate int) (FloodResult, error) {
	var r FloodResult
	start := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		r.Elapsed = time.Since(start)
		if due := uint64(r.Elapsed.Seconds() * float64(rate)); r.Sent+floodBatch > due {
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
			continue
		}
		n, err := f.send()
		if err != nil {
			return r, err
		}
		r.Sent += uint64(n)
	}
	r.Elapsed = time.Since(start)
	return r, nil
}

// send is sendmmsg of one batch.
func (f *Flood) send() (int, error) {
	for i := range f.packets {
		f.update(f.packets[i])
	}
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(f.fd), uintptr(unsafe.Pointer(&f.headers[0])), floodBatch, 0, 0, 0)
	runtime.KeepAlive(f)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EINTR, unix.ENOBUFS, unix.EAGAIN:
		return 0, nil
	}
	return 0, fmt.Errorf("send a flood: %w", errno)
}

// Close closes the socket.
func (f *Flood) Close() error { return unix.Close(f.fd) }
