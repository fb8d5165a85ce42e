package lab

import (
	"fmt"
	"net/netip"
)

// End is one end of a link: the device that the host gets, and its addresses.
type End struct {
	Host      *Host
	Device    string
	Addresses []netip.Prefix
}

// Link joins two hosts by a pair of virtual Ethernet devices, which are up when it returns.
func (l *Lab) Link(a, b End) error {
	err := ip("link", "add", a.Device, "netns", a.Host.Namespace, "type", "veth", "peer", "name", b.Device, "netns", b.Host.Namespace)
	if err != nil {
		return err
	}
	for _, e := range []End{a, b} {
		if err := ip("-n", e.Host.Namespace, "link", "set", e.Device, "up"); err != nil {
			return err
		}
		for _, address := range e.Addresses {
			if err := e.Host.AddAddress(e.Device, address); err != nil {
				return err
			}
		}
	}
	return nil
}

// Bridge is an Ethernet switch in a namespace of its own.
type Bridge struct {
	Host *Host // where the bridge lives; the device is "br0"
	lab  *Lab
	port int
}

// Bridge adds a switch.
func (l *Lab) Bridge(name string) (*Bridge, error) {
	h, err := l.Host(name)
	if err != nil {
		return nil, err
	}
	for _, args := range [][]string{
		{"link", "add", "br0", "type", "bridge", "forward_delay", "0", "stp_state", "0"},
		{"link", "set", "br0", "up"},
	} {
		if err := ip(append([]string{"-n", h.Namespace}, args...)...); err != nil {
			return nil, err
		}
	}
	return &Bridge{Host: h, lab: l}, nil
}

// Attach joins a host to the switch. It is not to be called concurrently.
func (b *Bridge) Attach(e End) error {
	port := fmt.Sprintf("p%d", b.port)
	b.port++
	if err := b.lab.Link(End{Host: b.Host, Device: port}, e); err != nil {
		return err
	}
	return ip("-n", b.Host.Namespace, "link", "set", port, "master", "br0")
}
