package userspace

import (
	"errors"
	"time"

	"github.com/bailiwick-net/bailiwick/node/datapath/nftable"
	"github.com/bailiwick-net/bailiwick/node/datapath/userspace/steering"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// repairPause keeps two programs from fighting over the table as fast as they can.
const repairPause = 50 * time.Millisecond

// flows asks the packet thread for the associations in clear and the flows that must not have one.
type flows struct {
	soft    map[softKey]time.Time
	secured map[softKey]bool
}

func (c flows) run(l *loop) error {
	for key, until := range l.soft {
		c.soft[key] = until
	}
	for key := range l.secured {
		c.secured[key] = true
	}
	return nil
}

// repair runs until the watch is closed, and puts back what others change.
func (b *backend) repair() {
	defer close(b.repaired)
	for range b.watch.Changed() {
		err := b.restore()
		switch {
		case errors.Is(err, errClosed):
			return
		case err != nil:
			b.cfg.Logger.Error("nftables table was changed by another program and cannot be restored", "table", b.cfg.NFTable, "error", err)
		default:
			b.cfg.Logger.Warn("nftables table was changed by another program and is restored", "table", b.cfg.NFTable)
		}
		<-time.After(repairPause)
	}
}

func (b *backend) restore() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed {
		return errClosed
	}
	if b.mu.fresh {
		return nil // nothing of ours is in force yet
	}
	state := flows{soft: map[softKey]time.Time{}, secured: map[softKey]bool{}}
	if err := b.do(state); err != nil {
		return err
	}
	var entries []nftable.Entry
	for e := range b.mu.dynamic {
		entries = append(entries, e.Entry())
	}
	for key := range state.secured {
		entries = append(entries, nftable.Pair{Local: key.local, Remote: key.remote}.In(steering.SecuredSet(key.rule, key.local.Is6()), 0))
	}
	for key, until := range state.soft {
		if left := time.Until(until); left > 0 {
			for _, d := range []spd.Direction{spd.In, spd.Out} {
				entries = append(entries, nftable.Pair{Local: key.local, Remote: key.remote}.In(steering.SoftSet(key.rule, d, key.local.Is6()), left))
			}
		}
	}
	return b.table.Replace(steering.Compile(b.mu.set, b.params), true, entries)
}
