package userspace

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Metrics of the two default routes of our table: the TUN, and behind it a route that refuses. The second outlives the
// TUN, so that marked packets of a dead process get an error instead of the main table.
const (
	metricTUN         = 1
	metricUnreachable = 0xfffffff0
)

// Attributes of linux/fib_rules.h that x/sys does not name.
const (
	fraFwMark   = 10
	fraPriority = 6
	fraTable    = 15
	fraFwMask   = 16
	fraIIFName  = 3
	fraGoto     = 4
)

// routing owns the policy routing of marked packets. It works in the network namespace that it was opened in.
type routing struct {
	mu struct {
		sync.Mutex
		conn *netlink.Conn
		made int // rules and routes that were not there before
	}
	table    uint32
	priority uint32
	device   string
	ipv6     bool
}

func openRouting(table, priority uint32, device string) (*routing, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	_, err = os.Stat("/proc/sys/net/ipv6")
	r := &routing{table: table, priority: priority, device: device, ipv6: err == nil}
	r.mu.conn = conn
	return r, nil
}

func (r *routing) families() []uint8 {
	if r.ipv6 {
		return []uint8{unix.AF_INET, unix.AF_INET6}
	}
	return []uint8{unix.AF_INET}
}

// install makes rules and routes; what is there already stays. The refusing route comes first, so that no marked packet
// ever falls through to the main table.
func (r *routing) install(device int) error {
	for _, family := range r.families() {
		if err := r.route(unix.RTM_NEWROUTE, family, 0); err != nil {
			return err
		}
		if err := r.route(unix.RTM_NEWROUTE, family, device); err != nil {
			return err
		}
		for _, rule := range r.rules() {
			if err := r.rule(unix.RTM_NEWRULE, family, rule); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *routing) release() error {
	var errs []error
	for _, family := range r.families() {
		for _, rule := range r.rules() {
			errs = append(errs, ignore(r.rule(unix.RTM_DELRULE, family, rule), unix.ENOENT))
		}
		errs = append(errs, ignore(r.route(unix.RTM_DELROUTE, family, 0), unix.ESRCH))
	}
	return errors.Join(errs...)
}

// routingRule selects packets by mark and, where it is set, by the interface that they came in on.
type routingRule struct {
	priority uint32
	mark     uint32
	from     string
	skip     bool // go on after the next rule; else use our table
}

// rules are in the order of their priority. The two for packets from the TUN are there for the reverse path filter: it
// asks for the route back to the source with the same mark, as if the packet had come in on the interface that it is
// about to leave by, and has to find the TUN. The forward route must not.
func (r *routing) rules() []routingRule {
	return []routingRule{
		{r.priority, MarkTunnel, r.device, true},
		{r.priority + 1, MarkTunnel, "", false},
		{r.priority + 2, MarkProtect, "", false},
	}
}

func (r *routing) rule(kind netlink.HeaderType, family uint8, rule routingRule) error {
	data := make([]byte, 12) // struct fib_rule_hdr
	data[0], data[4], data[7] = family, unix.RT_TABLE_UNSPEC, unix.FR_ACT_TO_TBL
	encoder := netlink.NewAttributeEncoder()
	encoder.Uint32(fraFwMark, rule.mark)
	encoder.Uint32(fraFwMask, MarkMask)
	encoder.Uint32(fraPriority, rule.priority)
	if rule.skip {
		data[7] = unix.FR_ACT_GOTO
		encoder.Uint32(fraGoto, rule.priority+2)
	} else {
		encoder.Uint32(fraTable, r.table)
	}
	if rule.from != "" {
		encoder.String(fraIIFName, rule.from)
	}
	what := fmt.Sprintf("policy routing rule %d for mark 0x%08x", rule.priority, rule.mark)
	return r.execute(kind, data, encoder, what)
}

// route is the default route of our table: through a device, or refusing with device 0.
func (r *routing) route(kind netlink.HeaderType, family uint8, device int) error {
	data := make([]byte, 12) // struct rtmsg
	data[0], data[4], data[5] = family, unix.RT_TABLE_UNSPEC, unix.RTPROT_STATIC
	data[6], data[7] = unix.RT_SCOPE_UNIVERSE, unix.RTN_UNREACHABLE
	metric := uint32(metricUnreachable)
	encoder := netlink.NewAttributeEncoder()
	encoder.Uint32(unix.RTA_TABLE, r.table)
	if device != 0 {
		data[6], data[7], metric = unix.RT_SCOPE_LINK, unix.RTN_UNICAST, metricTUN
		encoder.Uint32(unix.RTA_OIF, uint32(device))
	}
	encoder.Uint32(unix.RTA_PRIORITY, metric)
	return r.execute(kind, data, encoder, fmt.Sprintf("default route in table %d", r.table))
}

// made is the number of rules and routes that were made up to now.
func (r *routing) made() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.made
}

func (r *routing) execute(kind netlink.HeaderType, data []byte, attributes *netlink.AttributeEncoder, what string) error {
	encoded, err := attributes.Encode()
	if err != nil {
		return fmt.Errorf("encode %s: %w", what, err)
	}
	flags := netlink.Request | netlink.Acknowledge
	verb := "remove"
	if kind == unix.RTM_NEWRULE || kind == unix.RTM_NEWROUTE {
		flags |= netlink.Create | netlink.Excl
		verb = "add"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err = r.mu.conn.Execute(netlink.Message{Header: netlink.Header{Type: kind, Flags: flags}, Data: append(data, encoded...)})
	if err == nil && flags&netlink.Create != 0 {
		r.mu.made++
	}
	if err = ignore(err, unix.EEXIST); err != nil {
		return fmt.Errorf("%s %s: %w", verb, what, err)
	}
	return nil
}

// source asks the kernel which of the own addresses a packet to a destination gets.
func (r *routing) source(to netip.Addr) (netip.Addr, error) {
	data := make([]byte, 12) // struct rtmsg
	data[0], data[1] = unix.AF_INET, 32
	if to.Is6() {
		data[0], data[1] = unix.AF_INET6, 128
	}
	encoder := netlink.NewAttributeEncoder()
	encoder.Bytes(unix.RTA_DST, to.AsSlice())
	encoder.Uint32(unix.RTA_MARK, MarkOwn)
	encoded, err := encoder.Encode()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("encode route lookup for %s: %w", to, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	replies, err := r.mu.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETROUTE, Flags: netlink.Request}, Data: slices.Concat(data, encoded),
	})
	if err != nil {
		return netip.Addr{}, fmt.Errorf("look up the route to %s: %w", to, err)
	}
	for _, m := range replies {
		if len(m.Data) < 12 {
			continue
		}
		attributes, err := netlink.NewAttributeDecoder(m.Data[12:])
		if err != nil {
			continue
		}
		for attributes.Next() {
			if attributes.Type() == unix.RTA_PREFSRC {
				if a, ok := netip.AddrFromSlice(attributes.Bytes()); ok {
					return a, nil
				}
			}
		}
	}
	return netip.Addr{}, fmt.Errorf("look up the route to %s: the kernel gives no source address", to)
}

func (r *routing) dump(kind netlink.HeaderType, header int) ([][]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	replies, err := r.mu.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request | netlink.Dump}, Data: make([]byte, header),
	})
	if err != nil {
		return nil, fmt.Errorf("list interfaces and addresses: %w", err)
	}
	var out [][]byte
	for _, m := range replies {
		if len(m.Data) >= header {
			out = append(out, m.Data)
		}
	}
	return out, nil
}

func (r *routing) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.conn.Close()
}

// ignore returns nil for an expected error.
func ignore(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

// prepareDevice sets what the TUN needs, and nothing of other interfaces. It returns a note for each value that could
// not be set.
//
//	rp_filter 0         the kernel takes the greater one of this and net.ipv4.conf.all; with 1 or 2 there,
//	src_valid_mark 1    makes the filter use the mark that the prerouting chain sets, and find the TUN
//	forwarding          stays as the administrator set it
//	accept_ra 0         nobody on the TUN is a router
func prepareDevice(name string) (notes []string) {
	if _, err := net.InterfaceByName(name); err != nil {
		return []string{fmt.Sprintf("interface %s: %v", name, err)}
	}
	escaped := strings.ReplaceAll(name, ".", "/")
	for _, s := range []struct{ path, value string }{
		{"ipv4/conf/" + escaped + "/rp_filter", "0"},
		{"ipv4/conf/" + escaped + "/src_valid_mark", "1"},
		{"ipv4/conf/" + escaped + "/accept_redirects", "0"},
		{"ipv6/conf/" + escaped + "/accept_ra", "0"},
	} {
		err := os.WriteFile(filepath.Join("/proc/sys/net", s.path), []byte(s.value), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			notes = append(notes, fmt.Sprintf("net.%s could not be set to %s: %v", strings.ReplaceAll(s.path, "/", "."), s.value, err))
		}
	}
	return notes
}
