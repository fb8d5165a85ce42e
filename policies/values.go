package policies

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Limits of texts, in characters.
const (
	maxNameLength        = 255
	maxDescriptionLength = 4096
)

// protocols are the names that documents use for IP protocols.
var protocols = []struct {
	name   string
	number uint8
}{
	{"icmp", spd.ProtocolICMP}, {"igmp", 2}, {"tcp", spd.ProtocolTCP}, {"udp", spd.ProtocolUDP}, {"dccp", spd.ProtocolDCCP},
	{"ipv6", 41}, {"gre", 47}, {"esp", spd.ProtocolESP}, {"ah", 51}, {"icmpv6", spd.ProtocolICMPv6}, {"ospf", 89},
	{"vrrp", 112}, {"sctp", spd.ProtocolSCTP}, {"udp-lite", spd.ProtocolUDPLite},
}

// symbols are the address kinds that are written by name.
var symbols = []spd.AddressKind{
	spd.AddressAny, spd.AddressMe, spd.AddressDNSServers, spd.AddressDHCPServer, spd.AddressDefaultGateway,
}

func checkName(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("is empty")
	case utf8.RuneCountInString(s) > maxNameLength:
		return fmt.Errorf("is longer than %d characters", maxNameLength)
	case strings.TrimSpace(s) != s:
		return fmt.Errorf("begins or ends with space")
	}
	for _, r := range s {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return fmt.Errorf("contains the character %U", r)
		}
	}
	return nil
}

func checkDescription(s string) error {
	if utf8.RuneCountInString(s) > maxDescriptionLength {
		return fmt.Errorf("is longer than %d characters", maxDescriptionLength)
	}
	for _, r := range s {
		if !unicode.IsPrint(r) && r != '\n' && r != '\t' || r == utf8.RuneError {
			return fmt.Errorf("contains the character %U", r)
		}
	}
	return nil
}

func parseAddress(s string) (spd.Address, error) {
	for _, k := range symbols {
		if s == k.String() {
			return spd.Address{Kind: k}, nil
		}
	}
	if name, ok := strings.CutPrefix(s, spd.NamePrefix); ok {
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		if err := spd.CheckHostName(name); err != nil {
			return spd.Address{}, fmt.Errorf("after %s, %w", spd.NamePrefix, err)
		}
		return spd.Address{Kind: spd.AddressName, Name: name}, nil
	}
	if strings.HasPrefix(s, "wins:") || s == "wins-servers" {
		return spd.Address{}, fmt.Errorf("%q: WINS is gone; write the DNS name after %s, or addresses", printable(s), spd.NamePrefix)
	}
	if from, to, ok := strings.Cut(s, "-"); ok && from != "" && (from[0] >= '0' && from[0] <= '9' || strings.Contains(from, ":")) {
		a, err := plainAddress(from)
		if err != nil {
			return spd.Address{}, err
		}
		b, err := plainAddress(to)
		if err != nil {
			return spd.Address{}, err
		}
		if a.Is4() != b.Is4() || b.Less(a) {
			return spd.Address{}, fmt.Errorf("%q is not a range from lower to higher of one family", s)
		}
		return spd.Address{Kind: spd.AddressRange, From: a, To: b}, nil
	}
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		if err != nil || p.Addr().Is4In6() {
			return spd.Address{}, fmt.Errorf("%q is not a prefix, as 192.0.2.0/24 or 2001:db8::/32", printable(s))
		}
		if p.Masked() != p {
			return spd.Address{}, fmt.Errorf("%q has host bits; did you mean %s?", s, p.Masked())
		}
		return spd.Address{Kind: spd.AddressPrefix, Prefix: p}, nil
	}
	a, err := plainAddress(s)
	if err != nil {
		return spd.Address{}, err
	}
	return spd.Address{Kind: spd.AddressPrefix, Prefix: netip.PrefixFrom(a, a.BitLen())}, nil
}

func plainAddress(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		names := make([]string, len(symbols))
		for i, k := range symbols {
			names[i] = k.String()
		}
		return netip.Addr{}, fmt.Errorf("%q is not an address; write an address, a prefix, a range a-b, dns:host.example, or %s", printable(s), strings.Join(names, ", "))
	}
	return a, nil
}

func parseEndpoint(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return netip.Addr{}, fmt.Errorf("%q is not an address", printable(s))
	}
	return a, nil
}

func parseProtocol(s string) (uint8, error) {
	if s == "any" {
		return 0, nil
	}
	for _, p := range protocols {
		if s == p.name {
			return p.number, nil
		}
	}
	n, err := decimal(s, 255)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a protocol; write any, tcp, udp, icmp, icmpv6 or another name, or a number of 1-255", printable(s))
	}
	return uint8(n), nil
}

func protocolText(number uint8) string {
	if number == 0 {
		return "any"
	}
	for _, p := range protocols {
		if number == p.number {
			return p.name
		}
	}
	return strconv.Itoa(int(number))
}

func parsePorts(s string) (spd.PortRange, error) {
	if s == "any" {
		return spd.PortRange{}, nil
	}
	from, to, ok := strings.Cut(s, "-")
	if !ok {
		to = from
	}
	a, err1 := decimal(from, 65535)
	b, err2 := decimal(to, 65535)
	if err1 != nil || err2 != nil || a == 0 || b < a {
		return spd.PortRange{}, fmt.Errorf("%q is not a port; write any, a port of 1-65535 or a range a-b", printable(s))
	}
	return spd.PortRange{From: uint16(a), To: uint16(b)}, nil
}

// decimal reads plain digits without a leading zero, which YAML could mean as octal.
func decimal(s string, limit uint64) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > limit || strconv.FormatUint(n, 10) != s {
		return 0, fmt.Errorf("%q is not a number up to %d", printable(s), limit)
	}
	return n, nil
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is not a duration above zero; write it as 90s, 15m or 8h", printable(s))
	}
	return d, nil
}

// checkID checks an IKE identity as spd.Auth writes it.
func checkID(s string) error {
	kind, value, _ := strings.Cut(s, ":")
	switch kind {
	case "fqdn":
		if err := checkName(value); err != nil || strings.ContainsAny(value, " /:") {
			return fmt.Errorf("%q does not name a host after fqdn:", printable(s))
		}
	case "email":
		local, domain, ok := strings.Cut(value, "@")
		if err := checkName(value); err != nil || !ok || local == "" || domain == "" || strings.ContainsAny(value, " :") || strings.Contains(domain, "@") {
			return fmt.Errorf("%q does not name a mail address after email:", printable(s))
		}
	case "ip":
		if a, err := netip.ParseAddr(value); err != nil || a.Zone() != "" {
			return fmt.Errorf("%q does not name an address after ip:", printable(s))
		}
	case "dn":
		if dn, err := directory.ParseDN(value); err != nil || dn.IsZero() {
			return fmt.Errorf("%q does not name a DN after dn:", printable(s))
		}
	default:
		return fmt.Errorf("%q does not begin with fqdn:, email:, ip: or dn:", printable(s))
	}
	return nil
}
