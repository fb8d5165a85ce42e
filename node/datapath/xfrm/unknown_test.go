package xfrm

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// espPacket is the begin of an IP packet with ESP, in UDP or not.
func espPacket(kind uint16, encap bool, spi uint32) []byte {
	var body []byte
	protocol := byte(unix.IPPROTO_ESP)
	if encap {
		protocol = unix.IPPROTO_UDP
		body = []byte{0x30, 0x39, 0x11, 0x94, 0, 0, 0, 0} // from 12345 to 4500
	}
	body = append(binary.BigEndian.AppendUint32(body, spi), 0, 0, 0, 1)
	var b []byte
	if kind == unix.ETH_P_IP {
		b = make([]byte, 24) // with options
		b[0], b[9] = 0x46, protocol
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)+len(body)+100))
		copy(b[12:], []byte{192, 0, 2, 1, 192, 0, 2, 2})
	} else {
		b = make([]byte, ipv6Header)
		b[0], b[6] = 0x60, protocol
		binary.BigEndian.PutUint16(b[4:], uint16(len(body)+100))
		b[23], b[39] = 1, 2
	}
	return slices.Concat(b, body)
}

func TestESPIsRecognised(t *testing.T) {
	for _, kind := range []uint16{unix.ETH_P_IP, unix.ETH_P_IPV6} {
		for _, encap := range []bool{false, true} {
			b := espPacket(kind, encap, 0xabcdef01)
			got, ok := parseESP(b, kind)
			want := heardESP{spi: 0xabcdef01, octets: 108}
			local, remote := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.1")
			if kind == unix.ETH_P_IPV6 {
				local, remote = netip.MustParseAddr("::2"), netip.MustParseAddr("::1")
			}
			ports := [2]uint16{}
			if encap {
				ports = [2]uint16{4500, 12345}
			}
			want.local, want.remote = netip.AddrPortFrom(local, ports[0]), netip.AddrPortFrom(remote, ports[1])
			if !ok || got != want {
				t.Errorf("kind %#x, encap %v: read %+v (%v), want %+v", kind, encap, got, ok, want)
			}
			for n := range b {
				if _, ok := parseESP(b[:n], kind); ok {
					t.Errorf("kind %#x, encap %v: %d of %d octets are enough", kind, encap, n, len(b))
				}
			}
			if _, ok := parseESP(espPacket(kind, encap, 0), kind); ok {
				t.Errorf("kind %#x, encap %v: the marker of IKE is an SPI", kind, encap)
			}
		}
	}
	later := espPacket(unix.ETH_P_IP, false, 0xabcdef01)
	later[7] = 1
	if _, ok := parseESP(later, unix.ETH_P_IP); ok {
		t.Error("a later fragment has an SPI")
	}
}

func FuzzESPIsRecognised(f *testing.F) {
	for _, kind := range []uint16{unix.ETH_P_IP, unix.ETH_P_IPV6} {
		for _, encap := range []bool{false, true} {
			f.Add(espPacket(kind, encap, 0xabcdef01), kind)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, kind uint16) {
		if p, ok := parseESP(b, kind); ok && (p.spi == 0 || p.octets < 8 || !p.local.Addr().IsValid() || !p.remote.Addr().IsValid()) {
			t.Errorf("read %+v", p)
		}
	})
}
