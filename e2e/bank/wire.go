package bank

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
)

// evidence counts the frames between two machines: IKE, ESP, and TCP of the port, with and without the payload.
func evidence(frames []lab.Frame, a, b netip.Addr, port uint16, payload []byte) Evidence {
	var e Evidence
	for _, f := range frames {
		src, dst, protocol, body, ok := ipPacket(f.Data)
		if !ok || (src != a || dst != b) && (src != b || dst != a) {
			continue
		}
		switch protocol {
		case 50:
			e.ESP++
		case 17:
			countUDP(&e, body)
		case 6:
			if len(body) >= 20 && (binary.BigEndian.Uint16(body) == port || binary.BigEndian.Uint16(body[2:]) == port) {
				e.ClearTCP++
			}
		}
		if bytes.Contains(body, payload) {
			e.ClearPayload++
		}
	}
	return e
}

// countUDP tells IKE from ESP in UDP by the marker (RFC 3948 2.2).
func countUDP(e *Evidence, body []byte) {
	if len(body) < 8+4 {
		return
	}
	source, destination := binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:])
	switch {
	case source == 500 || destination == 500:
		e.IKE++
	case source != 4500 && destination != 4500:
	case binary.BigEndian.Uint32(body[8:]) == 0:
		e.IKE++
	default:
		e.ESP++
	}
}

// ipPacket finds the addresses, the protocol and what follows the IP header in an Ethernet frame.
func ipPacket(frame []byte) (src, dst netip.Addr, protocol byte, body []byte, ok bool) {
	if len(frame) < 14 {
		return
	}
	packet := frame[14:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x0800:
		if len(packet) < 20 {
			return
		}
		header := int(packet[0]&15) * 4
		if header < 20 || len(packet) < header {
			return
		}
		return netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20])), packet[9], packet[header:], true
	case 0x86dd:
		if len(packet) < 40 {
			return
		}
		return netip.AddrFrom16([16]byte(packet[8:24])), netip.AddrFrom16([16]byte(packet[24:40])), packet[6], packet[40:], true
	}
	return
}
