package userspace

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// mtu returns the MTU of the interface that a packet between two addresses leaves by, or what the administrator gave the
// route. Path MTUs that routers report are not asked for: the "too big" messages of protected flows stand in the same
// cache, and the limit would shrink with each of them.
func (r *routing) mtu(local, remote netip.Addr) (int, error) {
	link, mtu, err := r.way(local, remote)
	if err != nil {
		return 0, err
	}
	device, err := r.linkMTU(link)
	if mtu > 0 && err == nil {
		return min(mtu, device), nil
	}
	return device, err
}

// way asks for the interface that packets leave by, and the MTU of the route; 0 where it has none of its own.
func (r *routing) way(local, remote netip.Addr) (link uint32, mtu int, err error) {
	const fibMatch = 0x2000 // RTM_F_FIB_MATCH: the route itself, without what is cached about a destination
	for _, flags := range []uint32{fibMatch, 0} {
		data := make([]byte, 12) // struct rtmsg
		data[0], data[1], data[2] = unix.AF_INET, 32, 32
		if remote.Is6() {
			data[0], data[1], data[2] = unix.AF_INET6, 128, 128
		}
		binary.NativeEndian.PutUint32(data[8:], flags)
		encoder := netlink.NewAttributeEncoder()
		encoder.Bytes(unix.RTA_DST, remote.AsSlice())
		encoder.Bytes(unix.RTA_SRC, local.AsSlice())
		encoder.Uint32(unix.RTA_MARK, MarkOwn)
		encoded, err := encoder.Encode()
		if err != nil {
			return 0, 0, fmt.Errorf("encode route lookup for %s: %w", remote, err)
		}
		r.mu.Lock()
		replies, err := r.mu.conn.Execute(netlink.Message{
			Header: netlink.Header{Type: unix.RTM_GETROUTE, Flags: netlink.Request}, Data: slices.Concat(data, encoded),
		})
		r.mu.Unlock()
		if err != nil {
			return 0, 0, fmt.Errorf("look up the route from %s to %s: %w", local, remote, err)
		}
		for _, m := range replies {
			l, n := readRoute(m.Data)
			link = max(link, l)
			if flags == fibMatch {
				mtu = n
			}
		}
		if link != 0 { // a route of several ways has no interface of its own
			return link, mtu, nil
		}
	}
	return 0, 0, fmt.Errorf("look up the route from %s to %s: the kernel names no interface", local, remote)
}

// readRoute returns interface and MTU of a route message; 0 for what it does not have.
func readRoute(b []byte) (link uint32, mtu int) {
	const header, metricMTU = 12, 2 // struct rtmsg, RTAX_MTU
	if len(b) < header {
		return 0, 0
	}
	attributes, err := netlink.NewAttributeDecoder(b[header:])
	if err != nil {
		return 0, 0
	}
	for attributes.Next() {
		switch attributes.Type() {
		case unix.RTA_OIF:
			link = attributes.Uint32()
		case unix.RTA_METRICS:
			metrics, err := netlink.NewAttributeDecoder(attributes.Bytes())
			for err == nil && metrics.Next() {
				if metrics.Type() == metricMTU {
					mtu = int(metrics.Uint32())
				}
			}
		}
	}
	return link, mtu
}

// linkMTU returns the MTU of an interface.
func (r *routing) linkMTU(index uint32) (int, error) {
	links, err := r.dump(unix.RTM_GETLINK, 16)
	if err != nil {
		return 0, err
	}
	for _, m := range links {
		if binary.NativeEndian.Uint32(m[4:]) != index {
			continue
		}
		attributes, err := netlink.NewAttributeDecoder(m[16:])
		if err != nil {
			continue
		}
		for attributes.Next() {
			if attributes.Type() == unix.IFLA_MTU {
				return int(attributes.Uint32()), nil
			}
		}
	}
	return 0, fmt.Errorf("find the MTU of interface %d: the kernel does not tell", index)
}
