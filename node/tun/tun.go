// Package tun owns the TUN device of the userspace datapath: its queues with virtio-net headers, the splitting of the
// super-packets the kernel hands out, and the coalescing of what is written back.
//
// Its invariant: every packet that leaves a Splitter is complete, with right checksums, and no longer than the
// kernel asked for; every packet that enters a Writer reaches the kernel in the order of its flow. It leaves routing and
// firewall rules to the datapath, and what the packets mean to node/packet.
package tun

import "net/netip"

// Sizes in octets.
const (
	HeaderLen  = 10 // virtio-net header before every packet
	MaxPacket  = 65535
	BufferSize = HeaderLen + MaxPacket + 64 // of a read buffer: header, packet, and room that esp.Seal borrows
	GSOMaxSize = 60900                      // longest super-packet whose ESP packets still fit one sendmsg (65507 octets)
)

// Offload is a set of segmentation offloads.
type Offload uint8

// The offloads.
const (
	OffloadChecksum Offload = 1 << iota
	OffloadTSO4
	OffloadTSO6
	OffloadUSO
)

// Config describes a device to make.
type Config struct {
	Name       string // may hold %d
	MTU        int
	Queues     int // 0 is 1
	GSOMaxSize int // 0 is GSOMaxSize
	TxQueueLen int // 0 leaves the kernel's
	NoOffload  bool
	Addresses  []netip.Prefix
}

// Header is the virtio-net header.
type Header struct {
	Flags      uint8
	GSOType    uint8
	HdrLen     uint16
	GSOSize    uint16
	CsumStart  uint16
	CsumOffset uint16
}
