package ldap

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
)

// A search that is answered in parts ends when the server says so. One that never does would be read for ever, while the
// last state stays in force and nobody is told: these are the bounds.
const (
	// maxEntries is how many entries, or values of one attribute, or messages of one refresh may come: ten times those of a
	// million machines.
	maxEntries = 10_000_000
	// maxRepeatedPages is how many pages of entries that came before may come in a row. Some may: an entry that changes while
	// a domain controller is asked in the order of changes comes again.
	maxRepeatedPages = 10
	// maxEmpty is how many parts in a row may bring no entry. A domain controller sends such when it has long to look for the
	// next one.
	maxEmpty = 1000
	// maxStuck is how many of these may also end with the cookie that was asked with. Servers whose cookie never changes
	// always have entries.
	maxStuck = 2
	// maxRanges is in how many parts the values of one attribute may come.
	maxRanges = 10_000
)

// errEndless says that a search does not come to an end.
var errEndless = errors.New("the search does not come to an end")

// parts watches the cookies of a search that is answered in parts.
type parts struct{ empty, stuck int }

// next says why not to ask for the part after one that brought so many entries. The error wraps errEndless.
func (p *parts) next(asked, answered []byte, entries int64) error {
	if entries > 0 {
		*p = parts{}
		return nil
	}
	p.empty++
	p.stuck++
	if !bytes.Equal(asked, answered) {
		p.stuck = 0
	}
	switch {
	case p.stuck >= maxStuck:
		return fmt.Errorf("%w: %d times in a row the server answered without an entry and with the cookie that it was asked with, and said that more is to come", errEndless, p.stuck)
	case p.empty >= maxEmpty:
		return fmt.Errorf("%w: the last %d answers held no entry, and the server says that more is to come", errEndless, p.empty)
	}
	return nil
}

// arrivals watches the entries of a search.
type arrivals struct {
	seed    maphash.Seed
	names   map[uint64]struct{} // digests of those that came
	repeats int                 // in a row
	most    int
	// mostRepeats is how many may come again in a row.
	mostRepeats int
}

func newArrivals(pageSize uint32) *arrivals {
	return &arrivals{seed: maphash.MakeSeed(), names: map[uint64]struct{}{}, most: maxEntries, mostRepeats: maxRepeatedPages * int(pageSize)}
}

// add says why not to go on after an entry of that name. The error wraps errEndless.
func (a *arrivals) add(name string) error {
	digest := maphash.String(a.seed, name)
	if _, again := a.names[digest]; !again {
		a.names[digest] = struct{}{}
		a.repeats = 0
		if len(a.names) > a.most {
			return fmt.Errorf("%w: the server has sent more than %d entries", errEndless, a.most)
		}
		return nil
	}
	if a.repeats++; a.repeats > a.mostRepeats {
		return fmt.Errorf("%w: the server has sent %d entries in a row that it had sent before, the last is %.200q", errEndless, a.repeats, name)
	}
	return nil
}
