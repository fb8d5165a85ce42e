package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"
)

// forged stands in every forged packet, again and again.
const forged = "forged "

// forgedPayload is what the intruder sends: long enough for a record, and never with a proof.
func forgedPayload(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = forged[i%len(forged)]
	}
	return b
}

// intrude has the intruder send forged packets of one machine to the other, in clear, until the context ends, and talk to
// both under its own name.
func (w *world) intrude(ctx context.Context) error {
	var socket int
	err := w.intruder.host.Do(func() error {
		nic, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		if socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Bind(socket, &unix.SockaddrLinklayer{Ifindex: nic.Index})
	})
	if err != nil {
		return fmt.Errorf("open the intruder's socket: %w", err)
	}
	w.running.Go(func() {
		defer unix.Close(socket)
		id := uint32(0)
		each(ctx, 100*time.Millisecond, func() {
			id++
			for at := range 2 * len(w.pairs) {
				pair, to := w.pairs[at/2], at%2
				for family := range pair[to].address {
					frames, err := w.forge(pair[1-to], pair[to], family, id)
					for _, f := range frames {
						_, _ = unix.Write(socket, f) // what a full queue drops is sent the next time
					}
					if err != nil {
						w.accepted.add("forger", err.Error(), nil) // it cannot happen, and must not be silent
					}
				}
			}
		})
	})
	for _, s := range w.nodes {
		for family := range s.address {
			c := caller{ctx: ctx, world: w, host: w.intruder.host, from: w.intruder.address[family], to: s.address[family]}
			w.running.Go(func() { c.trespass() })
		}
	}
	return nil
}

// trespass connects and sends datagrams under the intruder's own name.
func (c caller) trespass() {
	each(c.ctx, 300*time.Millisecond, func() {
		if conn, err := c.dial("tcp", tcpPort); err == nil {
			_, _ = conn.Write(forgedPayload(recordSize))
			_ = conn.Close()
		}
		if conn, err := c.dial("udp", udpPort); err == nil {
			_, _ = conn.Write(forgedPayload(smallSize))
			_ = conn.Close()
		}
	})
}

// forge makes frames that claim to be from one machine to another: datagrams, whole and in fragments, a SYN, an echo request
// and an echo reply.
func (w *world) forge(from, to *station, family int, id uint32) (frames [][]byte, err error) {
	src, dst := from.address[family], to.address[family]
	add := func(protocol layers.IPProtocol, above ...gopacket.SerializableLayer) {
		b, e := serialized(network(src, dst, protocol, uint16(id)), above...)
		if e != nil {
			err = e
			return
		}
		frames = append(frames, w.framed(to, family, b))
	}
	payload := gopacket.Payload(forgedPayload(smallSize))
	add(layers.IPProtocolUDP, &layers.UDP{SrcPort: udpPort, DstPort: udpPort}, payload)
	add(layers.IPProtocolUDP, &layers.UDP{SrcPort: layers.UDPPort(40000 + id%20000), DstPort: udpPort}, payload)
	add(layers.IPProtocolTCP, &layers.TCP{SrcPort: forgedPort, DstPort: tcpPort, SYN: true, Seq: id, Window: 65535})
	add(layers.IPProtocolTCP, &layers.TCP{SrcPort: forgedPort, DstPort: tcpPort, ACK: true, PSH: true, Seq: id, Ack: id, Window: 65535}, payload)
	if family == 0 {
		add(layers.IPProtocolICMPv4, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(echoRequest4, 0), Seq: uint16(id)}, payload)
		add(layers.IPProtocolICMPv4, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(echoReply4, 0), Seq: uint16(id)}, payload)
	} else {
		echo := func(kind uint8) {
			add(layers.IPProtocolICMPv6, &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)},
				gopacket.Payload(append([]byte{0, 0, byte(id >> 8), byte(id)}, payload...)))
		}
		echo(echoRequest6)
		echo(echoReply6)
	}
	// One datagram in two fragments.
	whole, e := serialized(network(src, dst, layers.IPProtocolUDP, 0), &layers.UDP{SrcPort: udpPort, DstPort: udpPort}, gopacket.Payload(forgedPayload(1000)))
	if e != nil {
		return frames, e
	}
	for _, b := range cut(whole, family, id) {
		frames = append(frames, w.framed(to, family, b))
	}
	return frames, err
}

// ipHeader is an IP header that others compute checksums over.
type ipHeader interface {
	gopacket.SerializableLayer
	gopacket.NetworkLayer
}

func network(src, dst netip.Addr, protocol layers.IPProtocol, id uint16) ipHeader {
	if src.Is4() {
		return &layers.IPv4{Version: 4, TTL: 64, Id: id, Protocol: protocol, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	}
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: protocol, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
}

func serialized(ip ipHeader, above ...gopacket.SerializableLayer) ([]byte, error) {
	list := []gopacket.SerializableLayer{ip}
	for _, l := range above {
		if c, ok := l.(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			if err := c.SetNetworkLayerForChecksum(ip); err != nil {
				return nil, err
			}
		}
		list = append(list, l)
	}
	b := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, list...)
	return b.Bytes(), err
}

// framed puts an Ethernet header of the intruder before an IP packet.
func (w *world) framed(to *station, family int, b []byte) []byte {
	kind := [2]uint16{0x0800, 0x86dd}[family]
	f := append(append([]byte(nil), to.mac...), w.intruder.mac...)
	return append(binary.BigEndian.AppendUint16(f, kind), b...)
}

// cut makes two fragments of a packet.
func cut(b []byte, family int, id uint32) [2][]byte {
	const first = 512
	var out [2][]byte
	for i := range out {
		from, to, more := 0, first, uint16(1)
		if i == 1 {
			from, more = first, 0
		}
		if family == 0 {
			body := b[20:]
			if i == 1 {
				to = len(body)
			}
			h := append([]byte(nil), b[:20]...)
			binary.BigEndian.PutUint16(h[2:], uint16(20+to-from))
			binary.BigEndian.PutUint16(h[4:], uint16(id))
			binary.BigEndian.PutUint16(h[6:], more<<13|uint16(from/8))
			h[10], h[11] = 0, 0
			binary.BigEndian.PutUint16(h[10:], checksum(h))
			out[i] = append(h, body[from:to]...)
			continue
		}
		body := b[40:]
		if i == 1 {
			to = len(body)
		}
		h := append([]byte(nil), b[:40]...)
		binary.BigEndian.PutUint16(h[4:], uint16(8+to-from))
		h = append(h, h[6], 0)
		h[6] = 44
		h = binary.BigEndian.AppendUint16(h, uint16(from)|more)
		h = binary.BigEndian.AppendUint32(h, id)
		out[i] = append(h, body[from:to]...)
	}
	return out
}
