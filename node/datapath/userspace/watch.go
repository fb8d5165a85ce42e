package userspace

import (
	"time"

	"github.com/bailiwick-net/bailiwick/node/datapath/nftable"
	"github.com/bailiwick-net/bailiwick/node/datapath/userspace/steering"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

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

// repair puts back what others change, until the watch is closed.
func (b *backend) repair() {
	defer close(b.repaired)
	b.watch.Repair(b.cfg.Logger, b.restore)
}

func (b *backend) restore() (restored bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed || b.mu.fresh {
		return false, nil // nothing of ours is in force any more, or yet
	}
	state := flows{soft: map[softKey]time.Time{}, secured: map[softKey]bool{}}
	if err := b.do(state); err != nil {
		return false, err
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
	return true, b.table.Replace(steering.Compile(b.mu.set, b.params), true, entries)
}
