package xfrm

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/node/datapath"
	"github.com/bailiwick-net/bailiwick/node/datapath/userspace"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// counter is one of the counters of Status that this process counts; what the kernel counts is added there. The names are
// those of the userspace backend.
type counter uint8

const (
	counterQueueFull counter = iota
	counterWaitedTooLong
	counterRefused
	counterReinjected
	counterBlocked
	counterUnparsed
	counterNotReady
	counterAcquire
	counterKeyAdditions
	counterKeyDeletions
	counterRekeys
	counterEventsLost
	counters
)

// String returns the name in Status.Counters.
func (c counter) String() string {
	return [counters]string{
		"packets_queue_full", "packets_waited_too_long", "packets_refused", "packets_reinjected", "packets_blocked_out",
		"packets_unparsed", "packets_not_ready", "total_acquire", "key_additions", "key_deletions", "rekeys", "events_lost",
	}[c]
}

// Status reports SAs, soft associations and counters: those of the kernel for the whole network namespace, whoever's IPsec
// they are about, and with "nft/" before their name those of the rules.
func (b *backend) Status() datapath.Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed {
		return b.mu.last
	}
	b.refreshLocked()
	return b.status()
}

func (b *backend) status() datapath.Status {
	s := datapath.Status{Backend: "xfrm", Notes: slices.Clone(b.mu.notes), Counters: map[string]uint64{}}

	s.Notes = append(s.Notes, b.offloadNotes()...)
	for _, name := range userspace.CounterNames() {
		s.Counters[name] = 0
	}
	for c := range counters {
		s.Counters[c.String()] = b.mu.counters[c]
	}
	failed, err := b.errors.read()
	if err != nil {
		s.Notes = append(s.Notes, err.Error())
	}
	for name, n := range failed {
		s.Counters[name] += n
	}
	for _, a := range b.mu.children {
		s.Children = append(s.Children, a.status())
		s.Counters["confidential_bytes_sent"] += a.out.octets
		s.Counters["confidential_bytes_received"] += a.in.octets
		mode := "transport"
		if a.child.Mode == sa.Tunnel {
			mode = "tunnel"
			s.Counters["active_tunnels"]++
		}
		s.Counters[mode+"_bytes_sent"] += a.out.octets
		s.Counters[mode+"_bytes_received"] += a.in.octets
		s.Counters["packets_sealed"] += a.out.packets
		s.Counters["packets_opened"] += a.in.packets
	}
	for key, until := range b.mu.soft {
		s.Soft = append(s.Soft, datapath.SoftStatus{Rule: key.rule, Local: key.local, Remote: key.remote, Expires: until})
	}
	flows, packets := b.mu.waiting.Count()
	s.Counters["packets_waiting"], s.Counters["flows_waiting"] = uint64(packets), uint64(flows)
	s.Counters["active_security_associations"] = uint64(len(b.mu.children))
	s.Counters["soft_associations"] = uint64(len(b.mu.soft))
	for name, n := range b.table.Counters() {
		s.Counters["nft/"+name] = n
	}
	return s
}

func (a *association) status() datapath.ChildStatus {
	c := a.child
	return datapath.ChildStatus{
		In: c.In.SPI, Out: c.Out.SPI, Rule: c.Rule, DefaultResponse: c.DefaultResponse, Peer: c.Peer, Mode: c.Mode,
		Suite: fmt.Sprint(c.Suite), Local: c.Local, Remote: c.Remote, LocalTS: c.LocalTS, RemoteTS: c.RemoteTS, Installed: a.installed,
		InPackets: a.in.packets, OutPackets: a.out.packets, InOctets: a.in.octets, OutOctets: a.out.octets,
		ReplayDropped: a.in.replayed, AuthFailed: a.in.failed, Current: a.switched && !a.dead && !a.replaced,
	}
}

// errorCounters reads what XFRM counts for the network namespace that they were opened in.
type errorCounters struct {
	file *os.File
	base map[string]uint64 // what was counted before
}

func openErrorCounters() (*errorCounters, error) {
	file, err := os.Open("/proc/thread-self/net/xfrm_stat")
	if errors.Is(err, os.ErrNotExist) {
		return &errorCounters{}, nil // CONFIG_XFRM_STATISTICS
	}
	if err != nil {
		return nil, fmt.Errorf("open the counters of XFRM: %w", err)
	}
	c := &errorCounters{file: file}
	c.base, err = c.read()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return c, nil
}

// badSPI counts ESP packets of no SA.
const badSPI = "bad_spi_packets"

// errorNames are the counters of the kernel (Documentation/networking/xfrm_proc.rst) by what they are here.
var errorNames = map[string]string{
	"XfrmInNoStates": badSPI, "XfrmInStateSeqError": "packets_replayed", "XfrmInStateProtoError": "packets_not_authenticated",
	"XfrmInHdrError": "packets_malformed", "XfrmInBufferError": "packets_malformed", "XfrmInError": "packets_malformed",
	"XfrmInStateMismatch": "packets_wrong_sa", "XfrmInTmplMismatch": "packets_wrong_sa", "XfrmInNoPols": "packets_wrong_sa",
	"XfrmInPolBlock": "packets_blocked_in_sa", "XfrmInStateExpired": "packets_expired_sa", "XfrmOutStateExpired": "packets_expired_sa",
	"XfrmOutError": "packets_seal_failed", "XfrmOutStateSeqError": "packets_seal_failed", "XfrmOutBundleGenError": "packets_send_failed",
	"XfrmOutPolDead": "packets_send_failed",
}

func (c *errorCounters) read() (map[string]uint64, error) {
	out := map[string]uint64{}
	if c.file == nil {
		return out, nil
	}
	if _, err := c.file.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read the counters of XFRM: %w", err)
	}
	lines := bufio.NewScanner(c.file)
	for lines.Scan() {
		fields := bytes.Fields(lines.Bytes())
		if len(fields) != 2 {
			continue
		}
		name, ok := errorNames[string(fields[0])]
		if n, err := strconv.ParseUint(string(fields[1]), 10, 64); ok && err == nil {
			out[name] += n
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the counters of XFRM: %w", err)
	}
	for name, n := range c.base {
		out[name] -= min(n, out[name])
	}
	return out, nil
}

func (c *errorCounters) close() error {
	if c.file == nil {
		return nil
	}
	return c.file.Close()
}

// routes asks the kernel for routes, in the network namespace that it was opened in.
type routes struct {
	mu struct {
		sync.Mutex
		conn *netlink.Conn
	}
}

func openRoutes() (*routes, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	r := &routes{}
	r.mu.conn = conn
	return r, nil
}

// lookup returns the own address that a packet of IKE to a destination gets, and the index of the device that it leaves by.
func (r *routes) lookup(to netip.Addr) (source netip.Addr, device int, err error) {
	head := make([]byte, 12) // struct rtmsg
	head[0], head[1] = byte(familyOf(to)), byte(to.BitLen())
	var attrs attributes
	attrs.add(unix.RTA_DST, to.AsSlice())
	attrs.addUint32(unix.RTA_MARK, userspace.MarkOwn)
	data, err := attrs.encode(head)
	if err != nil {
		return source, 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	replies, err := r.mu.conn.Execute(netlink.Message{Header: netlink.Header{Type: unix.RTM_GETROUTE, Flags: netlink.Request}, Data: data})
	if err != nil {
		return source, 0, fmt.Errorf("look up the route to %s: %w", to, err)
	}
	for _, m := range replies {
		if len(m.Data) < len(head) {
			continue
		}
		decoder, err := netlink.NewAttributeDecoder(m.Data[len(head):])
		if err != nil {
			continue
		}
		for decoder.Next() {
			switch decoder.Type() {
			case unix.RTA_PREFSRC:
				source, _ = netip.AddrFromSlice(decoder.Bytes())
			case unix.RTA_OIF:
				device = int(decoder.Uint32())
			}
		}
	}
	if !source.IsValid() {
		return source, device, fmt.Errorf("look up the route to %s: the kernel gives no source address", to)
	}
	return source, device, nil
}

func (r *routes) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.conn.Close()
}
