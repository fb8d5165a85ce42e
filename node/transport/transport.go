// Package transport owns the sockets under IKE and ESP: UDP 500 and 4500, raw ESP, the non-ESP marker between them, and
// batched input and output with segmentation offload.
//
// Its invariant: every datagram is told apart by port and marker exactly as RFC 3948 2 and RFC 7296 2.23 say, the local
// address of each is known, an answer leaves from it, and no flood on one kind of traffic blocks another: what does
// not fit a bounded queue is dropped and counted. It leaves what the octets mean to node/ike and node/esp.
package transport

import "net/netip"

// Config describes the sockets.
type Config struct {
	Mark          uint32 // SO_MARK of every socket, so that policy routing lets their traffic pass; 0 sets none
	IKEPort       uint16 // 0 is 500
	NATPort       uint16 // 0 is 4500
	Queues        int    // sockets for as many packet threads, 1 to MaxQueues; 0 is 1
	NoIPv4        bool
	NoIPv6        bool
	NoRawESP      bool // without IP protocol 50
	NoOffload     bool // without UDP_SEGMENT and UDP_GRO
	ReceiveBuffer int  // octets; 0 is 4 MiB
	SendBuffer    int  // octets; 0 is 4 MiB
	IKEQueue      int  // IKE messages waiting in each lane; 0 is 4096
	// KernelESP leaves IP protocol 50 and ESP in UDP to the kernel's IPsec (UDP_ENCAP). It implies IKEOnly, NoRawESP and
	// NoOffload.
	KernelESP bool
	IKEOnly   bool // nobody calls ReceiveESP: a goroutine reads NATPort for IKE and drops the rest
}

// Datagram is what one receive call gave: one ESP packet, or several of the same length from the same peer that the
// kernel joined (UDP_GRO). Walk it with Next.
type Datagram struct {
	Local, Remote netip.AddrPort
	Encap         bool  // UDP; else IP protocol 50, and the ports are 0
	TrafficClass  uint8 // of the outer header
	HopLimit      uint8 // of the outer header
	Buffer        []byte
	start, end    int
	segment       int
	sockets       *Sockets
}

// Message is one or more ESP packets to the same peer: Payload cut in pieces of SegmentLen, the last may be shorter.
type Message struct {
	Local, Remote netip.AddrPort // Local may be the zero value: the kernel chooses
	Encap         bool
	TrafficClass  uint8
	HopLimit      uint8 // 0 leaves the default
	Payload       []byte
	SegmentLen    int  // 0: Payload is one packet
	MayFragment   bool // IP may fragment the outer packet where it exceeds the path MTU, instead of ErrTooBig
}
