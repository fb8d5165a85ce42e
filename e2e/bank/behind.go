package bank

import (
	"errors"
	"net/netip"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
)

// Behind adds a host behind a machine, on a link of its own ("in0" at the machine, "eth0" at the host), and makes the
// machine its gateway. Each network has the address of the machine and then that of the host.
func (b *Bank) Behind(m Machine, name string, networks ...[2]netip.Prefix) (*lab.Host, error) {
	gateway := b.Host(m)
	host, err := b.lab.Host(name)
	if err != nil {
		return nil, err
	}
	ends := [2]lab.End{{Host: gateway, Device: "in0"}, {Host: host, Device: "eth0"}}
	for _, n := range networks {
		for i := range ends {
			ends[i].Addresses = append(ends[i].Addresses, n[i])
		}
	}
	if err := b.lab.Link(ends[0], ends[1]); err != nil {
		return nil, err
	}
	for _, n := range networks {
		family := "-4"
		if n[0].Addr().Is6() {
			family = "-6"
		}
		if _, err := host.Run("ip", family, "route", "add", "default", "via", n[0].Addr().String()); err != nil {
			return nil, err
		}
	}
	return host, errors.Join(gateway.Sysctl("net.ipv4.ip_forward", "1"), gateway.Sysctl("net.ipv6.conf.all.forwarding", "1"))
}
