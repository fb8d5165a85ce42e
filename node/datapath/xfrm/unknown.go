package xfrm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/node/transport"
)

// The kernel counts ESP of an SPI that nobody has, and says neither which it was nor where it came from, which IKE tells
// the sender (RFC 7296 1.5). So when it has counted some, a tap listens for a while to what arrives: whoever sends to an SA
// that is not here goes on doing so. At other times the tap costs nothing.

// listenFor is how long the tap listens after the kernel has counted a packet.
const listenFor = 2 * time.Second

// Bounds of the tap.
const (
	tapSnap    = 96      // octets of a packet: IP header with options, UDP header, SPI
	tapBuffer  = 1 << 18 // of the socket, in octets: what does not fit between two ticks is not looked at
	tapPackets = 4096    // looked at in one tick
)

// nowhere is an EtherType that no packet has (IEEE 802 local experimental 1): with it the tap hears nothing.
const nowhere = 0x88b5

// tap hears ESP that arrives, in the network namespace that it was opened in: a socket for each version of IP.
type tap struct {
	sockets   []tapSocket
	listening bool
	until     time.Time
	counted   uint64 // packets of unknown SPIs that were counted when it was looked at last
}

type tapSocket struct {
	fd   int
	kind uint16 // EtherType
}

// heardESP is the begin of an ESP packet that arrived.
type heardESP struct {
	spi           sa.SPI
	local, remote netip.AddrPort
	octets        int
}

func openTap() (*tap, error) {
	t := &tap{}
	for _, kind := range []uint16{unix.ETH_P_IP, unix.ETH_P_IPV6} {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err == nil {
			t.sockets = append(t.sockets, tapSocket{fd, kind})
			err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, tapBuffer), setFilter(fd, kind))
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open the tap for ESP of unknown SPIs: %w", err), t.close())
		}
	}
	return t, nil
}

// setFilter has a socket hear the begin of what is ESP, or UDP to the port that ESP goes to.
func setFilter(fd int, kind uint16) error {
	const (
		loadByte   = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS
		loadLength = unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH // of an IPv4 header
		loadPort   = unix.BPF_LD | unix.BPF_H | unix.BPF_IND
		setIndex   = unix.BPF_LDX | unix.BPF_IMM
		equal      = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		end        = unix.BPF_RET | unix.BPF_K
	)
	protocolAt, header := uint32(9), unix.SockFilter{Code: loadLength, K: 0}
	if kind == unix.ETH_P_IPV6 {
		protocolAt, header = 6, unix.SockFilter{Code: setIndex, K: ipv6Header}
	}
	program := []unix.SockFilter{
		{Code: loadByte, K: protocolAt},
		{Code: equal, K: unix.IPPROTO_ESP, Jt: 4},
		{Code: equal, K: unix.IPPROTO_UDP, Jf: 4},
		header,
		{Code: loadPort, K: 2},
		{Code: equal, K: transport.DefaultNATPort, Jf: 1},
		{Code: end, K: tapSnap},
		{Code: end, K: 0},
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}

const (
	ipv6Header = 40
	udpHeader  = 8
)

// bind begins to listen, or ends it.
func (t *tap) bind(listen bool) error {
	var errs []error
	for _, s := range t.sockets {
		kind := uint16(nowhere)
		if listen {
			kind = s.kind
		}
		errs = append(errs, unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, kind))}))
	}
	t.listening = listen
	return errors.Join(errs...)
}

// heard calls f for what has arrived since the last call, until f has enough.
func (t *tap) heard(f func(heardESP) (enough bool)) {
	var b [tapSnap]byte
	for _, s := range t.sockets {
		for range tapPackets {
			n, from, err := unix.Recvfrom(s.fd, b[:], 0)
			if err != nil {
				break // there is no more
			}
			link, ok := from.(*unix.SockaddrLinklayer)
			if !ok || link.Pkttype != unix.PACKET_HOST {
				continue
			}
			if p, ok := parseESP(b[:n], s.kind); ok && f(p) {
				return
			}
		}
	}
}

// parseESP reads the begin of an IP packet.
func parseESP(b []byte, kind uint16) (p heardESP, ok bool) {
	var source, target netip.Addr
	var length, header int
	var protocol byte
	switch {
	case kind == unix.ETH_P_IP && len(b) >= 20:
		const fragments = 0x1fff
		if binary.BigEndian.Uint16(b[6:])&fragments != 0 {
			return p, false
		}
		header, protocol, length = int(b[0]&0xf)*4, b[9], int(binary.BigEndian.Uint16(b[2:]))
		source, target = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
	case kind == unix.ETH_P_IPV6 && len(b) >= ipv6Header:
		header, protocol, length = ipv6Header, b[6], ipv6Header+int(binary.BigEndian.Uint16(b[4:]))
		source, target = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
	default:
		return p, false
	}
	var from, to uint16
	if protocol == unix.IPPROTO_UDP && len(b) >= header+udpHeader {
		from, to = binary.BigEndian.Uint16(b[header:]), binary.BigEndian.Uint16(b[header+2:])
		header += udpHeader
	} else if protocol != unix.IPPROTO_ESP {
		return p, false
	}
	const least = 8 // SPI and sequence number
	if len(b) < header+least || length < header+least {
		return p, false
	}
	p = heardESP{
		spi: sa.SPI(binary.BigEndian.Uint32(b[header:])), local: netip.AddrPortFrom(target, to), remote: netip.AddrPortFrom(source, from),
		octets: length - header,
	}
	return p, p.spi != 0 // 0 is the marker of IKE (RFC 3948 2.2)
}

func (t *tap) close() error {
	var errs []error
	for _, s := range t.sockets {
		errs = append(errs, unix.Close(s.fd))
	}
	return errors.Join(errs...)
}

// listen reports ESP of an unknown SPI to IKE, one packet each time that it is called.
func (b *backend) listen(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed {
		return
	}
	counts, err := b.errors.read()
	if err != nil {
		b.warn("cannot tell whether ESP of unknown SPIs comes", err)
		return
	}
	if n := counts[badSPI]; n != b.tap.counted {
		b.tap.counted, b.tap.until = n, now.Add(listenFor)
	}
	if b.tap.listening {
		b.tap.heard(func(p heardESP) bool {
			return b.isUnknown(p) && b.emit(ike.UnknownESP{SPI: p.spi, Local: p.local, Remote: p.remote, Octets: p.octets})
		})
	}
	if wanted := now.Before(b.tap.until); wanted != b.tap.listening {
		b.warn("cannot listen to ESP of unknown SPIs", b.tap.bind(wanted))
	}
}

// isUnknown reports whether nobody has the SA that a packet is for: neither this process nor another one.
func (b *backend) isUnknown(p heardESP) bool {
	if b.mu.children[p.spi] != nil {
		return false
	}
	_, err := b.kernel.getState(p.local.Addr(), p.spi)
	return errors.Is(err, errNoState)
}
