// Package facts finds out what a machine knows of itself, which is what turns the symbols of a policy into addresses:
// its own addresses, DNS servers, DHCP servers, default gateways, and the addresses behind DNS names.
//
// Its invariant: an address family or source that cannot be read is an error, never an empty list, and a lookup that fails
// takes no answer away. It leaves what the
// facts mean to policies/spd.
package facts

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Sources are the files that facts are read from; the zero value means those of a Debian system.
type Sources struct {
	ResolvConf string // resolv.conf(5)
	// Leases are glob patterns of DHCP lease files, in the forms of systemd-networkd and of dhclient.
	Leases []string
	// Route4 and Route6 are the kernel's routing tables as procfs shows them.
	Route4, Route6 string
	// RemoteAccess are the names of interfaces for remote access; a final * stands for any rest.
	RemoteAccess []string
	// Ignore names interfaces whose addresses are not the machine's own, such as the TUN of the datapath.
	Ignore []string
}

func (s Sources) withDefaults() Sources {
	if s.ResolvConf == "" {
		s.ResolvConf = "/etc/resolv.conf"
	}
	if s.Leases == nil {
		s.Leases = []string{"/run/systemd/netif/leases/*", "/var/lib/dhcp/dhclient*.leases"}
	}
	if s.Route4 == "" {
		s.Route4 = "/proc/self/net/route"
	}
	if s.Route6 == "" {
		s.Route6 = "/proc/self/net/ipv6_route"
	}
	return s
}

// Gather reads the facts of the network namespace that it is called in. Controllers and Names are left for the caller to
// fill.
func Gather(s Sources) (spd.Facts, error) {
	s = s.withDefaults()
	f := spd.Facts{RemoteInterfaces: s.RemoteAccess}
	var err error
	if f.Addresses, f.RemoteAddresses, err = addresses(s.Ignore, s.RemoteAccess); err != nil {
		return spd.Facts{}, err
	}
	if f.DNSServers, err = read(s.ResolvConf, parseResolvConf); err != nil {
		return spd.Facts{}, err
	}
	for _, pattern := range s.Leases {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return spd.Facts{}, fmt.Errorf("DHCP lease files %q: %w", pattern, err)
		}
		for _, file := range files {
			servers, err := read(file, parseLease)
			if err != nil {
				return spd.Facts{}, err
			}
			f.DHCPServers = append(f.DHCPServers, servers...)
		}
	}
	gateways4, err := read(s.Route4, parseRoute4)
	if err != nil {
		return spd.Facts{}, err
	}
	gateways6, err := read(s.Route6, parseRoute6)
	if err != nil {
		return spd.Facts{}, err
	}
	f.DefaultGateways = append(gateways4, gateways6...)
	for _, list := range []*[]netip.Addr{&f.Addresses, &f.RemoteAddresses, &f.DNSServers, &f.DHCPServers, &f.DefaultGateways} {
		slices.SortFunc(*list, netip.Addr.Compare)
		*list = slices.Compact(*list)
	}
	return f, nil
}

// Equal reports whether two sets of facts expand a policy alike.
func Equal(a, b spd.Facts) bool {
	return slices.Equal(a.Addresses, b.Addresses) && slices.Equal(a.RemoteAddresses, b.RemoteAddresses) &&
		slices.Equal(a.RemoteInterfaces, b.RemoteInterfaces) && slices.Equal(a.DNSServers, b.DNSServers) &&
		slices.Equal(a.DHCPServers, b.DHCPServers) && slices.Equal(a.DefaultGateways, b.DefaultGateways) &&
		slices.Equal(a.Controllers, b.Controllers) && maps.EqualFunc(a.Names, b.Names, slices.Equal)
}

// addresses lists the machine's own unicast addresses, and those of them that interfaces for remote access have and no other
// one. Link-local ones count: they are "me" for what stays on a link.
func addresses(ignore, remoteAccess []string) (all, remote []netip.Addr, err error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, nil, fmt.Errorf("list interfaces: %w", err)
	}
	var others []netip.Addr
	for _, i := range interfaces {
		if slices.Contains(ignore, i.Name) {
			continue
		}
		named := slices.ContainsFunc(remoteAccess, func(pattern string) bool { return spd.NamesInterface(pattern, i.Name) })
		list, err := i.Addrs()
		if err != nil {
			return nil, nil, fmt.Errorf("list addresses of %s: %w", i.Name, err)
		}
		for _, a := range list {
			prefix, err := netip.ParsePrefix(a.String())
			if err != nil {
				return nil, nil, fmt.Errorf("address %q of %s: %w", a, i.Name, err)
			}
			addr := prefix.Addr().Unmap().WithZone("")
			if addr.IsLoopback() {
				continue
			}
			if all = append(all, addr); named {
				remote = append(remote, addr)
			} else {
				others = append(others, addr)
			}
		}
	}
	return all, slices.DeleteFunc(remote, func(a netip.Addr) bool { return slices.Contains(others, a) }), nil
}

// read parses a file; one that does not exist holds nothing, which is what its absence means for each of them.
func read(path string, parse func([]byte) ([]netip.Addr, error)) ([]netip.Addr, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	addrs, err := parse(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return addrs, nil
}

// lines calls each with the words of every line, counted from 1.
func lines(content []byte, each func(number int, words []string) error) error {
	scanner := bufio.NewScanner(bytes.NewReader(content))
	for number := 1; scanner.Scan(); number++ {
		if words := strings.Fields(scanner.Text()); len(words) > 0 {
			if err := each(number, words); err != nil {
				return fmt.Errorf("line %d: %w", number, err)
			}
		}
	}
	return scanner.Err()
}

// parseResolvConf takes the nameserver lines. A line that the resolver itself would not understand is skipped, as it
// does; loopback resolvers (a local cache) are no traffic on the wire.
func parseResolvConf(content []byte) ([]netip.Addr, error) {
	var out []netip.Addr
	err := lines(content, func(_ int, words []string) error {
		if words[0] == "nameserver" && len(words) > 1 {
			if a, err := netip.ParseAddr(words[1]); err == nil && !a.IsLoopback() {
				out = append(out, a.Unmap().WithZone(""))
			}
		}
		return nil
	})
	return out, err
}

// parseLease takes the server of systemd-networkd's SERVER_ADDRESS=... and of dhclient's
// "option dhcp-server-identifier ...;".
func parseLease(content []byte) ([]netip.Addr, error) {
	var out []netip.Addr
	err := lines(content, func(_ int, words []string) error {
		text, ok := strings.CutPrefix(words[0], "SERVER_ADDRESS=")
		if !ok && len(words) == 3 && words[0] == "option" && words[1] == "dhcp-server-identifier" {
			text, ok = strings.TrimSuffix(words[2], ";"), true
		}
		if !ok {
			return nil
		}
		a, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("DHCP server: %w", err)
		}
		out = append(out, a)
		return nil
	})
	return out, err
}

// parseRoute4 takes the gateways of default routes from /proc/net/route: columns interface, destination, gateway, flags,
// ..., mask in eighth place; addresses are hexadecimal in host byte order.
func parseRoute4(content []byte) ([]netip.Addr, error) {
	var out []netip.Addr
	err := lines(content, func(number int, words []string) error {
		if number == 1 {
			return nil
		}
		if len(words) < 8 {
			return fmt.Errorf("%d columns, want at least 8", len(words))
		}
		if words[1] != "00000000" || words[7] != "00000000" || words[2] == "00000000" {
			return nil
		}
		raw, err := hex.DecodeString(words[2])
		if err != nil || len(raw) != 4 {
			return fmt.Errorf("gateway %q is not an address", words[2])
		}
		var a [4]byte
		binary.NativeEndian.PutUint32(a[:], binary.BigEndian.Uint32(raw))
		out = append(out, netip.AddrFrom4(a))
		return nil
	})
	return out, err
}

// parseRoute6 takes the gateways of default routes from /proc/net/ipv6_route: destination, prefix length, source, prefix
// length, next hop, ...
func parseRoute6(content []byte) ([]netip.Addr, error) {
	var out []netip.Addr
	err := lines(content, func(_ int, words []string) error {
		if len(words) < 5 {
			return fmt.Errorf("%d columns, want at least 5", len(words))
		}
		if words[1] != "00" {
			return nil
		}
		raw, err := hex.DecodeString(words[4])
		if err != nil || len(raw) != 16 {
			return fmt.Errorf("next hop %q is not an address", words[4])
		}
		if a := netip.AddrFrom16([16]byte(raw)); !a.IsUnspecified() {
			out = append(out, a)
		}
		return nil
	})
	return out, err
}

// Watch calls changed whenever addresses or routes of this network namespace may have changed, until ctx ends. The
// kernel's notifications are a hint: changed gathers again and compares.
func Watch(ctx context.Context, changed func()) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{
		Groups: unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE,
	})
	if err != nil {
		return fmt.Errorf("watch addresses: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer conn.Close()
	for {
		_, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // notifications were lost: that is a change, too
		case err != nil:
			return fmt.Errorf("watch addresses: %w", err)
		}
		changed()
	}
}
