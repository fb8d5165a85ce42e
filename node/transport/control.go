package transport

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// controlSize holds packet information, traffic class, hop limit and segment size in either direction.
const controlSize = 128

// controlBuffer is room for the ancillary data of one message, aligned as the kernel wants it.
type controlBuffer struct {
	_      [0]uint64
	octets [controlSize]byte
}

// build fills the buffer for a send on a socket of a family, from local (the zero Addr for any), with a traffic class and
// a hop limit (0 leaves the default) and UDP_SEGMENT (0 for none). The result is valid until the next call.
func (c *controlBuffer) build(v6 bool, local netip.Addr, class, hops uint8, segment int) []byte {
	b := c.octets[:0]
	switch {
	case !local.IsValid():
	case local.Is4():
		a := local.As4()
		var data []byte
		b, data = extend(b, unix.SOL_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		copy(data[4:8], a[:]) // ipi_spec_dst
	default:
		a := local.As16()
		var data []byte
		b, data = extend(b, unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
		copy(data, a[:])
	}
	if class != 0 {
		var data []byte
		if v6 {
			b, data = extend(b, unix.SOL_IPV6, unix.IPV6_TCLASS, 4)
		} else {
			b, data = extend(b, unix.SOL_IP, unix.IP_TOS, 4)
		}
		binary.NativeEndian.PutUint32(data, uint32(class))
	}
	if hops != 0 {
		var data []byte
		if v6 {
			b, data = extend(b, unix.SOL_IPV6, unix.IPV6_HOPLIMIT, 4)
		} else {
			b, data = extend(b, unix.SOL_IP, unix.IP_TTL, 4)
		}
		binary.NativeEndian.PutUint32(data, uint32(hops))
	}
	if segment != 0 {
		var data []byte
		b, data = extend(b, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 2)
		binary.NativeEndian.PutUint16(data, uint16(segment))
	}
	return b
}

// extend adds one control message with zeroed data of n octets to b, which has the capacity.
func extend(b []byte, level, kind int32, n int) (all, data []byte) {
	at := len(b)
	b = b[:at+unix.CmsgSpace(n)]
	clear(b[at:])
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[at]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(n))
	return b, b[at+unix.CmsgLen(0) : at+unix.CmsgLen(n)]
}

// received is what the ancillary data of a datagram told.
type received struct {
	local   netip.Addr
	class   uint8
	hops    uint8
	segment int
}

// parseControl reads the ancillary data of a received datagram. What it does not know it skips.
func parseControl(b []byte) received {
	var r received
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		size := int(h.Len)
		if size < unix.CmsgLen(0) || size > len(b) {
			return r
		}
		data := b[unix.CmsgLen(0):size]
		switch {
		case h.Level == unix.SOL_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			r.local = netip.AddrFrom4([4]byte(data[8:12])) // ipi_addr: the destination of the packet
		case h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			r.local = netip.AddrFrom16([16]byte(data[:16]))
		case h.Level == unix.SOL_IP && h.Type == unix.IP_TOS && len(data) >= 1:
			r.class = data[0]
		case h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_TCLASS && len(data) >= 4:
			r.class = uint8(binary.NativeEndian.Uint32(data))
		case h.Level == unix.SOL_IP && h.Type == unix.IP_TTL && len(data) >= 4,
			h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_HOPLIMIT && len(data) >= 4:
			r.hops = uint8(binary.NativeEndian.Uint32(data))
		case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			r.segment = int(binary.NativeEndian.Uint32(data))
		}
		b = b[min(unix.CmsgSpace(size-unix.CmsgLen(0)), len(b)):]
	}
	return r
}
