package pair

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Hidden is the address of the end behind a NAT, and natInside that of the NAT there.
var (
	Hidden    = netip.MustParseAddr("192.168.7.2")
	natInside = netip.MustParseAddr("192.168.7.1")
)

// MappedPorts are those that a NAT uses at first, MovedPorts those after Rebind.
const (
	MappedPorts = "20000-20999"
	MovedPorts  = "30000-30999"
)

// WithNAT makes a network of three hosts: the end behind the NAT has an address of its own, and the NAT has outside the one
// that the end has without it. What comes from outside to the ports of IKE is forwarded to that end.
func WithNAT(t testing.TB, prefix string, behind Side) *Pair {
	t.Helper()
	p, l := newPair(t, prefix)
	p.addPeer(l)
	var err error
	if p.NAT, err = l.Host("nat"); err != nil {
		t.Fatal(err)
	}
	inside, outside := p.Node, p.Peer
	public, other := NodeOuter, PeerOuter
	innerInside, innerOutside, netInside, netOutside := NodeInner, PeerInner, NodeNet, PeerNet
	if behind == FromPeer {
		inside, outside, public, other = outside, inside, other, public
		innerInside, innerOutside, netInside, netOutside = innerOutside, innerInside, netOutside, netInside
	}
	if err := l.Link(end(inside, device, Hidden), end(p.NAT, "inside", natInside)); err != nil {
		t.Fatal(err)
	}
	if err := l.Link(end(outside, device, other), end(p.NAT, "outside", public)); err != nil {
		t.Fatal(err)
	}
	if err := p.NAT.Sysctl("net.ipv4.ip_forward", "1"); err != nil {
		t.Fatal(err)
	}
	// Ways in clear for both, as without a NAT.
	p.Run(inside, "ip", "route", "add", "default", "via", natInside.String())
	p.Run(inside, "ip", "route", "add", netOutside.String(), "via", natInside.String(), "src", innerInside.String())
	p.Run(outside, "ip", "route", "add", netInside.String(), "via", public.String(), "src", innerOutside.String())
	p.Run(p.NAT, "ip", "route", "add", netInside.String(), "via", Hidden.String())
	p.Run(p.NAT, "ip", "route", "add", netOutside.String(), "via", other.String())
	p.translate(MappedPorts)
	return p
}

// translate lets the NAT use these ports from now on.
func (p *Pair) translate(ports string) {
	p.T.Helper()
	rules := fmt.Sprintf(`table ip nat
delete table ip nat
table ip nat {
	chain prerouting {
		type nat hook prerouting priority dstnat
		iifname "outside" udp dport { 500, 4500 } dnat to %s
	}
	chain postrouting {
		type nat hook postrouting priority srcnat
		oifname "outside" meta l4proto udp masquerade to :%s
	}
}
`, Hidden, ports)
	cmd := p.NAT.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		p.T.Fatalf("nft: %v: %s", err, out)
	}
}

// Rebind lets the NAT forget what it knows and use other ports from now on.
func (p *Pair) Rebind() {
	p.T.Helper()
	p.translate(MovedPorts)
	if err := p.NAT.Do(forget); err != nil {
		p.T.Fatalf("forget the mappings of the NAT: %v", err)
	}
}

// forget deletes the connections that the kernel tracks in this network namespace, as conntrack -F would.
func forget() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	const nfgenmsg, ctDelete = 4, 2                     // IPCTNL_MSG_CT_DELETE
	request := make([]byte, unix.NLMSG_HDRLEN+nfgenmsg) // without attributes: all of them
	binary.NativeEndian.PutUint32(request, uint32(len(request)))
	binary.NativeEndian.PutUint16(request[4:], unix.NFNL_SUBSYS_CTNETLINK<<8|ctDelete)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	request[unix.NLMSG_HDRLEN] = unix.AF_INET
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 1024)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return err
	}
	if n < unix.NLMSG_HDRLEN+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return fmt.Errorf("the kernel answers with %x", answer[:n])
	}
	if code := int32(binary.NativeEndian.Uint32(answer[unix.NLMSG_HDRLEN:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}
