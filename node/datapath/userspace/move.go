package userspace

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/bailiwick-net/bailiwick/node/esp"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/node/transport"
)

// reportEvery bounds how often packets of one mobile SA from an unexpected address are reported.
const reportEvery = time.Second

// unknownEvery bounds how often ESP of unknown SPIs is reported.
const unknownEvery = 250 * time.Millisecond

// move gives an SA other outer addresses.
type move struct {
	spi           sa.SPI
	local, remote netip.AddrPort
	encap         bool
	mtu           int // of the device
}

// Move gives the Child SA with this inbound SPI other outer addresses; packets from the former ones are still accepted.
func (b *backend) Move(in sa.SPI, local, remote netip.AddrPort, encap bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.mu.closed:
		return errClosed
	case !local.Addr().IsValid() || !remote.Addr().IsValid() || local.Addr().Is4() != remote.Addr().Is4() || encap && remote.Port() == 0:
		return fmt.Errorf("move SA %s to %s - %s: not two endpoints of one family", in, local, remote)
	}
	return b.do(move{spi: in, local: local, remote: remote, encap: encap, mtu: b.mtu(in, local.Addr(), remote.Addr())})
}

func (c move) run(l *loop) error {
	a, ok := l.sadb.children[c.spi]
	if !ok {
		return fmt.Errorf("move SA %s: it is not installed", c.spi)
	}
	a.child.Local, a.child.Remote, a.child.Encap, a.remote = c.local, c.remote, c.encap, c.remote
	a.in.SetEncap(c.encap)
	for _, out := range append([]*esp.Outbound{a.out}, a.forks...) {
		if out != nil {
			out.SetEncap(c.encap)
		}
	}
	a.path = newPathMTU(c.mtu, c.local.Addr().Is6())
	a.setPath()
	// What was held back on the former path does not move the SA back.
	a.moved = a.in.Highest()
	return nil
}

// moved notes that authentic packets come from a new address. Behind a NAT that is where the peer is now (RFC 7296
// 2.23); an old packet that was held back does not move it back. An SA that IKE moves is left where it is: IKE is told.
func (l *loop) moved(a *association, d *transport.Datagram, sequence uint64) {
	if !a.child.NATRemote || !d.Encap || sequence <= a.moved {
		return
	}
	if a.child.Mobile && l.now.Sub(a.reported) < reportEvery {
		return
	}
	l.alone()
	defer l.share()
	if a.child.Mobile {
		if l.now.Sub(a.reported) >= reportEvery && l.emit(ike.PeerMoved{SPI: a.child.In.SPI, Remote: d.Remote}) {
			a.reported = l.now
		}
		return
	}
	a.moved, a.remote = sequence, netip.AddrPortFrom(d.Remote.Addr(), d.Remote.Port())
	l.emit(ike.PeerMoved{SPI: a.child.In.SPI, Remote: d.Remote})
}
