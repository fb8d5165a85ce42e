package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sizes in octets, where nothing else is said.
const (
	// headroom before a received datagram: an IPv6 header can be built over the start of an ESP packet.
	headroom = 40
	// maxDatagram is what recvmsg can give: an IP packet, or a super-packet of UDP_GRO.
	maxDatagram = 65535
	// Limits of one sendmsg with UDP_SEGMENT. Kernels before 6.9 take 64 segments.
	MaxSendOctets   = 65507
	MaxSendSegments = 64
)

// Queue is what one packet thread reads and writes: its sockets on the NAT port, and its raw ones. What arrives is
// divided by SPI, see QueueOf. One goroutine calls its methods. The calls never block (SendESP waits at most 10 ms for room in a full socket), so they
// go to the kernel without telling the Go scheduler.
type Queue struct {
	sockets *Sockets
	all     []*socket
	first   int // socket to read first, so that none starves

	control controlBuffer
	name    unix.RawSockaddrInet6
	vector  unix.Iovec
	header  unix.Msghdr
	many    many
}

func (q *Queue) add(sock *socket) { q.all = append(q.all, sock) }

// Len returns how many descriptors there are.
func (q *Queue) Len() int { return len(q.all) }

// FDs returns the descriptors to poll for input. ReceiveFrom knows them by their place.
func (q *Queue) FDs() []int {
	fds := make([]int, 0, len(q.all))
	for _, sock := range q.all {
		fds = append(fds, sock.fd)
	}
	return fds
}

// Batch holds the buffers of ReceiveESP. One goroutine owns it.
type Batch struct {
	Datagrams []Datagram // what the last ReceiveESP gave

	want      int // messages that the next call asks for
	touched   int // headers that the last call wrote to
	datagrams []Datagram
	buffers   [][]byte // those of the messages; a dropped message makes datagrams lag behind
	headers   []messageHeader
	names     []unix.RawSockaddrInet6
	controls  []controlBuffer
	vectors   []unix.Iovec
}

// messageHeader is struct mmsghdr.
type messageHeader struct {
	header unix.Msghdr
	length uint32
	_      [unsafe.Sizeof(uintptr(0)) - 4]byte
}

// longDatagram is what the kernel joined, and fewDatagrams are as many of them as a processor's cache holds.
const (
	longDatagram = 16 << 10
	fewDatagrams = 8
)

// NewBatch returns room for n datagrams of 64 KiB, memory that only long ones use. One receive call takes up to n short
// datagrams, and up to 8 long ones; 64 is a good n.
func NewBatch(n int) *Batch {
	b := &Batch{
		want: min(n, fewDatagrams), touched: n,
		datagrams: make([]Datagram, n), buffers: make([][]byte, n), headers: make([]messageHeader, n), names: make([]unix.RawSockaddrInet6, n),
		controls: make([]controlBuffer, n), vectors: make([]unix.Iovec, n),
	}
	for i := range n {
		buffer := make([]byte, headroom+maxDatagram)
		b.buffers[i] = buffer
		b.vectors[i].Base = &buffer[headroom]
		b.vectors[i].SetLen(maxDatagram)
		h := &b.headers[i].header
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Iov = &b.vectors[i]
		h.SetIovlen(1)
		h.Control = &b.controls[i].octets[0]
	}
	return b
}

// ReceiveESP fills b.Datagrams from one socket, another one first each time, without blocking; ErrWouldBlock when there
// is nothing. The datagrams are valid until the next call.
func (q *Queue) ReceiveESP(b *Batch) error {
	b.Datagrams = b.datagrams[:0]
	for range q.all {
		first := q.first
		q.first = (q.first + 1) % len(q.all)
		if more, err := q.ReceiveFrom(first, b); err != nil || more || len(b.Datagrams) > 0 {
			return err
		}
	}
	return ErrWouldBlock
}

// ReceiveFrom fills b.Datagrams from the socket that stands at place i of FDs, without blocking. There may be more where it
// says so. The datagrams are valid until the next call.
func (q *Queue) ReceiveFrom(i int, b *Batch) (more bool, err error) {
	b.Datagrams = b.datagrams[:0]
	sock := q.all[i]
	asked := b.want
	n, err := sock.receive(b)
	if err != nil {
		q.sockets.receiveErrors.Add(1)
		return false, err
	}
	b.touched = n
	b.want = len(b.headers)
	for i := range n {
		if b.headers[i].length >= longDatagram {
			b.want = min(len(b.headers), fewDatagrams)
		}
		q.sockets.take(b, i, sock)
	}
	return n == asked, nil
}

// receive is recvmmsg; 0 when there is nothing.
func (k *socket) receive(b *Batch) (int, error) {
	for i := range b.headers[:b.touched] {
		h := &b.headers[i].header
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(controlSize)
		h.Flags = 0
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(k.fd), uintptr(unsafe.Pointer(&b.headers[0])),
		uintptr(b.want), unix.MSG_DONTWAIT, 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EAGAIN, unix.EINTR:
		return 0, nil
	}
	return 0, fmt.Errorf("receive from socket %d: %w", k.port, errno)
}

// take appends message i of the last receive to b.Datagrams.
func (s *Sockets) take(b *Batch, i int, sock *socket) {
	m := &b.headers[i]
	if m.header.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		s.short.Add(1)
		return
	}
	at := len(b.Datagrams)
	b.Datagrams = b.datagrams[:at+1]
	d := &b.datagrams[at]
	r := parseControl(b.controls[i].octets[:m.header.Controllen])
	remote := remoteOf(&b.names[i])
	*d = Datagram{
		Local: netip.AddrPortFrom(r.local, sock.port), Remote: remote, Encap: !sock.raw, TrafficClass: r.class, HopLimit: r.hops,
		Buffer: b.buffers[i], start: headroom, end: headroom + int(m.length), segment: r.segment, sockets: s,
	}
	if d.segment == 0 {
		d.segment = int(m.length)
	}
	if !sock.raw {
		return
	}
	d.Remote = netip.AddrPortFrom(remote.Addr(), 0) // a raw IPv6 socket puts the protocol there
	if sock.v6 {
		return
	}
	// A raw IPv4 socket gives the IP header too.
	if header := int(d.Buffer[headroom]&0x0f) * 4; header < int(m.length) {
		d.TrafficClass, d.HopLimit = d.Buffer[headroom+1], d.Buffer[headroom+8]
		d.start += header
		return
	}
	s.short.Add(1)
	b.Datagrams = b.Datagrams[:at]
}

// remoteOf reads the address the kernel wrote.
func remoteOf(name *unix.RawSockaddrInet6) netip.AddrPort {
	if name.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), networkOrder(v4.Port))
	}
	return netip.AddrPortFrom(netip.AddrFrom16(name.Addr), networkOrder(name.Port))
}

// networkOrder turns a port of a raw socket address into a number, and back.
func networkOrder(port uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], port)
	return binary.BigEndian.Uint16(b[:])
}

// Next returns the bounds of the next ESP packet in d.Buffer, with at least esp.Headroom octets before it that are
// free, or belong to the packet before. IKE messages on the way go to ReadIKE, keepalives vanish (RFC 3948 2). A packet
// is to be opened before the next call, which still reads what lies behind it.
func (d *Datagram) Next() (start, end int, ok bool) {
	for d.start < d.end {
		start = d.start
		end = min(start+d.segment, d.end)
		d.start = end
		if !d.Encap {
			return start, end, true
		}
		packet := d.Buffer[start:end]
		switch {
		case len(packet) == 1 && packet[0] == keepalive[0]:
			d.sockets.keepalives.Add(1)
		case len(packet) < len(nonESPMarker):
			d.sockets.short.Add(1)
		case [4]byte(packet) == nonESPMarker:
			d.sockets.deliver(packet[len(nonESPMarker):], d.Local, d.Remote)
		default:
			return start, end, true
		}
	}
	return 0, 0, false
}

// SendESP sends m, in as few calls as the kernel allows: ErrTooBig when a packet exceeds the path MTU, ErrDropped when
// the socket is full. After an error some of the packets may have been sent.
func (q *Queue) SendESP(m *Message) error {
	sock := q.find(m)
	if sock == nil {
		return fmt.Errorf("send ESP to %s: %w", m.Remote, ErrNoSocket)
	}
	segment := m.SegmentLen
	if segment == 0 || segment > len(m.Payload) {
		segment = len(m.Payload)
	}
	for rest := m.Payload; len(rest) > 0; {
		n := segment
		offload := sock.gso.Load()
		switch {
		case !offload:
			n = maxMany * segment
		case len(rest) > segment:
			n = max(1, min(MaxSendSegments, MaxSendOctets/segment)) * segment
		}
		n = min(n, len(rest))
		var err error
		if !offload && n > segment {
			err = q.sendEach(sock, m, rest[:n], segment)
		} else {
			err = q.send(sock, m, rest[:n], segment)
		}
		if offload && n > segment && (errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EMSGSIZE)) {
			// EIO: the device has no checksum offload, which UDP_SEGMENT needs. It will not get it; EINVAL and
			// EMSGSIZE are about this one path, whose MTU the segments exceed: one by one they may be fragmented.
			if errors.Is(err, unix.EIO) {
				sock.gso.Store(false)
			}
			err = q.sendEach(sock, m, rest[:n], segment)
		}
		if m.MayFragment && errors.Is(err, unix.EMSGSIZE) {
			err = q.sockets.withFragments(sock, func() error { return q.sendEach(sock, m, rest[:n], segment) })
		}
		if err != nil {
			return q.failed(m, err)
		}
		rest = rest[n:]
	}
	return nil
}

// failed counts an error of send and names it.
func (q *Queue) failed(m *Message, err error) error {
	switch {
	case errors.Is(err, unix.EMSGSIZE):
		q.sockets.tooBig.Add(1)
		return ErrTooBig
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS):
		q.sockets.sendDropped.Add(1)
		return ErrDropped
	}
	return fmt.Errorf("send ESP from %s to %s: %w", m.Local, m.Remote, err)
}

func (q *Queue) find(m *Message) *socket {
	v6 := !m.Remote.Addr().Is4()
	for _, sock := range q.all {
		if sock.v6 == v6 && sock.raw != m.Encap {
			return sock
		}
	}
	return nil
}

// send is sendmsg of b, cut in segments where it is longer than one.
func (q *Queue) send(sock *socket, m *Message, b []byte, segment int) error {
	if len(b) <= segment {
		segment = 0
	}
	q.header = q.address(sock, m, segment)
	q.vector.Base = &b[0]
	q.vector.SetLen(len(b))
	q.header.Iov = &q.vector
	waited := false
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(sock.fd), uintptr(unsafe.Pointer(&q.header)), unix.MSG_DONTWAIT)
		runtime.KeepAlive(b)
		switch {
		case errno == 0:
			return nil
		case errno == unix.EINTR:
		case errno == unix.EAGAIN && !waited:
			waited = true
			sock.waitForRoom()
		default:
			return errno
		}
	}
}

// waitForRoom waits a moment until a full socket has sent something; the next try tells.
func (k *socket) waitForRoom() {
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(k.fd), Events: unix.POLLOUT}}, writeWait)
}

// address returns a message header with one part, addresses and options. It is valid until the next call.
func (q *Queue) address(sock *socket, m *Message, segment int) unix.Msghdr {
	h := unix.Msghdr{Name: (*byte)(unsafe.Pointer(&q.name))}
	port := m.Remote.Port()
	if sock.raw {
		port = 0
	}
	h.Namelen = sock.address(&q.name, netip.AddrPortFrom(m.Remote.Addr(), port))
	h.SetIovlen(1)
	if control := q.control.build(sock.v6, m.Local.Addr(), m.TrafficClass, m.HopLimit, segment); len(control) > 0 {
		h.Control = &control[0]
		h.SetControllen(len(control))
	}
	return h
}
