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
	attrSA        = 6
	attrLifetime  = 9
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
		last *netlink.Conn // where take hears what an SA was in the end
	}
}

func openKernel() (*kernel, error) {
	conn, err := netlink.Dial(unix.NETLINK_XFRM, nil)
	if err != nil {
		return nil, fmt.Errorf("open the netlink socket of XFRM: %w", err)
	}
	last, err := netlink.Dial(unix.NETLINK_XFRM, nil)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the second netlink socket of XFRM: %w", err), conn.Close())
	}
	k := &kernel{port: conn.PID()}
	k.mu.conn, k.mu.last = conn, last
	return k, nil
}

func (k *kernel) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return errors.Join(k.mu.conn.Close(), k.mu.last.Close())
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

// takePatience bounds the wait for a message that the kernel has sent before.
const takePatience = time.Second

// take deletes an SA and returns what it was in the end: no packet gets a sequence number of it any more, and none is
// accepted. Reading it first would not tell what it does until it is gone.
func (k *kernel) take(target netip.Addr, spi sa.SPI) (s state, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer func() {
		if err != nil {
			err = fmt.Errorf("take SA %s to %s out of the kernel: %w", spi, target, err)
		}
	}()
	if err := k.mu.last.JoinGroup(groupSA); err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, k.mu.last.LeaveGroup(groupSA)) }()
	_, err = k.mu.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: msgDelSA, Flags: netlink.Request | netlink.Acknowledge}, Data: stateID(target, spi),
	})
	if err == nil {
		err = k.mu.last.SetReadDeadline(time.Now().Add(takePatience))
	}
	for err == nil {
		var messages []netlink.Message
		messages, err = k.mu.last.Receive()
		for _, m := range messages {
			if m.Header.Type != msgDelSA || m.Header.PID != k.port {
				continue
			}
			if s, err := parseDeleted(m.Data); err != nil || s.spi == spi && s.target == target {
				return s, err
			}
		}
	}
	return s, err
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
