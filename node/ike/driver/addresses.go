package driver

import (
	"context"
	"net/netip"

	"github.com/bailiwick-net/bailiwick/node/ike"
)

// AddressesChanged tells the engine this machine's own addresses, at the start and whenever they change. Where the kernel
// sends from is asked here, because the engine asks nobody.
func (d *Driver) AddressesChanged(ctx context.Context, addresses []netip.Addr) error {
	ev := ike.AddressesChanged{Addresses: addresses, Sources: make(map[netip.Addr]netip.Addr)}
	if d.cfg.Source != nil {
		v, err := d.Snapshot(ctx)
		if err != nil {
			return err
		}
		for _, s := range v.SAs {
			remote := s.Remote.Addr()
			if _, known := ev.Sources[remote]; known {
				continue
			}
			// An error is what a peer that cannot be reached now looks like.
			source, err := d.cfg.Source(remote)
			if err != nil {
				d.log.Debug("no own address reaches a peer", "remote", remote, "error", err)
			}
			ev.Sources[remote] = source
		}
	}
	_, err := d.command(ctx, ev)
	return err
}
