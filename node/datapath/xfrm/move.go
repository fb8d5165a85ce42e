package xfrm

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// reportEvery bounds how often packets of one mobile SA from an unexpected address are reported.
const reportEvery = time.Second

// Move gives the Child SA with this inbound SPI other outer addresses; packets from the former ones are still accepted.
//
// The SA is made anew, and goes on where the former one ended: the kernel says what that was once it is gone, so that no
// sequence number is used twice with a key or left out (RFC 4303 2.2, RFC 4106 3.1), and no packet is accepted twice. What
// would go through it meanwhile is held. XFRM_MSG_MIGRATE is no way to do that: it takes no SA out of UDP; it copies the
// sequence numbers while the former SA still gives out new ones; and it rewrites the policies that led to the SA, which in
// the inbound direction are those of all SAs of a rule.
func (b *backend) Move(in sa.SPI, local, remote netip.AddrPort, encap bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.mu.closed:
		return errClosed
	case !local.Addr().IsValid() || !remote.Addr().IsValid() || local.Addr().Is4() != remote.Addr().Is4() || encap && remote.Port() == 0:
		return fmt.Errorf("move SA %s to %s - %s: not two endpoints of one family", in, local, remote)
	}
	a := b.mu.children[in]
	if a == nil || a.dead {
		return fmt.Errorf("move SA %s: it is not installed", in)
	}
	if err := b.move(a, local, remote, encap); err != nil {
		return fmt.Errorf("move SA %s to %s - %s: %w", in, local, remote, err)
	}
	return nil
}

func (b *backend) move(a *association, local, remote netip.AddrPort, encap bool) error {
	former := a.child
	next := a.child
	next.Local, next.Remote, next.Encap = local, remote, encap
	// Until the new SA is there, what it is to protect is held.
	if err := b.mu.policies.propose(former.In.SPI, nil); err != nil {
		return err
	}
	a.child = next
	err := b.moveIn(a, former)
	if err == nil && a.hasOut {
		err = b.moveOut(a, former)
	}
	if err != nil {
		return err // nothing is sent through it any more
	}
	if !a.switched {
		return nil
	}
	if err := b.mu.policies.propose(former.In.SPI, outbound(b.mu.set, a.child, a.reqid)); err != nil {
		return err
	}
	b.resume(a.serves)
	return nil
}

// moveIn keeps the inbound half where the kernel can change it, with its window, or makes it anew from that.
func (b *backend) moveIn(a *association, former sa.Child) error {
	s := a.half(true)
	if former.Local.Addr() == a.child.Local.Addr() && former.Encap == a.child.Encap && former.Remote.Addr() == a.child.Remote.Addr() {
		return b.kernel.addState(s, true) // another port
	}
	had, err := b.kernel.take(former.Local.Addr(), former.In.SPI)
	if err != nil {
		return err
	}
	return b.goOn(a, &a.in, s, had)
}

func (b *backend) moveOut(a *association, former sa.Child) error {
	had, err := b.kernel.take(former.Remote.Addr(), former.Out.SPI)
	if err != nil {
		return err
	}
	return b.goOn(a, &a.out, a.half(false), had)
}

// goOn installs the half that goes on where another one ended.
func (b *backend) goOn(a *association, u *usage, next, had state) error {
	u.take(had)
	u.rebase()
	next.replay, next.bytes, next.packets, next.added = had.replay, had.bytes, had.packets, had.added
	return b.install(next, a)
}

// mapped follows a peer behind a NAT to where authentic packets come from now (RFC 7296 2.23). An SA that IKE moves is
// left where it is: IKE is told.
func (b *backend) mapped(spi sa.SPI, remote netip.AddrPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.mu.children[spi]
	if b.mu.closed || a == nil || a.dead || !a.child.NATRemote || !a.child.Encap || remote == a.child.Remote {
		return
	}
	if a.child.Mobile {
		if now := time.Now(); now.Sub(a.reported) >= reportEvery && b.emit(ike.PeerMoved{SPI: spi, Remote: remote}) {
			a.reported = now
		}
		return
	}
	if err := b.move(a, a.child.Local, remote, true); err != nil {
		b.cfg.Logger.Warn("cannot follow a peer behind a NAT", "spi", spi, "error", err)
		return
	}
	b.emit(ike.PeerMoved{SPI: spi, Remote: remote})
}
