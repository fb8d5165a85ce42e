package strongswan

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
)

// traffic counts what a capture holds.
type traffic struct {
	ike, esp int
	// clear counts packets between the inner networks, markers those that hold payload in clear.
	clear, markers int
	// fragments count IKE messages with an Encrypted Fragment payload (RFC 7383).
	fragmentsSent, fragmentsReceived int
	// sent counts clear packets that the node sent, whatever the peer did.
	sent int
}

// look counts the frames.
func look(frames []lab.Frame) traffic {
	var w traffic
	for _, f := range frames {
		if len(f.Data) < 14+20 || binary.BigEndian.Uint16(f.Data[12:]) != 0x0800 {
			continue
		}
		packet := f.Data[14:]
		if bytes.Contains(packet, []byte("bailiwick-marker")) {
			w.markers++
		}
		source, destination := netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20]))
		inner := func(a netip.Addr) bool { return nodeNet.Contains(a) || peerNet.Contains(a) }
		if inner(source) || inner(destination) {
			w.clear++
			if f.Outgoing {
				w.sent++
			}
		}
		header := int(packet[0]&15) * 4
		if len(packet) < header+12 {
			continue
		}
		body := packet[header:]
		switch packet[9] {
		case 50:
			w.esp++
		case 17:
			w.udp(body, f.Outgoing)
		}
	}
	return w
}

// udp tells IKE from ESP in UDP by the marker (RFC 3948 2.2).
func (w *traffic) udp(body []byte, sent bool) {
	source, destination := binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:])
	message := body[8:]
	switch {
	case source == 4500 || destination == 4500:
		if len(message) < 4 || binary.BigEndian.Uint32(message) != 0 {
			w.esp++
			return
		}
		message = message[4:]
	case source != 500 && destination != 500:
		return
	}
	w.ike++
	const fragment = 53 // Encrypted and Authenticated Fragment
	if len(message) > 16 && message[16] == fragment {
		if sent {
			w.fragmentsSent++
		} else {
			w.fragmentsReceived++
		}
	}
}
