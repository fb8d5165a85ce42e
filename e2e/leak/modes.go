package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/e2e/leak/judge"
)

// mode is how the machines protect what is between them.
type mode string

const (
	transport mode = "transport" // transport mode, ESP in UDP
	native    mode = "native"    // transport mode, ESP as an IP protocol of its own
	tunnel    mode = "tunnel"    // hosts behind the machines as well, which forward what they send: tunnel mode, ESP in UDP
)

func modes() []mode { return []mode{transport, native, tunnel} }

// parseModes reads what -mode takes.
func parseModes(s string) ([]mode, error) {
	if s == "all" {
		return modes(), nil
	}
	for _, m := range modes() {
		if s == string(m) {
			return []mode{m}, nil
		}
	}
	return nil, fmt.Errorf("there is no mode %q; write transport, native, tunnel or all", s)
}

// nodeArgs are the arguments of the nodes.
func (m mode) nodeArgs() []string {
	if m == native {
		return []string{"--encapsulation", "nat"}
	}
	return nil
}

// seen are the packets that must have been on the wire, and those that must not.
func (m mode) seen(c judge.Counts) (want, never uint64) {
	if m == native {
		return c.ESP, c.ESPinUDP
	}
	return c.ESPinUDP, c.ESP
}

// inner are the networks behind the machines: the gateway's address in each, and the host's.
func inner(i int) [2][2]netip.Prefix {
	return [2][2]netip.Prefix{
		{netip.MustParsePrefix(fmt.Sprintf("10.84.%d.1/24", i+1)), netip.MustParsePrefix(fmt.Sprintf("10.84.%d.2/24", i+1))},
		{netip.MustParsePrefix(fmt.Sprintf("fd84:%d::1/64", i+1)), netip.MustParsePrefix(fmt.Sprintf("fd84:%d::2/64", i+1))},
	}
}

// addHosts puts a host behind each machine. Who sends to one of them on the wire has to send to its gateway. Without a
// policy the gateways forward in clear.
func (w *world) addHosts() error {
	var hosts [2]*station
	for i, gateway := range w.nodes {
		networks := inner(i)
		name := fmt.Sprintf("behind%d", i+1)
		host, err := w.bank.Behind(gateway.Machine, name, networks[:]...)
		if err != nil {
			return err
		}
		s := &station{host: host, mac: gateway.mac}
		s.Name = name
		for family := range s.address {
			s.address[family] = networks[family][1].Addr()
			if err := w.routes(gateway, family); err != nil {
				return err
			}
		}
		if err := host.Sysctl("net.ipv4.tcp_synack_retries", "0"); err != nil {
			return err
		}
		hosts[i] = s
	}
	w.pairs = append(w.pairs, hosts)
	return nil
}

// routes gives a gateway its way to the hosts behind the other one, which goes with its address: what is not steered into
// the tunnel has a way into the clear.
func (w *world) routes(s *station, family int) error {
	if w.mode != tunnel {
		return nil
	}
	i := slices.Index(w.nodes[:], s)
	far := inner(1 - i)[family][0].Masked().String()
	_, err := s.host.Run("ip", []string{"-4", "-6"}[family], "route", "replace", far, "via", w.nodes[1-i].address[family].String())
	return err
}

// betweenHosts is what the judge holds the traffic of the hosts to.
func betweenHosts() judge.Flow {
	all := []netip.Prefix{netip.MustParsePrefix("10.84.0.0/16"), netip.MustParsePrefix("fd84::/16")}
	return judge.Flow{Name: "between hosts behind machines", A: all, B: all}
}

// policyNames are the policies of the machines.
func (m mode) policyName(i int) string {
	if m == tunnel {
		return fmt.Sprintf("%s %d", policyName, i+1)
	}
	return policyName
}

// link links the policies: one for all, or, as a tunnel leads somewhere else from each end, one for each machine, which has
// a container of its own then.
func (w *world) link(ctx context.Context) error {
	if w.mode != tunnel {
		_, err := w.bank.Admin(ctx, "link", policyName, container)
		return err
	}
	for i, s := range w.nodes {
		if _, err := w.bank.Admin(ctx, "link", w.mode.policyName(i), ownContainer(s)); err != nil {
			return err
		}
	}
	return nil
}

func ownContainer(s *station) string { return fmt.Sprintf("OU=Of %s,%s", s.Name, container) }

// addContainers puts each machine into a container of its own.
func (w *world) addContainers() error {
	directory, err := os.ReadFile(w.bank.Directory())
	if err != nil {
		return err
	}
	for _, s := range w.nodes {
		entry := fmt.Sprintf("dn: cn=%s,%s\n", s.Name, container)
		into := fmt.Sprintf("dn: %s\nobjectClass: organizationalUnit\nou: Of %s\n\ndn: cn=%s,%s\n", ownContainer(s), s.Name, s.Name, ownContainer(s))
		changed := bytes.Replace(directory, []byte(entry), []byte(into), 1)
		if bytes.Equal(changed, directory) {
			return fmt.Errorf("the directory has no %s", entry)
		}
		directory = changed
	}
	return os.WriteFile(w.bank.Directory(), directory, 0o600)
}

// tunnelRules writes filter lists of a machine's tunnel, and returns its rules.
func tunnelRules(doc func(kind, name string), b *strings.Builder, i int, remote netip.Addr, variant int) []string {
	own, far := inner(i), inner(1-i)
	list := func(name string) string { return fmt.Sprintf("Leak %s %d", name, i+1) }
	doc("FilterList", list("tunnel"))
	b.WriteString("filters:\n")
	for family := range own {
		fmt.Fprintf(b, "  - {source: %q, destination: %q}\n", own[family][0].Masked(), far[family][0].Masked())
	}
	doc("FilterList", list("inside")) // what a gateway has to tell its own hosts
	b.WriteString("filters:\n")
	for family := range own {
		fmt.Fprintf(b, "  - {source: me, destination: %q}\n", own[family][0].Masked())
	}
	return []string{
		fmt.Sprintf("  - {name: Hosts %d, filterList: %q, filterAction: Leak protect, authentication: [{method: certificate}], tunnel: {remote: %s}}\n", variant/10, list("tunnel"), remote),
		fmt.Sprintf("  - {name: Inside, filterList: %q, filterAction: Leak permit}\n", list("inside")),
	}
}

// hardware reads the Ethernet address of a machine.
func (s *station) hardware() error {
	return s.host.Do(func() error {
		nic, err := net.InterfaceByName(device)
		if err == nil {
			s.mac = nic.HardwareAddr
		}
		return err
	})
}

// shorten takes the buffers of the daemon's sockets for datagrams to the least that there is, and returns what gives them
// back. It counts the sockets.
func shorten(pids []int) (n int, restore func(), err error) {
	type was struct{ fd, option, octets int }
	var all []was
	restore = func() {
		for _, w := range all {
			// The kernel says twice what was asked for (socket(7)).
			_ = unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, map[int]int{unix.SO_SNDBUF: unix.SO_SNDBUFFORCE, unix.SO_RCVBUF: unix.SO_RCVBUFFORCE}[w.option], w.octets/2)
		}
		for i, w := range all {
			if i == 0 || w.fd != all[i-1].fd {
				_ = unix.Close(w.fd)
			}
		}
	}
	for _, pid := range pids {
		process, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // it has ended
		}
		for fd := range 256 {
			copied, err := unix.PidfdGetfd(process, fd, 0)
			if err != nil {
				continue // no such descriptor
			}
			kind, err := unix.GetsockoptInt(copied, unix.SOL_SOCKET, unix.SO_TYPE)
			domain, _ := unix.GetsockoptInt(copied, unix.SOL_SOCKET, unix.SO_DOMAIN)
			if err != nil || kind != unix.SOCK_DGRAM && kind != unix.SOCK_RAW || domain != unix.AF_INET && domain != unix.AF_INET6 {
				_ = unix.Close(copied)
				continue
			}
			n++
			for _, option := range []int{unix.SO_SNDBUF, unix.SO_RCVBUF} {
				octets, err := unix.GetsockoptInt(copied, unix.SOL_SOCKET, option)
				if err == nil {
					all = append(all, was{copied, option, octets})
					err = unix.SetsockoptInt(copied, unix.SOL_SOCKET, option, 1)
				}
				if err != nil {
					restore()
					return 0, nil, cmp.Or(unix.Close(process), err)
				}
			}
		}
		if err := unix.Close(process); err != nil {
			return n, restore, err
		}
	}
	return n, restore, nil
}
