package datapathtest

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// behind makes the hosts gateways of a network each, and returns the host in it:
//
//	la 10.62.1.2 --- a 10.61.0.1 === 10.61.0.2 b --- lb 10.62.2.2
func (w *World) behind(t *testing.T) map[*Peer]*Peer {
	t.Helper()
	inner := map[*Peer]*Peer{}
	for _, p := range []*Peer{w.A, w.B} {
		h, err := w.Lab.Host("l" + p.Name)
		if err != nil {
			t.Fatal(err)
		}
		l := &Peer{Host: h, V4: p.In4.Next(), V6: p.In6.Next()}
		inner[p] = l
		err = w.Lab.Link(
			lab.End{Host: p.Host, Device: "eth1", Addresses: []netip.Prefix{
				netip.PrefixFrom(l.V4.Next(), 24), netip.PrefixFrom(l.V6.Next(), 64),
			}},
			lab.End{Host: h, Device: "eth0", Addresses: []netip.Prefix{netip.PrefixFrom(l.V4, 24), netip.PrefixFrom(l.V6, 64)}},
		)
		if err != nil {
			t.Fatal(err)
		}
		l.mustRun(t, "ip", "route", "add", "default", "via", l.V4.Next().String())
		l.mustRun(t, "ip", "-6", "route", "add", "default", "via", l.V6.Next().String())
		for _, name := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
			if err := p.Sysctl(name, "1"); err != nil {
				t.Fatal(err)
			}
		}
		p.SetPolicy(t, w.tunnel(p))
	}
	return inner
}

// gateway protects what two networks behind the hosts send each other, with the reverse path filter off, strict and loose.
func gateway(t *testing.T, w *World) {
	inner := w.behind(t)
	w.NewKeyer(t, func(from *Peer, f ike.Flow) *Pair {
		pair, err := w.NewPair(from, f, Options{Mode: sa.Tunnel, Encap: true, Rule: [2]string{ruleID, ruleID}})
		if err != nil {
			t.Error(err)
		}
		return pair
	})
	inner[w.B].EchoTCP(t, 7)
	for _, filter := range []string{"0", "1", "2"} {
		for _, to := range []netip.Addr{inner[w.B].V4, inner[w.B].V6} {
			t.Run(fmt.Sprintf("rp_filter=%s/%s", filter, to), func(t *testing.T) {
				for _, p := range []*Peer{w.A, w.B} {
					if err := p.Sysctl("net.ipv4.conf.all.rp_filter", filter); err != nil {
						t.Fatal(err)
					}
				}
				wire := w.Watch(t)
				if err := inner[w.A].TransferTCP(netip.AddrPortFrom(to, 7), 1<<20, long); err != nil {
					t.Errorf("TCP through both gateways: %v\nA: %v\nB: %v", err, w.A.Node.Status().Counters, w.B.Node.Status().Counters)
				}
				wire().wantProtected(t)
			})
		}
	}

	// What comes in clear from the other side is not forwarded.
	w.B.SetPolicy(t, policy())
	inner[w.A].EchoTCP(t, 8)
	wire := w.Watch(t)
	if err := inner[w.B].TryTCP(netip.AddrPortFrom(inner[w.A].V4, 8), short); err == nil {
		t.Error("clear traffic that belongs into the tunnel was forwarded")
	}
	if seen := wire(); len(seen.Clear) == 0 {
		t.Error("wire shows no clear packet from b, the case proves nothing")
	}
}

// reversePath: transport mode works with every setting of the reverse path filter.
func reversePath(t *testing.T, w *World) {
	w.Connect(t, Options{Encap: true})
	w.B.EchoTCP(t, 7)
	for _, filter := range []string{"1", "2", "0"} {
		for _, p := range []*Peer{w.A, w.B} {
			for _, device := range []string{"all", "eth0"} {
				if err := p.Sysctl("net.ipv4.conf."+device+".rp_filter", filter); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := w.A.TryTCP(netip.AddrPortFrom(w.B.V4, 7), long); err != nil {
			t.Errorf("TCP with rp_filter=%s: %v", filter, err)
		}
	}
}

// strayPackets: what is marked but cannot reach the backend does not leave: sockets bound to a device.
func strayPackets(t *testing.T, w *World) {
	w.A.SetPolicy(t, requireAll())
	w.B.SetPolicy(t, policy())
	wire := w.Watch(t)
	_, _ = w.A.Run("ping", "-c", "1", "-W", "0.2", "-I", "eth0", w.B.V4.String()) // it is to be lost
	_, _ = w.A.Run("ping", "-6", "-c", "1", "-W", "0.2", "-I", "eth0", w.B.V6.String())
	_, _ = w.A.Run("ping", "-6", "-c", "1", "-W", "0.2", "fe80::1%eth0")
	seen := wire()
	if len(seen.Clear) > 0 {
		t.Errorf("wire shows packets of bound sockets in clear: %v", seen.Clear)
	}
}
