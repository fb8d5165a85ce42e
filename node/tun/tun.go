// Package tun owns the TUN device of the userspace datapath: its queues with virtio-net headers, the splitting of the
// super-packets the kernel hands out, and the coalescing of what is written back.
//
// Its invariant: every packet that leaves a Splitter is complete, with right checksums, and no longer than the
// kernel asked for; every packet that enters a Writer reaches the kernel in the order of its flow, or is counted as
// failed. It leaves routing and firewall rules to the datapath, and what the packets mean to node/packet.
package tun

import (
	"encoding/binary"
	"net/netip"
	"strings"
)

// Sizes in octets.
const (
	HeaderLen  = 10 // virtio-net header before every packet
	MaxPacket  = 65535
	BufferSize = HeaderLen + MaxPacket + 64 // of a read buffer: header, packet, and room that esp.Seal borrows
	GSOMaxSize = 60900                      // longest super-packet whose ESP packets still fit one sendmsg (65507 octets)
)

// Offload is a set of segmentation offloads: what the kernel may leave to the reader of a queue.
type Offload uint8

// The offloads.
const (
	OffloadChecksum Offload = 1 << iota // partial checksums
	OffloadTSO4                         // TCP super-packets over IPv4
	OffloadTSO6                         // TCP super-packets over IPv6
	OffloadUSO                          // UDP super-packets

	OffloadAll = OffloadChecksum | OffloadTSO4 | OffloadTSO6 | OffloadUSO
)

// String lists the offloads.
func (o Offload) String() string {
	var names []string
	for i, name := range [...]string{"checksum", "tso4", "tso6", "uso"} {
		if o&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ",")
}

// Config describes a device to make.
type Config struct {
	Name       string // may hold %d, which the kernel replaces
	MTU        int    // 0 leaves the kernel's 1500
	Queues     int    // 0 is 1
	GSOMaxSize int    // octets of the longest super-packet; 0 is GSOMaxSize
	TxQueueLen int    // packets; 0 leaves the kernel's 500
	NoOffload  bool
	Addresses  []netip.Prefix
}

// The values of Header (virtio 1.2, 5.1.6).
const (
	FlagNeedsChecksum = 1

	GSONone  = 0
	GSOTCPv4 = 1
	GSOTCPv6 = 4
	GSOUDP   = 5
	gsoECN   = 0x80
)

// Header is the virtio-net header (virtio 1.2, 5.1.6), its fields in host order:
//
//	flags(1) gso_type(1) hdr_len(2) gso_size(2) csum_start(2) csum_offset(2)
type Header struct {
	Flags      uint8
	GSOType    uint8
	HdrLen     uint16
	GSOSize    uint16
	CsumStart  uint16
	CsumOffset uint16
}

// ParseHeader reads a header from the first HeaderLen octets of b.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderLen {
		return Header{}, ErrTruncated
	}
	return Header{
		Flags: b[0], GSOType: b[1], HdrLen: binary.NativeEndian.Uint16(b[2:]), GSOSize: binary.NativeEndian.Uint16(b[4:]),
		CsumStart: binary.NativeEndian.Uint16(b[6:]), CsumOffset: binary.NativeEndian.Uint16(b[8:]),
	}, nil
}

// Append appends the header to dst.
func (h Header) Append(dst []byte) []byte {
	dst = append(dst, h.Flags, h.GSOType)
	dst = binary.NativeEndian.AppendUint16(dst, h.HdrLen)
	dst = binary.NativeEndian.AppendUint16(dst, h.GSOSize)
	dst = binary.NativeEndian.AppendUint16(dst, h.CsumStart)
	return binary.NativeEndian.AppendUint16(dst, h.CsumOffset)
}
