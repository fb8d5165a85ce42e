// Package nftable puts a steering.Ruleset into force: one nftables table, changed in transactions, watched for what others
// do to it.
//
// Its invariant: there is no moment without rules between two rulesets, and what a call refused changed nothing. It leaves
// what the rules say to its sibling steering and what follows from a change to the backends.
package nftable

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/node/datapath/userspace/steering"
)

// Table is the nftables table of the backend. Every change is one transaction of the kernel. A call after an
// error finds what was in force before.
type Table struct {
	name   string
	port   uint32 // of the netlink socket: changes that come from it are our own
	socket *netfilterSocket
	// copies are the tables that hold the rules. Whatever one of them lets pass, the other one has to let pass as well.
	copies []copyOfTable

	mu struct {
		sync.Mutex
		// sets, maps and chains are those that the table holds now.
		sets   map[string]bool
		maps   map[string]steering.Map
		chains map[string]bool
		// base holds the counters of rules and elements that were replaced.
		base map[string]uint64
	}
}

// copyOfTable is one table with the rules.
type copyOfTable struct {
	name  string
	flags uint32
}

// guardSuffix is that of the second table.
const guardSuffix = "-guard"

// The rules must outlive the process, and no other program may take them away: neither "nft flush ruleset" nor a crash lets
// a packet pass in clear. A table with an owner is out of the reach of other programs; one that persists stays when its
// owner ends, and the next process takes it over. Linux has both from 6.9 on. From 5.12 on it has owners only: two tables
// with the same rules do it there, one that stays and one that is owned. Before that there is the watch, and a moment
// without rules until it has had them put back.
func (t *Table) protect() {
	switch {
	case t.probe(tableOwner|tablePersist, nil):
		t.copies = []copyOfTable{{t.name, tableOwner | tablePersist}}
	case t.probe(tableOwner, nil):
		t.copies = []copyOfTable{{t.name, 0}, {t.name + guardSuffix, tableOwner}}
	default:
		t.copies = []copyOfTable{{t.name, 0}}
	}
}

// Note tells what the kernel lacks to keep other programs from the rules, if it lacks something.
func (t *Table) Note() string {
	switch {
	case t.copies[0].flags != 0:
		return ""
	case len(t.copies) > 1:
		return "The kernel is older than Linux 6.9: the nftables rules stand in two tables, of which one survives a crash and the other one a flush by other programs."
	}
	return "The kernel is older than Linux 5.12: when another program flushes the nftables rules, packets pass in clear until they are back."
}

// each calls f for each copy of the table.
func (t *Table) each(x *transaction, f func(copyOfTable)) {
	for _, c := range t.copies {
		x.table = c.name
		f(c)
	}
}

// socketBuffer has to hold one transaction with tens of thousands of rules, and all its acknowledgements or notifications. It
// is a bound, not memory that is used.
const socketBuffer = 256 << 20

// setBuffer sets a buffer beyond the system's limit or, where only root of the machine may do that (in a user namespace),
// up to it: a policy that needs more is refused by the kernel when it is put into force.
func setBuffer(fd, force, ask int) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, socketBuffer)
	if errors.Is(err, unix.EPERM) {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, ask, socketBuffer)
	}
	return err
}

// widen gives a netlink socket its buffers.
func widen(c *netlink.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = errors.Join(
			setBuffer(int(fd), unix.SO_SNDBUFFORCE, unix.SO_SNDBUF),
			setBuffer(int(fd), unix.SO_RCVBUFFORCE, unix.SO_RCVBUF),
		)
	})
	return errors.Join(err, set)
}

// Open prepares for changes of the table in the network namespace of the calling thread. What the table
// holds stays in force.
func Open(name string) (*Table, error) {
	socket, err := openNetfilter()
	if err != nil {
		return nil, fmt.Errorf("open the netlink socket of nftables: %w", err)
	}
	t := &Table{name: name, port: socket.port, socket: socket}
	t.mu.sets, t.mu.maps, t.mu.chains, t.mu.base = map[string]bool{}, map[string]steering.Map{}, map[string]bool{}, map[string]uint64{}
	t.protect()
	if err := t.readExisting(); err != nil {
		return nil, errors.Join(fmt.Errorf("read nftables table inet %s: %w", name, err), socket.close())
	}
	return t, nil
}

// probe reports whether the kernel takes a table with the flags and the rule. It tries, in a table that no other
// transaction ever sees.
func (t *Table) probe(flags uint32, rule *steering.Rule) bool {
	x := newTransaction(t.name + "-probe")
	x.addTable(x.table, flags)
	if rule != nil {
		x.addChain(steering.Chain{Name: "probe"})
		x.addRule("probe", rule.Expressions(), "")
	}
	x.deleteTable(x.table)
	return t.socket.commit(x) == nil
}

// Reassembles reports whether the kernel can reassemble fragments without connection tracking.
func (t *Table) Reassembles() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.probe(0, &steering.Rule{Matches: []steering.Match{steering.Proto(unix.IPPROTO_TCP), steering.Reassembly{}}})
}

// readExisting learns what an earlier process left, and takes it over: from now on it is out of the reach of others.
func (t *Table) readExisting() error {
	found := false
	var flags uint32
	err := t.socket.dump(unix.NFT_MSG_GETTABLE, func(*transaction) {}, func(b []byte) {
		name, value := "", uint32(0)
		for kind, data := range attributes(b) {
			switch {
			case kind == unix.NFTA_TABLE_NAME:
				name = text(data)
			case kind == unix.NFTA_TABLE_FLAGS && len(data) == 4:
				value = binary.BigEndian.Uint32(data)
			}
		}
		if name == t.name {
			found, flags = true, value
		}
	})
	if err != nil || !found {
		return err
	}
	if flags&tableOwner != 0 {
		return errors.New("it belongs to another process, which still runs: there can be one backend for a network namespace")
	}
	if flags&tablePersist != 0 {
		x := newTransaction(t.name)
		x.addTable(t.name, t.copies[0].flags)
		if err := t.socket.commit(x); err != nil {
			return fmt.Errorf("take it over: %w", err)
		}
	}
	inTable := func(x *transaction) { x.text(unix.NFTA_SET_TABLE, t.name) }
	err = t.socket.dump(unix.NFT_MSG_GETSET, inTable, func(b []byte) {
		name, flags := "", uint32(0)
		for kind, data := range attributes(b) {
			switch {
			case kind == unix.NFTA_SET_NAME:
				name = text(data)
			case kind == unix.NFTA_SET_FLAGS && len(data) == 4:
				flags = binary.BigEndian.Uint32(data)
			}
		}
		if flags&unix.NFT_SET_MAP != 0 {
			t.mu.maps[name] = steering.Map{Name: name, Counted: true}
		} else {
			t.mu.sets[name] = true
		}
	})
	return err
}

func text(b []byte) string { return strings.TrimRight(string(b), "\x00") }

// Replace puts a ruleset into force in one transaction. Base chains stay hooked and named sets keep their elements, so
// there is no moment without rules; what stands in the table already, stays. With fresh, nothing is taken for granted:
// the table is made anew, and elements that belong to an earlier process go. The entries are put in, if they are not
// there.
func (t *Table) Replace(rules steering.Ruleset, fresh bool, entries []Entry) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.replaceLocked(rules, fresh, entries)
	if !fresh && errors.Is(err, unix.ENOENT) {
		// Somebody else took away what was to stay. The watch has its elements put back.
		err = t.replaceLocked(rules, true, entries)
	}
	if err != nil {
		return fmt.Errorf("replace the rules of nftables table inet %s: %w", t.name, err)
	}
	return nil
}

func (t *Table) replaceLocked(rules steering.Ruleset, fresh bool, entries []Entry) error {
	x := newTransaction(t.name)
	sets, maps, chains := map[string]bool{}, map[string]steering.Map{}, map[string]bool{}
	for _, s := range rules.Sets {
		sets[s.Name] = true
	}
	for _, m := range rules.Maps {
		maps[m.Name] = m
	}
	for _, c := range rules.Chains {
		chains[c.Name] = true
	}
	kept := map[string]bool{} // objects whose counters go on
	if !fresh {
		for name := range t.mu.maps {
			_, kept[name] = maps[name]
		}
		for _, c := range rules.Chains {
			kept[c.Name] = c.Digest && t.mu.chains[c.Name]
		}
	}
	counters := t.countersLocked(func(object string) bool { return !kept[object] })
	t.each(x, func(c copyOfTable) {
		x.addTable(c.name, 0)
		if fresh {
			x.deleteTable(c.name)
			x.addTable(c.name, c.flags)
		}
		t.fill(x, rules, fresh, sets, entries)
		if !fresh {
			t.discard(x, sets, maps, chains)
		}
	})
	if err := t.socket.commit(x); err != nil {
		return err
	}
	t.mu.sets, t.mu.maps, t.mu.chains, t.mu.base = sets, maps, chains, counters
	return nil
}

// fill adds what a table with the rules has and does not hold yet.
func (t *Table) fill(x *transaction, rules steering.Ruleset, fresh bool, sets map[string]bool, entries []Entry) {
	for _, s := range rules.Sets {
		if fresh || !t.mu.sets[s.Name] {
			x.addSet(s)
		}
	}
	for _, e := range entries {
		if sets[e.set.Name] { // else its rule is no more
			x.elements(unix.NFT_MSG_NEWSETELEM, e.set.Name, []element{e.element})
		}
	}
	// All chains before all maps, and those before all rules: each refers to the ones before.
	for _, c := range rules.Chains {
		if fresh || !t.mu.chains[c.Name] {
			x.addChain(c)
		} else if !c.Digest {
			x.flushChain(c.Name)
		}
	}
	for _, m := range rules.Maps {
		if _, there := t.mu.maps[m.Name]; fresh || !there {
			x.addMap(m)
		}
	}
	for _, c := range rules.Chains {
		if c.Digest && !fresh && t.mu.chains[c.Name] {
			continue
		}
		for _, r := range c.Rules {
			x.addRule(c.Name, r.Expressions(), r.Comment)
		}
	}
}

// discard deletes what is not wanted any more: rules first, which refer to maps, then those, which refer to chains.
func (t *Table) discard(x *transaction, sets map[string]bool, maps map[string]steering.Map, chains map[string]bool) {
	for name := range t.mu.chains {
		if !chains[name] {
			x.flushChain(name)
		}
	}
	for name := range t.mu.maps {
		if _, wanted := maps[name]; !wanted {
			x.deleteSet(name)
		}
	}
	for name := range t.mu.chains {
		if !chains[name] {
			x.deleteChain(name)
		}
	}
	for name := range t.mu.sets {
		if !sets[name] {
			x.deleteSet(name)
		}
	}
}

// Counters returns the packets that rules and elements counted, by comment.
func (t *Table) Counters() map[string]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.countersLocked(func(string) bool { return true })
}

// countersLocked returns the counters of what was replaced and of the chains and maps that are wanted. Counters inform,
// they decide nothing: what cannot be read counts nothing.
func (t *Table) countersLocked(wanted func(object string) bool) map[string]uint64 {
	out := map[string]uint64{}
	for name, n := range t.mu.base {
		out[name] = n
	}
	inTable := func(x *transaction) { x.text(unix.NFTA_RULE_TABLE, t.name) }
	_ = t.socket.dump(unix.NFT_MSG_GETRULE, inTable, func(b []byte) {
		var chain, comment string
		var packets uint64
		for kind, data := range attributes(b) {
			switch kind {
			case unix.NFTA_RULE_CHAIN:
				chain = text(data)
			case unix.NFTA_RULE_EXPRESSIONS:
				for _, e := range attributes(data) {
					packets += counted(e)
				}
			case unix.NFTA_RULE_USERDATA:
				comment, _ = userdata.GetString(data, userdata.TypeComment)
			}
		}
		if comment != "" && wanted(chain) {
			out[comment] += packets
		}
	})
	for name, m := range t.mu.maps {
		if !m.Counted || !wanted(name) {
			continue
		}
		inSet := func(x *transaction) {
			x.text(unix.NFTA_SET_ELEM_LIST_TABLE, t.name)
			x.text(unix.NFTA_SET_ELEM_LIST_SET, name)
		}
		_ = t.socket.dump(unix.NFT_MSG_GETSETELEM, inSet, func(b []byte) {
			for kind, list := range attributes(b) {
				if kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
					continue
				}
				for _, e := range attributes(list) {
					countElement(out, e)
				}
			}
		})
	}
	return out
}

func countElement(out map[string]uint64, b []byte) {
	var comment string
	var packets uint64
	for kind, data := range attributes(b) {
		switch kind {
		case unix.NFTA_SET_ELEM_EXPR:
			packets += counted(data)
		case unix.NFTA_SET_ELEM_USERDATA:
			comment, _ = userdata.GetString(data, userdata.NFTNL_UDATA_SET_ELEM_COMMENT)
		}
	}
	if comment != "" {
		out[comment] += packets
	}
}

// counted returns the packets of an expression that is a counter.
func counted(b []byte) (packets uint64) {
	counter := false
	for kind, data := range attributes(b) {
		switch kind {
		case unix.NFTA_EXPR_NAME:
			counter = text(data) == "counter"
		case unix.NFTA_EXPR_DATA:
			if !counter {
				return 0
			}
			for kind, value := range attributes(data) {
				if kind == unix.NFTA_COUNTER_PACKETS && len(value) == 8 {
					packets = binary.BigEndian.Uint64(value)
				}
			}
		}
	}
	return packets
}

// Release removes the table.
func (t *Table) Release() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	x := newTransaction(t.name)
	t.each(x, func(c copyOfTable) {
		x.addTable(c.name, 0) // so that the deletion of a table that never was is no error
		x.deleteTable(c.name)
	})
	if err := t.socket.commit(x); err != nil {
		return fmt.Errorf("remove nftables table inet %s: %w", t.name, err)
	}
	t.mu.sets, t.mu.maps, t.mu.chains = map[string]bool{}, map[string]steering.Map{}, map[string]bool{}
	return nil
}

func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.socket.close()
}
