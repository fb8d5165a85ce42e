package userspace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// repairPause keeps two programs from fighting over policy routing as fast as they can.
const repairPause = 50 * time.Millisecond

// routingWatch tells when another program takes away what steers marked packets into the TUN. Nothing leaks without it, and
// nothing passes either: the rules drop marked packets on every other way.
type routingWatch struct{ conn *netlink.Conn }

// watchRouting watches in the network namespace of the calling thread.
func watchRouting() (*routingWatch, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("open the rtnetlink socket that watches policy routing: %w", err)
	}
	for _, group := range []uint32{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE} {
		if err := conn.JoinGroup(group); err != nil {
			return nil, errors.Join(fmt.Errorf("watch policy routing: %w", err), conn.Close())
		}
	}
	return &routingWatch{conn}, nil
}

// lost waits until something of ours is gone; false means that the watch is closed.
func (w *routingWatch) lost(r *routing) bool {
	for {
		messages, err := w.conn.Receive()
		if errors.Is(err, unix.ENOBUFS) { // notifications were lost, and one of them may have been about us
			return true
		}
		if err != nil {
			return false
		}
		if slices.ContainsFunc(messages, r.loses) {
			return true
		}
	}
}

// loses reports whether a notification says that a rule or route of ours is gone or that the TUN is down, which takes its
// routes along.
func (r *routing) loses(m netlink.Message) bool {
	switch kind := uint16(m.Header.Type); kind {
	case unix.RTM_DELROUTE:
		return attributeIs(m.Data, 12, unix.RTA_TABLE, func(table uint32) bool { return table == r.table }) // after struct rtmsg
	case unix.RTM_DELRULE:
		return attributeIs(m.Data, 12, fraPriority, func(priority uint32) bool { // after struct fib_rule_hdr
			return slices.ContainsFunc(r.rules(), func(rule routingRule) bool { return rule.priority == priority })
		})
	case unix.RTM_NEWLINK:
		const header, flags = 16, 8 // struct ifinfomsg
		if len(m.Data) < header || binary.NativeEndian.Uint32(m.Data[flags:])&unix.IFF_UP != 0 {
			return false
		}
		attributes, err := netlink.NewAttributeDecoder(m.Data[header:])
		for err == nil && attributes.Next() {
			if attributes.Type() == unix.IFLA_IFNAME {
				return attributes.String() == r.device
			}
		}
	}
	return false
}

// attributeIs reports whether the number in an attribute behind a header is wanted.
func attributeIs(b []byte, header int, kind uint16, wanted func(uint32) bool) bool {
	if len(b) < header {
		return false
	}
	attributes, err := netlink.NewAttributeDecoder(b[header:])
	for err == nil && attributes.Next() {
		if attributes.Type() == kind && len(attributes.Bytes()) == 4 {
			return wanted(attributes.Uint32())
		}
	}
	return false
}

// keepRouting runs until the watch is closed, and puts back what others take away.
func (b *backend) keepRouting() {
	defer close(b.kept)
	for b.lost.lost(b.routing) {
		before := b.routing.made()
		err := b.reroute()
		switch {
		case errors.Is(err, errClosed):
			return
		case errors.Is(err, unix.ENODEV): // the TUN is gone: what comes with the next one is made then
		case err != nil:
			b.cfg.Logger.Error("policy routing was changed by another program and cannot be restored", "device", b.cfg.Name, "error", err)
		case b.routing.made() != before: // else the news was old, as that of a TUN before it came up
			b.cfg.Logger.Warn("policy routing was changed by another program and is restored", "device", b.cfg.Name)
		}
		<-time.After(repairPause)
	}
}

func (b *backend) reroute() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed {
		return errClosed
	}
	if err := b.home.do(b.device.Up); err != nil {
		return err
	}
	return b.routing.install(b.device.Index())
}
