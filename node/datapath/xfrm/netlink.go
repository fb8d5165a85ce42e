package xfrm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/node/sa"
)

// Of linux/xfrm.h, what x/sys does not name.
const (
	msgNewSA     = 0x10
	msgDelSA     = 0x11
	msgGetSA     = 0x12
	msgNewPolicy = 0x13
	msgDelPolicy = 0x14
	msgGetPolicy = 0x15
	msgExpire    = 0x18
	msgUpdPolicy = 0x19
	msgUpdSA     = 0x1a
	msgFlushSA   = 0x1c
	msgFlushPol  = 0x1d
	msgMapping   = 0x26

	attrCrypt     = 2
	attrEncap     = 4
	attrTmpl      = 5
	attrLastUsed  = 15
	attrAEAD      = 18
	attrAuthTrunc = 20
	attrMark      = 21
	attrESN       = 23
	attrOffload   = 28
	attrSetMark   = 29
	attrSetMask   = 30

	groupExpire  = 2
	groupSA      = 3
	groupPolicy  = 4
	groupMapping = 8

	stateAnyFamily = 32 // XFRM_STATE_AF_UNSPEC: of inner packets
	stateESN       = 128

	dirIn, dirOut, dirForward = 0, 1, 2

	actionAllow, actionBlock = 0, 1

	selectorLen = 56
	stateLen    = 224
	stateIDLen  = 24
	policyLen   = 168
	policyIDLen = 64
	tmplLen     = 64

	encapESPInUDP = 2 // RFC 3948
)

// kernel is the netlink socket of XFRM, of the network namespace that it was opened in.
type kernel struct {
	port uint32 // changes that come from it are our own
	mu   struct {
		sync.Mutex
		conn *netlink.Conn
	}
}

func openKernel() (*kernel, error) {
	conn, err := netlink.Dial(unix.NETLINK_XFRM, nil)
	if err != nil {
		return nil, fmt.Errorf("open the netlink socket of XFRM: %w", err)
	}
	k := &kernel{port: conn.PID()}
	k.mu.conn = conn
	return k, nil
}

func (k *kernel) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mu.conn.Close()
}

func (k *kernel) execute(kind netlink.HeaderType, flags netlink.HeaderFlags, data []byte) ([]netlink.Message, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mu.conn.Execute(netlink.Message{Header: netlink.Header{Type: kind, Flags: netlink.Request | flags}, Data: data})
}

var native = binary.NativeEndian

// appendAddress appends an xfrm_address_t.
func appendAddress(b []byte, a netip.Addr) []byte {
	var room [16]byte
	if a.IsValid() {
		copy(room[:], a.AsSlice())
	}
	return append(b, room[:]...)
}

func addressOf(b []byte, family uint16) netip.Addr {
	if family == unix.AF_INET6 {
		return netip.AddrFrom16([16]byte(b[:16]))
	}
	return netip.AddrFrom4([4]byte(b[:4]))
}

func familyOf(a netip.Addr) uint16 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// attributes collects the attributes of a message.
type attributes []netlink.Attribute

func (a *attributes) add(kind uint16, data []byte) {
	*a = append(*a, netlink.Attribute{Type: kind, Data: data})
}

func (a *attributes) addUint32(kind uint16, v uint32) { a.add(kind, native.AppendUint32(nil, v)) }

func (a attributes) encode(head []byte) ([]byte, error) {
	encoded, err := netlink.MarshalAttributes(a)
	return append(head, encoded...), err
}

// selector is an xfrm_selector: what it describes, prefixes and ports under a mask. It is comparable.
type selector struct {
	source, destination                        netip.Prefix
	protocol                                   uint8
	sourcePort, sourceMask, destPort, destMask uint16
}

func (s selector) append(b []byte) []byte {
	b = appendAddress(b, s.destination.Addr())
	b = appendAddress(b, s.source.Addr())
	for _, v := range []uint16{s.destPort, s.destMask, s.sourcePort, s.sourceMask} {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	family := uint16(0)
	if s.source.IsValid() {
		family = familyOf(s.source.Addr())
	}
	b = native.AppendUint16(b, family)
	b = append(b, uint8(max(s.destination.Bits(), 0)), uint8(max(s.source.Bits(), 0)), s.protocol, 0, 0, 0)
	return append(b, make([]byte, 8)...) // any interface, any user
}

func parseSelector(b []byte) selector {
	family := native.Uint16(b[40:])
	if family != unix.AF_INET && family != unix.AF_INET6 {
		return selector{}
	}
	return selector{
		destination: netip.PrefixFrom(addressOf(b, family), int(b[42])), source: netip.PrefixFrom(addressOf(b[16:], family), int(b[43])), protocol: b[44],
		destPort: binary.BigEndian.Uint16(b[32:]), destMask: binary.BigEndian.Uint16(b[34:]),
		sourcePort: binary.BigEndian.Uint16(b[36:]), sourceMask: binary.BigEndian.Uint16(b[38:]),
	}
}

// mark is an xfrm_mark: what to compare or to set, and the bits of it.
type mark struct{ value, mask uint32 }

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
	late, seen     uint32 // dropped: left of the window, seen before
	failed         uint32 // dropped: not authentic
	used           time.Time
	offload        int // index of the device that does the work, 0 for none
}

// addState installs an SA, or replaces what one of the same address and SPI has and an update can change.
func (k *kernel) addState(s state, update bool) error {
	data, err := s.encode()
	if err != nil {
		return err
	}
	kind, verb := netlink.HeaderType(msgNewSA), "install"
	if update {
		kind, verb = msgUpdSA, "update"
	}
	if _, err := k.execute(kind, netlink.Acknowledge, data); err != nil {
		return fmt.Errorf("%s SA %s to %s in the kernel: %w", verb, s.spi, s.target, explain(err))
	}
	return nil
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
	b = append(b, make([]byte, 16)...) // times
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
	family := native.Uint16(b[212:])
	if family != unix.AF_INET && family != unix.AF_INET6 {
		return state{}, fmt.Errorf("SA of address family %d from the kernel", family)
	}
	s := state{
		selector: parseSelector(b), target: addressOf(b[selectorLen:], family), spi: sa.SPI(binary.BigEndian.Uint32(b[72:])),
		source: addressOf(b[80:], family), bytes: native.Uint64(b[160:]), packets: native.Uint64(b[168:]),
		late: native.Uint32(b[192:]), seen: native.Uint32(b[196:]), failed: native.Uint32(b[200:]), reqid: native.Uint32(b[208:]),
		mode: sa.Transport, esn: b[216]&stateESN != 0,
	}
	if b[214] == 1 {
		s.mode = sa.Tunnel
	}
	decoder, err := netlink.NewAttributeDecoder(b[stateLen:])
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

func stateID(target netip.Addr, spi sa.SPI) []byte {
	b := appendAddress(nil, target)
	b = binary.BigEndian.AppendUint32(b, uint32(spi))
	b = native.AppendUint16(b, familyOf(target))
	return append(b, unix.IPPROTO_ESP, 0)
}

// getState reads an SA as the kernel has it; errNoState where it has none.
func (k *kernel) getState(target netip.Addr, spi sa.SPI) (state, error) {
	replies, err := k.execute(msgGetSA, 0, stateID(target, spi))
	if errors.Is(err, unix.ESRCH) {
		return state{}, errNoState
	}
	if err != nil {
		return state{}, fmt.Errorf("read SA %s to %s: %w", spi, target, err)
	}
	if len(replies) != 1 {
		return state{}, fmt.Errorf("read SA %s to %s: the kernel answers with %d messages", spi, target, len(replies))
	}
	return parseState(replies[0].Data)
}

var errNoState = errors.New("the kernel has no such SA")

// deleteState deletes an SA; one that is not there is no error.
func (k *kernel) deleteState(target netip.Addr, spi sa.SPI) error {
	_, err := k.execute(msgDelSA, netlink.Acknowledge, stateID(target, spi))
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("delete SA %s to %s: %w", spi, target, err)
	}
	return nil
}

// states are all SAs of ESP in the kernel.
func (k *kernel) states() ([]state, error) {
	replies, err := k.execute(msgGetSA, netlink.Dump, make([]byte, stateIDLen))
	if err != nil {
		return nil, fmt.Errorf("list the SAs of the kernel: %w", err)
	}
	var out []state
	for _, m := range replies {
		if len(m.Data) < stateLen || m.Data[76] != unix.IPPROTO_ESP {
			continue
		}
		s, err := parseState(m.Data)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// explain says what an error of the kernel means to somebody who did not write it.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EPROTO):
		return fmt.Errorf("the kernel has no ESP (CONFIG_INET_ESP, CONFIG_INET6_ESP): %w", err)
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("the kernel lacks the algorithm: %w", err)
	}
	return err
}
