package tun

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Attributes of linux/if_link.h that x/sys does not name.
const (
	iflaGSOMaxSize   = 41
	iflaInet6AddrGen = 8
	in6AddrGenNone   = 1
	kernelGSOMaxSize = 65536
	ifInfoMsgLen     = 16
)

// configure sets limits and addresses and brings the device up.
func (d *Device) configure(cfg Config) error {
	device, err := net.InterfaceByName(d.name)
	if err != nil {
		return fmt.Errorf("find TUN %q: %w", d.name, err)
	}
	d.index = device.Index
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return fmt.Errorf("open rtnetlink: %w", err)
	}
	defer conn.Close()

	err = d.setLink(conn, "GSO limit", 0, func(a *netlink.AttributeEncoder) {
		a.Uint32(iflaGSOMaxSize, uint32(cfg.GSOMaxSize))
	})
	d.gsoMaxSize = cfg.GSOMaxSize
	if err != nil {
		d.gsoMaxSize = kernelGSOMaxSize // before Linux 4.16; the sender splits what is longer
	}
	// Without an address of its own the device sends no router solicitations and no multicast reports, which would be
	// taken for traffic to protect.
	err = d.setLink(conn, "address generation", 0, func(a *netlink.AttributeEncoder) {
		a.Nested(unix.IFLA_AF_SPEC, func(families *netlink.AttributeEncoder) error {
			families.Nested(unix.AF_INET6, func(inet6 *netlink.AttributeEncoder) error {
				inet6.Uint8(iflaInet6AddrGen, in6AddrGenNone)
				return nil
			})
			return nil
		})
	})
	if err != nil && ipv6Available() {
		return err
	}
	if cfg.MTU != 0 {
		if err := d.setMTU(conn, cfg.MTU); err != nil {
			return err
		}
	}
	if cfg.TxQueueLen != 0 {
		err := d.setLink(conn, fmt.Sprintf("queue length %d", cfg.TxQueueLen), 0, func(a *netlink.AttributeEncoder) {
			a.Uint32(unix.IFLA_TXQLEN, uint32(cfg.TxQueueLen))
		})
		if err != nil {
			return err
		}
	}
	for _, p := range cfg.Addresses {
		if err := d.addAddress(conn, p); err != nil {
			return err
		}
	}
	return d.setLink(conn, "state up", unix.IFF_UP, nil)
}

// SetMTU changes the MTU of the device, in octets.
func (d *Device) SetMTU(mtu int) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return fmt.Errorf("open rtnetlink: %w", err)
	}
	defer conn.Close()
	return d.setMTU(conn, mtu)
}

// Up brings the device up, should somebody have taken it down. Like SetMTU it has to be called in the network namespace of
// the device.
func (d *Device) Up() error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return fmt.Errorf("open rtnetlink: %w", err)
	}
	defer conn.Close()
	return d.setLink(conn, "state up", unix.IFF_UP, nil)
}

func (d *Device) setMTU(conn *netlink.Conn, mtu int) error {
	return d.setLink(conn, fmt.Sprintf("MTU %d", mtu), 0, func(a *netlink.AttributeEncoder) {
		a.Uint32(unix.IFLA_MTU, uint32(mtu))
	})
}

// setLink sends one RTM_NEWLINK for the device: flags to set, and attributes.
func (d *Device) setLink(conn *netlink.Conn, what string, flags uint32, attributes func(*netlink.AttributeEncoder)) error {
	data := make([]byte, ifInfoMsgLen) // struct ifinfomsg
	binary.NativeEndian.PutUint32(data[4:], uint32(d.index))
	binary.NativeEndian.PutUint32(data[8:], flags)
	binary.NativeEndian.PutUint32(data[12:], flags) // mask
	if attributes != nil {
		encoder := netlink.NewAttributeEncoder()
		attributes(encoder)
		encoded, err := encoder.Encode()
		if err != nil {
			return fmt.Errorf("encode %s of TUN %q: %w", what, d.name, err)
		}
		data = slices.Concat(data, encoded)
	}
	request := netlink.Message{
		Header: netlink.Header{Type: unix.RTM_NEWLINK, Flags: netlink.Request | netlink.Acknowledge}, Data: data,
	}
	if _, err := conn.Execute(request); err != nil {
		return fmt.Errorf("set %s of TUN %q: %w", what, d.name, err)
	}
	return nil
}

func (d *Device) addAddress(conn *netlink.Conn, p netip.Prefix) error {
	data := make([]byte, 8) // struct ifaddrmsg
	data[0], data[1] = unix.AF_INET6, byte(p.Bits())
	if p.Addr().Is4() {
		data[0] = unix.AF_INET
	} else {
		data[2] = unix.IFA_F_NODAD // nobody else is on this link
	}
	binary.NativeEndian.PutUint32(data[4:], uint32(d.index))
	encoder := netlink.NewAttributeEncoder()
	encoder.Bytes(unix.IFA_LOCAL, p.Addr().AsSlice())
	encoder.Bytes(unix.IFA_ADDRESS, p.Addr().AsSlice())
	encoded, err := encoder.Encode()
	if err != nil {
		return fmt.Errorf("encode address %s of TUN %q: %w", p, d.name, err)
	}
	request := netlink.Message{
		Header: netlink.Header{
			Type: unix.RTM_NEWADDR, Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Replace,
		},
		Data: slices.Concat(data, encoded),
	}
	if _, err := conn.Execute(request); err != nil {
		return fmt.Errorf("add address %s to TUN %q: %w", p, d.name, err)
	}
	return nil
}

// ipv6Available reports whether the kernel has IPv6 at all.
func ipv6Available() bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	_ = unix.Close(fd)
	return true
}
