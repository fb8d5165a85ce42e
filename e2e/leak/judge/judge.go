package judge

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

// Kind says how something was in clear.
type Kind string

// The kinds of leaks.
const (
	// Clear is a packet of a protected flow.
	Clear Kind = "clear packet"
	// Fragment is one whose first fragment was not seen or was in clear.
	Fragment Kind = "clear fragment"
	// Quoted is one that an ICMP error repeats.
	Quoted Kind = "quoted by an ICMP error"
	// Tunnelled is one inside an IP packet.
	Tunnelled Kind = "inside another IP packet"
	// NotEncrypted is one inside ESP that does not encrypt.
	NotEncrypted Kind = "inside ESP without encryption"
	// Authenticated is one behind an Authentication Header, which hides nothing.
	Authenticated Kind = "behind AH"
	// Payload is the marker of protected traffic in whatever.
	Payload Kind = "payload of protected traffic"
)

// Leak is something that must not have been on the wire.
type Leak struct {
	Time   time.Time `json:"time"`
	Where  string    `json:"where,omitempty"` // the device that it was seen on
	Kind   Kind      `json:"kind"`
	Flow   string    `json:"flow,omitempty"` // of the statement
	Header string    `json:"header"`
	Hex    string    `json:"hex"` // the first octets of the frame
}

// String is one line for people.
func (l Leak) String() string {
	return fmt.Sprintf("%s %s: %s (%s): %s %s", l.Time.UTC().Format("15:04:05.000000"), l.Where, l.Kind, l.Flow, l.Header, l.Hex)
}

// Counts says what was seen: a wire on which there was nothing proves nothing.
type Counts struct {
	Frames    uint64 `json:"frames"`
	Octets    uint64 `json:"octets"`
	ESP       uint64 `json:"esp"`      // as IP protocol 50
	ESPinUDP  uint64 `json:"espInUDP"` // RFC 3948; several that the sender handed over as one count once
	IKE       uint64 `json:"ike"`
	KeepAlive uint64 `json:"keepAlive"`
	ARP       uint64 `json:"arp"`
	Neighbour uint64 `json:"neighbourDiscovery"` // with multicast listener discovery
	Errors    uint64 `json:"icmpErrors"`
	Fragments uint64 `json:"fragments"`
	Permitted uint64 `json:"permitted"`
	Canaries  uint64 `json:"canaries"`
	Injected  uint64 `json:"injected"`
	Multicast uint64 `json:"multicast"` // and broadcast
	Other     uint64 `json:"other"`     // of no flow of the statement
	Malformed uint64 `json:"malformed"`
	Leaks     uint64 `json:"leaks"`
	// Exchanges counts IKE messages by the type of the exchange (RFC 7296 3.1).
	Exchanges map[string]uint64 `json:"exchanges"`
	// LeakKinds counts leaks.
	LeakKinds map[Kind]uint64 `json:"leakKinds,omitempty"`
}

// Judge looks at frame after frame. Its methods are not to be called concurrently.
type Judge struct {
	statement Statement
	injectors map[[6]byte]bool
	counts    Counts
	others    []string
	now       time.Time
	expired   time.Time // when fragments were last looked through
	// firsts knows the first fragments, pending has others whose first one was not seen yet.
	firsts  map[fragmentKey]first
	pending map[fragmentKey][]Leak
}

type fragmentKey struct {
	src, dst netip.Addr
	protocol uint8
	id       uint32
}

type first struct {
	seen time.Time
	leak bool
}

const (
	fragmentLife  = 10 * time.Second // after which a fragment has no first one any more
	mostFragments = 1 << 14          // that are remembered
	mostOthers    = 32               // that are told
	hexOctets     = 96
)

// New makes a judge.
func New(s Statement) (*Judge, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	j := &Judge{
		statement: s, injectors: map[[6]byte]bool{}, firsts: map[fragmentKey]first{}, pending: map[fragmentKey][]Leak{},
		counts: Counts{Exchanges: map[string]uint64{}, LeakKinds: map[Kind]uint64{}},
	}
	for _, i := range s.Injectors {
		mac, err := net.ParseMAC(i)
		if err != nil || len(mac) != 6 {
			return nil, fmt.Errorf("injector %q of the statement is no Ethernet address: %w", i, err)
		}
		j.injectors[[6]byte(mac)] = true
	}
	return j, nil
}

// look is one frame under judgement.
type look struct {
	*Judge
	at    time.Time
	where string
	data  []byte
	leaks []Leak
}

// Observe judges one Ethernet frame that was seen on a device, and returns what must not have been in it.
func (j *Judge) Observe(at time.Time, where string, data []byte) []Leak {
	l := &look{Judge: j, at: at, where: where, data: data}
	if at.After(j.now) {
		j.now = at
	}
	j.counts.Frames++
	j.counts.Octets += uint64(len(data))
	f, err := parseFrame(data)
	switch {
	case err != nil:
		j.counts.Malformed++
	case j.injectors[f.source]:
		j.counts.Injected++
	case f.kind == typeARP:
		j.counts.ARP++
	case f.kind == typeIPv4 || f.kind == typeIPv6:
		l.outer(f.payload)
	default:
		j.counts.Other++
		l.other(fmt.Sprintf("Ethernet type 0x%04x", f.kind))
	}
	if j.statement.Canary != "" && bytes.Contains(data, []byte(j.statement.Canary)) {
		j.counts.Canaries++
	}
	for _, m := range j.statement.Markers {
		if len(l.leaks) == 0 && bytes.Contains(data, []byte(m)) {
			l.leak(Payload, "", describe(f.payload))
		}
	}
	return j.tell(append(l.leaks, j.expire()...))
}

// Finish returns what is left: fragments without a first one.
func (j *Judge) Finish() []Leak {
	j.now = j.now.Add(2 * fragmentLife)
	return j.tell(j.expire())
}

// Counts returns what was seen up to now.
func (j *Judge) Counts() Counts { return j.counts }

// Others describes some of the packets that belong to no flow of the statement.
func (j *Judge) Others() []string { return slices.Clone(j.others) }

func (j *Judge) tell(leaks []Leak) []Leak {
	j.counts.Leaks += uint64(len(leaks))
	for _, k := range leaks {
		j.counts.LeakKinds[k.Kind]++
	}
	return leaks
}

func describe(b []byte) string {
	p, err := parseIP(b)
	if err != nil {
		return "no IP packet: " + err.Error()
	}
	return p.String()
}

func (l *look) leak(kind Kind, flow, header string) {
	l.leaks = append(l.leaks, Leak{Time: l.at, Where: l.where, Kind: kind, Flow: flow, Header: header, Hex: hex.EncodeToString(l.data[:min(len(l.data), hexOctets)])})
}

func (l *look) other(what string) {
	if len(l.others) < mostOthers {
		l.others = append(l.others, what)
	}
}

// outer judges the IP packet of a frame.
func (l *look) outer(b []byte) {
	p, err := parseIP(b)
	if err != nil {
		l.counts.Malformed++
		// Somebody may read more of it than we do.
		l.protected(&p, Clear)
		return
	}
	if p.fragment {
		l.counts.Fragments++
		if p.offset > 0 && p.protocol != protocolESP {
			l.later(&p)
			return
		}
	}
	before := len(l.leaks)
	l.whole(&p)
	if p.fragment && p.protocol != protocolESP {
		l.begin(&p, len(l.leaks) > before)
	}
}

// whole judges a packet, or a first fragment.
func (l *look) whole(p *packet) {
	switch {
	case p.neighbour():
		l.counts.Neighbour++
	case p.dst.IsMulticast() || p.dst == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		l.counts.Multicast++
		l.protected(p, Clear)
	case p.ah:
		l.ordinary(p, Authenticated)
	case p.protocol == protocolESP:
		l.counts.ESP++
		l.esp(p.body)
	case p.protocol == protocolUDP && p.of(500):
		l.ike(p.body)
	case p.protocol == protocolUDP && p.of(4500):
		l.encapsulated(p)
	case p.protocol == protocolIPIP || p.protocol == protocolIPv6:
		if !l.inside(p.body, Tunnelled) {
			l.ordinary(p, Clear)
		}
	default:
		if quoted, is := p.icmpError(); is {
			l.icmpError(p, quoted)
			return
		}
		l.ordinary(p, Clear)
	}
}

func (p *packet) of(port uint16) bool {
	return p.portsKnown && (p.srcPort == port || p.dstPort == port)
}

// ordinary judges a packet by the statement.
func (l *look) ordinary(p *packet, kind Kind) {
	if l.permitted(p) {
		l.counts.Permitted++
		return
	}
	if !l.protected(p, kind) {
		l.counts.Other++
		l.other(p.String())
	}
}

// permitted reports whether a packet may go in clear. One whose ports nobody knows does not for the sake of its port.
func (j *Judge) permitted(p *packet) bool {
	return slices.ContainsFunc(j.statement.Permit, func(f Flow) bool { return f.has(p) && (f.Port == 0 || p.portsKnown) })
}

// protected tells a packet of a protected flow.
func (l *look) protected(p *packet, kind Kind) bool {
	for _, f := range l.statement.Protect {
		if f.has(p) {
			l.leak(kind, f.Name, p.String())
			return true
		}
	}
	return false
}

// clearFlow finds the flow of a packet that must not be read by others, if that is what octets are.
func (j *Judge) clearFlow(b []byte) (header, flow string, found bool) {
	p, err := parseIP(b)
	if err != nil || p.protocol == protocolESP || p.protocol == protocolUDP && (p.of(500) || p.of(4500)) {
		return "", "", false
	}
	if j.permitted(&p) {
		return "", "", false
	}
	for _, f := range j.statement.Protect {
		if f.has(&p) {
			return p.String(), f.Name, true
		}
	}
	return "", "", false
}

// inside judges a packet in a packet.
func (l *look) inside(b []byte, kind Kind) bool {
	header, flow, found := l.clearFlow(b)
	if found {
		l.leak(kind, flow, header)
	}
	return found
}

// icmpError judges an ICMP error. One about ESP or IKE reveals nothing, and has to get through (RFC 4301 6).
func (l *look) icmpError(p *packet, quoted []byte) {
	l.counts.Errors++
	if l.inside(quoted, Quoted) {
		return
	}
	about, err := parseIP(quoted)
	if err == nil && (about.protocol == protocolESP || about.protocol == protocolUDP && (about.of(500) || about.of(4500))) {
		return
	}
	l.ordinary(p, Clear)
}

// espHeader is the SPI and the sequence number (RFC 4303 2).
const espHeader = 8

// esp looks for an IP packet of a protected flow that is readable inside ESP, behind an initialization vector of 0, 8 or 16
// octets. Two addresses do not come out of encryption by chance. What transport mode carries is found by its marker.
func (l *look) esp(b []byte) {
	for _, iv := range []int{0, 8, 16} {
		if len(b) > espHeader+iv && l.inside(b[espHeader+iv:], NotEncrypted) {
			return
		}
	}
}

const udpHeader = 8

func (l *look) ike(udp []byte) {
	l.counts.IKE++
	if len(udp) < udpHeader {
		l.counts.Malformed++
		return
	}
	l.exchange(udp[udpHeader:])
}

func (l *look) exchange(b []byte) {
	if len(b) < 28 {
		l.counts.Malformed++
		return
	}
	name := map[byte]string{34: "IKE_SA_INIT", 35: "IKE_AUTH", 36: "CREATE_CHILD_SA", 37: "INFORMATIONAL", 43: "IKE_INTERMEDIATE"}[b[18]]
	if name == "" {
		name = fmt.Sprint(b[18])
	}
	if b[19]&0x20 == 0 { // the flag of a response (RFC 7296 3.1)
		name += " request"
	} else {
		name += " response"
	}
	l.counts.Exchanges[name]++
}

// encapsulated judges UDP on port 4500 (RFC 3948 2).
func (l *look) encapsulated(p *packet) {
	b := p.body[min(len(p.body), udpHeader):]
	switch {
	case len(b) == 1 && b[0] == 0xff:
		l.counts.KeepAlive++
	case len(b) < 4:
		l.counts.Malformed++
	case binary.BigEndian.Uint32(b) == 0: // the Non-ESP Marker
		l.counts.IKE++
		l.exchange(b[4:])
	default:
		l.counts.ESPinUDP++
		l.esp(b)
	}
}

func keyOf(p *packet) fragmentKey {
	return fragmentKey{src: p.src, dst: p.dst, protocol: p.protocol, id: p.id}
}

// begin remembers a first fragment, which decides about the others.
func (l *look) begin(p *packet, leak bool) {
	k := keyOf(p)
	if len(l.firsts) < mostFragments {
		l.firsts[k] = first{seen: l.at, leak: leak}
	}
	if !leak {
		delete(l.pending, k)
	}
}

// later judges a fragment other than the first.
func (l *look) later(p *packet) {
	k := keyOf(p)
	if f, known := l.firsts[k]; known && !f.leak {
		return
	}
	before := len(l.leaks)
	if !l.protected(p, Fragment) || l.firsts[k].leak {
		return
	}
	if len(l.pending) < mostFragments { // else it is told at once
		l.pending[k] = append(l.pending[k], l.leaks[before:]...)
		l.leaks = l.leaks[:before]
	}
}

// expire forgets old fragments, and returns those whose first fragment never came.
func (j *Judge) expire() (leaks []Leak) {
	if j.now.Sub(j.expired) < fragmentLife/10 {
		return nil
	}
	j.expired = j.now
	for k, f := range j.firsts {
		if j.now.Sub(f.seen) > fragmentLife {
			delete(j.firsts, k)
		}
	}
	for k, list := range j.pending {
		if j.now.Sub(list[0].Time) > fragmentLife {
			leaks = append(leaks, list...)
			delete(j.pending, k)
		}
	}
	return leaks
}
