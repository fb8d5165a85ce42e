package nftable

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/node/datapath/userspace/steering"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// Pair is the key of a soft or secured set.
type Pair struct{ Local, Remote netip.Addr }

// Entry is an element of a set that the backend fills while it runs.
type Entry struct {
	set steering.Set
	element
}

// In returns the element of a soft or secured set, for a time if ttl is not 0.
func (p Pair) In(s steering.Set, ttl time.Duration) Entry {
	return Entry{s, element{key: key(p.Local, p.Remote), timeout: ttl}}
}

// Add puts a pair into a set, for a time if ttl is not 0. A pair that is there already gets the new time.
func (t *Table) Add(s steering.Set, p Pair, ttl time.Duration) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.copies[0].sets[s.Name] {
		return fmt.Errorf("add %s to %s in nftables set %s: the policy in force has no such set", p.Local, p.Remote, s.Name)
	}
	// An element that exists keeps its time: it is replaced in one transaction.
	x := newTransaction(t.name)
	bare := []element{{key: key(p.Local, p.Remote)}}
	t.each(x, func(*holding) {
		x.elements(unix.NFT_MSG_NEWSETELEM, s.Name, bare)
		x.elements(unix.NFT_MSG_DELSETELEM, s.Name, bare)
		x.elements(unix.NFT_MSG_NEWSETELEM, s.Name, []element{p.In(s, ttl).element})
	})
	if err := t.socket.commit(x); err != nil {
		return fmt.Errorf("add %s to %s to nftables set %s: %w", p.Local, p.Remote, s.Name, err)
	}
	return nil
}

// Remove takes a pair out of a set, if it is there.
func (t *Table) Remove(s steering.Set, p Pair) error { return t.drop(p.In(s, 0)) }

// drop takes an element out of a set, if it is there: it is added first, which changes nothing for one that exists.
func (t *Table) drop(e Entry) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.copies[0].sets[e.set.Name] {
		return nil
	}
	x := newTransaction(t.name)
	t.each(x, func(*holding) {
		x.elements(unix.NFT_MSG_NEWSETELEM, e.set.Name, []element{e.element})
		x.elements(unix.NFT_MSG_DELSETELEM, e.set.Name, []element{e.element})
	})
	if err := t.socket.commit(x); err != nil {
		return fmt.Errorf("remove an element from nftables set %s: %w", e.set.Name, err)
	}
	return nil
}

// Dynamic is one entry of the dynamic sets: the selectors of an SA that no filter asks for. It is comparable.
type Dynamic struct {
	local, remote          netip.Addr
	protocol               uint8
	localFrom, localTo     uint16
	remoteFrom, remoteTo   uint16
	hasProtocol, hasPorts_ bool
}

// DynamicOf returns the entries of a pair of selectors lists. Only single hosts are possible.
func DynamicOf(local, remote []sa.Selector) ([]Dynamic, error) {
	var out []Dynamic
	for _, l := range local {
		for _, r := range remote {
			if l.From != l.To || r.From != r.To {
				return nil, fmt.Errorf("selectors %s-%s and %s-%s of an SA without a rule are not two single hosts", l.From, l.To, r.From, r.To)
			}
			if l.From.Is4() != r.From.Is4() {
				continue
			}
			d := Dynamic{local: l.From, remote: r.From}
			// The narrower protocol counts; two different ones describe no packet.
			d.protocol = max(l.Protocol, r.Protocol)
			if l.Protocol != 0 && r.Protocol != 0 && l.Protocol != r.Protocol {
				continue
			}
			d.hasProtocol = d.protocol != 0
			d.hasPorts_ = d.hasProtocol && (l.PortFrom != 0 || l.PortTo != 65535 || r.PortFrom != 0 || r.PortTo != 65535)
			if d.hasPorts_ {
				d.localFrom, d.localTo, d.remoteFrom, d.remoteTo = l.PortFrom, l.PortTo, r.PortFrom, r.PortTo
			}
			out = append(out, d)
		}
	}
	return out, nil
}

func (d Dynamic) set() steering.Set {
	return steering.DynamicSet(d.local.Is6(), d.hasProtocol, d.hasPorts_)
}

// Entry returns the element of a dynamic set.
func (d Dynamic) Entry() Entry {
	e := Entry{set: d.set(), element: element{key: key(d.local, d.remote)}}
	if !d.hasProtocol {
		return e
	}
	e.key = append(e.key, d.protocol, 0, 0, 0)
	if d.hasPorts_ {
		e.keyEnd = ports(bytes.Clone(e.key), d.localTo, d.remoteTo)
		e.key = ports(e.key, d.localFrom, d.remoteFrom)
	}
	return e
}

// AddDynamic puts an entry into its dynamic set.
func (t *Table) AddDynamic(d Dynamic) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := d.Entry()
	if !t.copies[0].sets[e.set.Name] {
		return fmt.Errorf("protect %s to %s: no policy is in force yet", d.local, d.remote)
	}
	x := newTransaction(t.name)
	t.each(x, func(*holding) { x.elements(unix.NFT_MSG_NEWSETELEM, e.set.Name, []element{e.element}) })
	if err := t.socket.commit(x); err != nil {
		return fmt.Errorf("add %s to %s to nftables set %s: %w", d.local, d.remote, e.set.Name, err)
	}
	return nil
}

// RemoveDynamic takes an entry out of its dynamic set, if it is there.
func (t *Table) RemoveDynamic(d Dynamic) error { return t.drop(d.Entry()) }

// key is the concatenation of addresses as the kernel compares it: each part padded to 4 octets.
func key(addresses ...netip.Addr) []byte {
	var out []byte
	for _, a := range addresses {
		out = append(out, a.AsSlice()...)
	}
	return out
}

func ports(b []byte, local, remote uint16) []byte {
	b = binary.BigEndian.AppendUint16(b, local)
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint16(b, remote)
	return append(b, 0, 0)
}
