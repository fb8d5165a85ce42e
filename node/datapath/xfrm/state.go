package xfrm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/node/sa"
)

// replay is the state of sequence numbers, an xfrm_replay_state_esn.
type replay struct {
	out, in uint64 // last one sent, highest one received
	window  uint32
	bitmap  []uint32
}

// state is one SA of the kernel.
type state struct {
	spi            sa.SPI
	source, target netip.Addr
	reqid          uint32
	mode           sa.Mode
	selector       selector
	encap          bool
	sport, dport   uint16 // of UDP
	esn            bool
	replay         replay
	transform      transform
	key            sa.Keys
	set            mark // of the packets that it makes
	soft, hard     sa.Limits
	packets, bytes uint64
	added          uint64 // when it began to count, in seconds since 1970; 0 is now
	late, seen     uint32 // dropped: left of the window, seen before
	failed         uint32 // dropped: not authentic
	used           time.Time
	offload        int // index of the device that does the work, 0 for none
}

func (s *state) encode() ([]byte, error) {
	b := s.selector.append(make([]byte, 0, 512))
	b = appendAddress(b, s.target)
	b = binary.BigEndian.AppendUint32(b, uint32(s.spi))
	b = append(b, unix.IPPROTO_ESP, 0, 0, 0)
	b = appendAddress(b, s.source)
	b = appendLimits(b, s.soft, s.hard)
	b = native.AppendUint64(b, s.bytes)
	b = native.AppendUint64(b, s.packets)
	b = native.AppendUint64(b, s.added)
	b = append(b, make([]byte, 8)...)  // when it was used first
	b = append(b, make([]byte, 12)...) // statistics
	b = native.AppendUint32(b, 0)
	b = native.AppendUint32(b, s.reqid)
	b = native.AppendUint16(b, familyOf(s.target))
	flags := byte(0)
	if s.esn {
		flags |= stateESN
	}
	if s.selector == (selector{}) {
		flags |= stateAnyFamily
	}
	b = append(b, kernelMode(s.mode), 0, flags)
	b = append(b, make([]byte, stateLen-len(b))...)
	var attrs attributes
	if err := s.transform.add(&attrs, s.key); err != nil {
		return nil, fmt.Errorf("encode SA %s: %w", s.spi, err)
	}
	if s.encap {
		e := native.AppendUint16(nil, encapESPInUDP)
		e = binary.BigEndian.AppendUint16(e, s.sport)
		e = binary.BigEndian.AppendUint16(e, s.dport)
		attrs.add(attrEncap, append(e, make([]byte, 18)...))
	}
	attrs.add(attrESN, s.replay.encode())
	attrs.addUint32(attrSetMark, s.set.value)
	attrs.addUint32(attrSetMask, s.set.mask)
	if s.added != 0 { // it goes on counting
		var life []byte
		for _, v := range []uint64{s.bytes, s.packets, s.added, s.added} {
			life = native.AppendUint64(life, v)
		}
		attrs.add(attrLifetime, life)
	}
	if s.offload != 0 {
		const inbound = 2
		flag := byte(0)
		if s.set.value != ownMark.value {
			flag = inbound
		}
		attrs.add(attrOffload, append(native.AppendUint32(nil, uint32(s.offload)), flag, 0, 0, 0))
	}
	return attrs.encode(b)
}

func kernelMode(m sa.Mode) byte {
	if m == sa.Tunnel {
		return 1
	}
	return 0
}

func (r replay) encode() []byte {
	words := (r.window + 31) / 32
	var b []byte
	for _, v := range []uint32{words, uint32(r.out), uint32(r.in), uint32(r.out >> 32), uint32(r.in >> 32), r.window} {
		b = native.AppendUint32(b, v)
	}
	for i := range words {
		v := uint32(0)
		if int(i) < len(r.bitmap) {
			v = r.bitmap[i]
		}
		b = native.AppendUint32(b, v)
	}
	return b
}

func parseReplay(b []byte) (replay, bool) {
	const header = 24
	if len(b) < header {
		return replay{}, false
	}
	words := native.Uint32(b)
	r := replay{
		out: uint64(native.Uint32(b[12:]))<<32 | uint64(native.Uint32(b[4:])), in: uint64(native.Uint32(b[16:]))<<32 | uint64(native.Uint32(b[8:])),
		window: native.Uint32(b[20:]),
	}
	if uint64(len(b)) < header+4*uint64(words) {
		return replay{}, false
	}
	for i := range words {
		r.bitmap = append(r.bitmap, native.Uint32(b[header+4*i:]))
	}
	return r, true
}

const unlimited = ^uint64(0)

func limit(v uint64) uint64 {
	if v == 0 {
		return unlimited
	}
	return v
}

// seconds rounds up: the backend itself ends an SA in time, the kernel where there is none.
func seconds(d time.Duration) uint64 { return uint64((d + time.Second - 1) / time.Second) }

func appendLimits(b []byte, soft, hard sa.Limits) []byte {
	for _, v := range []uint64{
		limit(soft.Bytes), limit(hard.Bytes), limit(soft.Packets), limit(hard.Packets), seconds(soft.Time), seconds(hard.Time), 0, 0,
	} {
		b = native.AppendUint64(b, v)
	}
	return b
}

func parseState(b []byte) (state, error) {
	if len(b) < stateLen {
		return state{}, fmt.Errorf("SA of %d octets from the kernel is shorter than %d", len(b), stateLen)
	}
	return parseStateParts(b[:stateLen], b[stateLen:])
}

// parseDeleted reads a message that tells of a deleted SA: what named it, and in an attribute what it was.
func parseDeleted(b []byte) (state, error) {
	if len(b) < stateIDLen {
		return state{}, fmt.Errorf("deleted SA of %d octets from the kernel is shorter than %d", len(b), stateIDLen)
	}
	decoder, err := netlink.NewAttributeDecoder(b[stateIDLen:])
	if err != nil {
		return state{}, err
	}
	for decoder.Next() {
		if v := decoder.Bytes(); decoder.Type() == attrSA && len(v) >= stateLen {
			return parseStateParts(v, b[stateIDLen:])
		}
	}
	return state{}, errors.Join(errors.New("the kernel does not say what a deleted SA was"), decoder.Err())
}

func parseStateParts(b, attributes []byte) (state, error) {
	family := native.Uint16(b[212:])
	if family != unix.AF_INET && family != unix.AF_INET6 {
		return state{}, fmt.Errorf("SA of address family %d from the kernel", family)
	}
	s := state{
		selector: parseSelector(b), target: addressOf(b[selectorLen:], family), spi: sa.SPI(binary.BigEndian.Uint32(b[72:])),
		source: addressOf(b[80:], family), bytes: native.Uint64(b[160:]), packets: native.Uint64(b[168:]), added: native.Uint64(b[176:]),
		late: native.Uint32(b[192:]), seen: native.Uint32(b[196:]), failed: native.Uint32(b[200:]), reqid: native.Uint32(b[208:]),
		mode: sa.Transport, esn: b[216]&stateESN != 0,
	}
	if b[214] == 1 {
		s.mode = sa.Tunnel
	}
	decoder, err := netlink.NewAttributeDecoder(attributes)
	if err != nil {
		return s, err
	}
	for decoder.Next() {
		v := decoder.Bytes()
		switch decoder.Type() {
		case attrEncap:
			if len(v) >= 6 && native.Uint16(v) == encapESPInUDP {
				s.encap, s.sport, s.dport = true, binary.BigEndian.Uint16(v[2:]), binary.BigEndian.Uint16(v[4:])
			}
		case attrESN:
			if r, ok := parseReplay(v); ok {
				s.replay = r
			}
		case attrSetMark:
			s.set.value = decoder.Uint32()
		case attrSetMask:
			s.set.mask = decoder.Uint32()
		case attrLastUsed:
			s.used = time.Unix(int64(decoder.Uint64()), 0)
		case attrAEAD, attrCrypt, attrAuthTrunc:
			s.transform.parse(decoder.Type(), v)
		case attrOffload:
			if len(v) >= 4 {
				s.offload = int(native.Uint32(v))
			}
		}
	}
	return s, decoder.Err()
}
