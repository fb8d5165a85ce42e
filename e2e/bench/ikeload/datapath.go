package ikeload

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// Counters are what a machine's datapath was told.
type Counters struct {
	In      int64 // inbound halves installed
	Out     int64 // outbound halves taken into use
	Removed int64
	Refused int64 // flows that get no association
}

// datapath counts. It holds nothing, so that the memory of a machine is that of IKE.
type datapath struct {
	in, out, removed, refused atomic.Int64
	changed                   chan struct{} // one wake-up at a time
}

func newDatapath() *datapath { return &datapath{changed: make(chan struct{}, 1)} }

func (d *datapath) wake() {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

func (d *datapath) counters() Counters {
	return Counters{In: d.in.Load(), Out: d.out.Load(), Removed: d.removed.Load(), Refused: d.refused.Load()}
}

// InstallIn implements driver.SADB.
func (d *datapath) InstallIn(sa.Child) error {
	d.in.Add(1)
	d.wake()
	return nil
}

// InstallOut implements driver.SADB.
func (d *datapath) InstallOut(sa.Child) error { return nil }

// SwitchOut implements driver.SADB.
func (d *datapath) SwitchOut(sa.Child) error {
	d.out.Add(1)
	d.wake()
	return nil
}

// Remove implements driver.SADB.
func (d *datapath) Remove(sa.SPI) error {
	d.removed.Add(1)
	d.wake()
	return nil
}

// Move implements driver.SADB.
func (d *datapath) Move(sa.SPI, netip.AddrPort, netip.AddrPort, bool) error { return nil }

// Fallback implements driver.FlowGate.
func (d *datapath) Fallback(ike.Flow, time.Duration) error { return nil }

// Refuse implements driver.FlowGate.
func (d *datapath) Refuse(ike.Flow) error {
	d.refused.Add(1)
	d.wake()
	return nil
}
