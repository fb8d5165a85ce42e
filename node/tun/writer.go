package tun

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/node/packet"
)

const (
	maxFlows    = 8   // flows that a Writer coalesces at the same time
	maxSegments = 128 // packets in one super-packet
)

// WriterStats counts what a Writer did.
type WriterStats struct {
	Packets uint64 // taken by Add
	Writes  uint64 // system calls
	Failed  uint64 // packets lost with a failed write, or not an IP packet
}

// Writer coalesces packets of the same flows into super-packets and writes them to a queue, without copying: a
// super-packet is a list of pointers to the payloads. One goroutine owns it; it does not allocate.
type Writer struct {
	queue *Queue
	flows [maxFlows]flow
	used  int // flows[:used] are open, oldest first by turn
	turn  int // which one to close when all are taken
	alone flow
	stats WriterStats
}

// flow is one super-packet in the making.
type flow struct {
	head     []byte // first packet: headers and first payload
	info     packet.Info
	headers  int // octets of IP and TCP or UDP header
	size     int // payload of each packet but the last
	length   int // of the whole super-packet
	count    int
	sequence uint32 // that the next packet must have
	closed   bool   // nothing may follow
	header   [HeaderLen]byte
	vector   []unix.Iovec
}

// NewWriter returns a Writer to q.
func NewWriter(q *Queue) *Writer {
	w := &Writer{queue: q}
	for i := range w.flows {
		w.flows[i].vector = make([]unix.Iovec, 0, maxSegments+2)
	}
	w.alone.vector = make([]unix.Iovec, 0, 2)
	return w
}

// Stats returns the counters; the owner calls it.
func (w *Writer) Stats() WriterStats { return w.stats }

// Add takes one whole IP packet. It keeps pkt until Flush and may change its headers; other packets may have been
// written when it returns. checksumUnknown tells that the TCP or UDP checksum is to be replaced, because a NAT may
// have changed the addresses it covers. An error is about a packet that is lost; the Writer goes on.
func (w *Writer) Add(pkt []byte, checksumUnknown bool) error {
	info, err := packet.Parse(pkt)
	if err != nil {
		w.stats.Failed++
		return err
	}
	return w.AddParsed(pkt, &info, checksumUnknown)
}

// AddParsed is Add for a packet that packet.Parse has said info of. It keeps no pointer to info.
func (w *Writer) AddParsed(pkt []byte, info *packet.Info, checksumUnknown bool) (err error) {
	w.stats.Packets++
	pkt = pkt[:info.Length]
	headers, payload := w.coalescible(pkt, info)
	same := w.find(info)
	if !payload || !checksumUnknown && !packet.VerifyChecksum(pkt, *info) {
		// What was kept of this flow goes first; a wrong checksum is left for the receiver to see.
		if same >= 0 {
			err = w.close(same)
		}
		if e := w.writeAlone(pkt, *info, checksumUnknown); e != nil {
			return e
		}
		return err
	}
	if same >= 0 {
		if w.flows[same].join(pkt, info, headers) {
			return nil
		}
		err = w.close(same)
	}
	if w.used == maxFlows {
		w.turn = (w.turn + 1) % maxFlows
		if e := w.close(w.turn); e != nil {
			err = e
		}
	}
	w.flows[w.used].start(pkt, info, headers)
	w.used++
	return err
}

// coalescible returns the length of the headers of pkt and whether it carries payload that may join others.
func (w *Writer) coalescible(pkt []byte, info *packet.Info) (headers int, ok bool) {
	if info.Fragment || w.queue.offloads&OffloadChecksum == 0 {
		return 0, false
	}
	if info.Version == 4 && info.HeaderLen != packet.IPv4HeaderLen || info.Version == 6 && info.HeaderLen != packet.IPv6HeaderLen {
		return 0, false
	}
	upper := pkt[info.HeaderLen:]
	switch info.Protocol {
	case packet.ProtocolTCP:
		need := OffloadTSO4
		if info.Version == 6 {
			need = OffloadTSO6
		}
		if w.queue.offloads&need == 0 || len(upper) < packet.TCPHeaderLen {
			return 0, false
		}
		headers = int(upper[12]>>4) * 4
		if headers < packet.TCPHeaderLen || upper[13]&^(tcpPSH|tcpECE) != tcpACK {
			return 0, false
		}
	case packet.ProtocolUDP:
		if w.queue.offloads&OffloadUSO == 0 || len(upper) < packet.UDPHeaderLen || upper[6] == 0 && upper[7] == 0 ||
			int(binary.BigEndian.Uint16(upper[4:])) != len(upper) {
			return 0, false
		}
		headers = packet.UDPHeaderLen
	default:
		return 0, false
	}
	return info.HeaderLen + headers, len(upper) > headers
}

// find returns the open flow that a packet belongs to, or -1.
func (w *Writer) find(info *packet.Info) int {
	for i := range w.flows[:w.used] {
		f := &w.flows[i].info
		if f.Protocol == info.Protocol && f.SourcePort == info.SourcePort && f.DestinationPort == info.DestinationPort &&
			f.Source == info.Source && f.Destination == info.Destination {
			return i
		}
	}
	return -1
}

func (f *flow) start(pkt []byte, info *packet.Info, headers int) {
	f.head, f.info, f.headers, f.size = pkt, *info, headers, len(pkt)-headers
	f.length, f.count, f.closed = len(pkt), 1, false
	if info.Protocol == packet.ProtocolTCP {
		upper := pkt[info.HeaderLen:]
		f.sequence = binary.BigEndian.Uint32(upper[4:]) + uint32(f.size)
	}
	f.vector = append(f.vector[:0], iovec(f.header[:]), iovec(pkt))
}

// join adds pkt to the flow where the kernel's own splitting would give it back unchanged, but for a push.
func (f *flow) join(pkt []byte, info *packet.Info, headers int) bool {
	size := len(pkt) - headers
	if f.closed || headers != f.headers || size > f.size || f.length+size > MaxPacket || f.count == maxSegments {
		return false
	}
	a, b := f.head, pkt
	if info.Version == 4 {
		// Traffic class, flags and fragment offset, time to live. The identification is of no use to whole packets.
		if a[1] != b[1] || a[6] != b[6] || a[7] != b[7] || a[8] != b[8] {
			return false
		}
	} else if !bytes.Equal(a[:4], b[:4]) || a[7] != b[7] {
		return false
	}
	if info.Protocol == packet.ProtocolTCP {
		a, b = a[info.HeaderLen:headers], b[info.HeaderLen:headers]
		if binary.BigEndian.Uint32(b[4:]) != f.sequence || !bytes.Equal(a[8:13], b[8:13]) ||
			(a[13]^b[13])&^tcpPSH != 0 || !bytes.Equal(a[14:16], b[14:16]) || !bytes.Equal(a[18:], b[18:]) {
			return false
		}
		f.sequence += uint32(size)
		// A push ends nothing: what is joined reaches the receiver at once, and whoever is pushed gets all of it
		// (RFC 9293 3.9.1.2). The kernel's splitting leaves it to the last segment.
		a[13] |= b[13] & tcpPSH
	}
	f.closed = f.closed || size < f.size
	f.vector = append(f.vector, iovec(pkt[headers:]))
	f.length += size
	f.count++
	return true
}

func iovec(b []byte) unix.Iovec {
	v := unix.Iovec{Base: &b[0]}
	v.SetLen(len(b))
	return v
}

// Flush writes everything that is kept. The error is the last one; every packet was tried.
func (w *Writer) Flush() error {
	var err error
	for i := range w.flows[:w.used] {
		if e := w.write(&w.flows[i]); e != nil {
			err = e
		}
	}
	w.used = 0
	return err
}

// close writes flow i and frees its place.
func (w *Writer) close(i int) error {
	err := w.write(&w.flows[i])
	w.used--
	w.flows[i], w.flows[w.used] = w.flows[w.used], w.flows[i]
	// The header that a vector points to is part of its flow, which has moved.
	if i < w.used {
		w.flows[i].vector[0] = iovec(w.flows[i].header[:])
	}
	return err
}

func (w *Writer) writeAlone(pkt []byte, info packet.Info, checksumUnknown bool) error {
	var h Header
	if offset, ok := packet.ChecksumOffset(info.Protocol); ok && checksumUnknown {
		h = partial(pkt, info, offset)
	}
	f := &w.alone
	h.Append(f.header[:0])
	f.vector = append(f.vector[:0], iovec(f.header[:]), iovec(pkt))
	f.count = 1
	return w.send(f)
}

// partial leaves in pkt the sum of the pseudo-header for whoever finishes the checksum, and the header that says so.
// The zero value where there is no checksum to finish.
func partial(pkt []byte, info packet.Info, offset int) Header {
	upper := pkt[info.HeaderLen:]
	if info.Fragment || len(upper) < offset+2 {
		return Header{}
	}
	field := upper[offset : offset+2]
	if info.Protocol == packet.ProtocolUDP && info.Version == 4 && field[0] == 0 && field[1] == 0 {
		return Header{}
	}
	binary.BigEndian.PutUint16(field, packet.PseudoHeaderSum(info.Source, info.Destination, info.Protocol, len(upper)))
	return Header{Flags: FlagNeedsChecksum, CsumStart: uint16(info.HeaderLen), CsumOffset: uint16(offset)}
}

// write puts the headers of a flow right and writes it.
func (w *Writer) write(f *flow) error {
	upperLen := f.length - f.info.HeaderLen
	if f.info.Version == 4 {
		if f.count > 1 {
			binary.BigEndian.PutUint16(f.head[2:], uint16(f.length))
			packet.SetIPv4Checksum(f.head)
		}
	} else {
		binary.BigEndian.PutUint16(f.head[4:], uint16(upperLen))
	}
	upper := f.head[f.info.HeaderLen:]
	// The checksums were verified, or there is none to trust: either way the kernel need not look again.
	h := Header{Flags: FlagNeedsChecksum, CsumStart: uint16(f.info.HeaderLen), HdrLen: uint16(f.headers)}
	h.CsumOffset = 16
	kind := uint8(GSOTCPv4)
	switch {
	case f.info.Protocol == packet.ProtocolUDP:
		h.CsumOffset = 6
		kind = GSOUDP
		binary.BigEndian.PutUint16(upper[4:], uint16(upperLen))
	case f.info.Version == 6:
		kind = GSOTCPv6
	}
	if f.count > 1 {
		h.GSOType, h.GSOSize = kind, uint16(f.size)
	}
	binary.BigEndian.PutUint16(upper[h.CsumOffset:],
		packet.PseudoHeaderSum(f.info.Source, f.info.Destination, f.info.Protocol, upperLen))
	h.Append(f.header[:0])
	return w.send(f)
}

func (w *Writer) send(f *flow) error {
	w.stats.Writes++
	if err := w.queue.writev(f.vector); err != nil {
		w.stats.Failed += uint64(f.count)
		return err
	}
	return nil
}
