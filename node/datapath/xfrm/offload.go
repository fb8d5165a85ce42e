package xfrm

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
)

// Hardware offload: the device that an SA's packets pass through seals and opens them, where it can. The kernel does
// not tell when a device cannot, it does the work itself: what it made of an SA is read back, and told in the status.

// offloads counts the halves of SAs that were to be a device's.
type offloads struct {
	refused map[string]int // by reason
}

// place puts a half into the kernel, in the hardware of the device on the way to the peer where that was asked for and can
// be.
func (b *backend) place(s state, a *association) error {
	if !b.cfg.Offload {
		return b.kernel.addState(s, false)
	}
	remote := a.child.Remote.Addr()
	_, device, err := b.routes.lookup(remote)
	if err == nil {
		asked := s
		asked.offload = device
		if err = b.kernel.addState(asked, false); err == nil {
			var got state
			if got, err = b.kernel.getState(s.target, s.spi); err != nil {
				return err
			}
			if got.offload != device {
				b.refuseOffload(fmt.Sprintf("network device %d has no hardware for it", device))
			}
			return nil
		}
	}
	var number syscall.Errno
	if errors.As(err, &number) {
		b.refuseOffload(fmt.Sprintf("the kernel refuses it for network device %d: %v", device, number))
	} else {
		b.refuseOffload(err.Error())
	}
	return b.kernel.addState(s, false)
}

func (b *backend) refuseOffload(reason string) {
	if b.mu.offloads.refused == nil {
		b.mu.offloads.refused = map[string]int{}
	}
	const most = 16 // reasons
	if _, ok := b.mu.offloads.refused[reason]; !ok {
		if len(b.mu.offloads.refused) >= most {
			return
		}
		b.cfg.Logger.Warn("an SA cannot be offloaded to hardware", "reason", reason)
	}
	b.mu.offloads.refused[reason]++
}

// offloadNotes tell what became of the wish for hardware.
func (b *backend) offloadNotes() []string {
	if !b.cfg.Offload {
		return nil
	}
	halves := 0
	for _, a := range b.mu.children {
		for _, u := range []usage{a.in, a.out} {
			if u.offload != 0 {
				halves++
			}
		}
	}
	notes := []string{fmt.Sprintf("Hardware offload is asked for: %d inbound and outbound halves of SAs are in hardware now.", halves)}
	for reason, n := range b.mu.offloads.refused {
		notes = append(notes, fmt.Sprintf("Hardware offload was not to be had %d times: %s.", n, reason))
	}
	slices.Sort(notes[1:])
	return notes
}
