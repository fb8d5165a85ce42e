// Package nftable puts a steering.Ruleset into force: one nftables table, changed in transactions, watched for what others
// do to it.
//
// Its invariant: there is no moment without rules between two rulesets, and what a call refused changed nothing. It leaves
// what the rules say to its sibling steering and what follows from a change to the backends.
package nftable

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
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
	copies []*holding

	mu struct {
		sync.Mutex
		salt   string // of the names of what has a digest for a name
		wanted contents
		serial int // of the replacements
		// base holds the counters of what is no more, under names that the rules in force still count under.
		base  map[string]uint64
		names map[string]bool // of the rules in force
	}
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
	case t.probe(tableOwner|tablePersist, steering.HookNone, nil):
		t.copies = []*holding{{name: t.name, flags: tableOwner | tablePersist}}
	case t.probe(tableOwner, steering.HookNone, nil):
		t.copies = twoCopies(t.name)
	default:
		t.copies = []*holding{{name: t.name}}
	}
}

func twoCopies(name string) []*holding {
	return []*holding{{name: name}, {name: name + guardSuffix, flags: tableOwner}}
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
func (t *Table) each(x *transaction, f func(*holding)) {
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

// Open prepares for changes of the table in the network namespace of the calling thread, or with an owner (NewOwner) in
// that one's. What the table holds stays in force.
func Open(name string, owner *os.File) (*Table, error) {
	var socket *netfilterSocket
	var err error
	if owner != nil {
		socket, err = adoptNetfilter(owner)
	} else {
		socket, err = openNetfilter()
	}
	if err != nil {
		return nil, fmt.Errorf("open the netlink socket of nftables: %w", err)
	}
	t := &Table{name: name, port: socket.port, socket: socket}
	t.mu.base = map[string]uint64{}
	t.protect()
	if err := t.takeOver(); err != nil {
		return nil, errors.Join(fmt.Errorf("read nftables table inet %s: %w", name, err), socket.close())
	}
	return t, nil
}

// probe reports whether the kernel takes a table with the flags and the rule at a hook. It tries, in a table that no other
// transaction ever sees.
func (t *Table) probe(flags uint32, hook steering.Hook, rule *steering.Rule) bool {
	x := newTransaction(t.name + "-probe")
	x.addTable(x.table, flags)
	if rule != nil {
		x.addChain(steering.Chain{Name: "probe", Hook: hook})
		x.addRule("probe", rule.Expressions(), "")
	}
	x.deleteTable(x.table)
	return t.socket.commit(x) == nil
}

// Reassembles reports whether the kernel can reassemble fragments without connection tracking.
func (t *Table) Reassembles() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.probe(0, steering.HookNone, &steering.Rule{Matches: []steering.Match{steering.Proto(unix.IPPROTO_TCP), steering.Reassembly{}}})
}

// Takes reports whether the kernel takes a rule at a hook.
func (t *Table) Takes(hook steering.Hook, rule steering.Rule) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.probe(0, hook, &rule)
}

// takeOver learns what an earlier process left, and makes it its own: from now on it is out of the reach of others.
func (t *Table) takeOver() error {
	first := t.copies[0]
	flags, port, err := first.read(t.socket)
	if err != nil || !first.exists {
		return err
	}
	t.mu.wanted = first.contents
	switch {
	case flags&tableOwner != 0 && port == t.port: // of a process that died, whose socket this is
	case flags&tableOwner != 0:
		return errors.New("it belongs to another process, which still runs: there can be one backend for a network namespace (for a dead process, systemd may keep the socket until the unit is stopped)")
	case flags&tablePersist != 0:
		x := newTransaction(t.name)
		x.addTable(t.name, first.flags)
		if err := t.socket.commit(x); err != nil {
			return fmt.Errorf("take it over: %w", err)
		}
	case first.flags != 0: // of an earlier release; no table can get an owner later
		t.copies = twoCopies(t.name)
		t.copies[0].contents, t.copies[0].exists = first.contents, true
	}
	return nil
}

func text(b []byte) string { return strings.TrimRight(string(b), "\x00") }

// Replace puts a ruleset into force in one transaction, after another one that makes what the rules refer to. Base chains
// stay hooked and named sets keep their elements, so there is no moment without rules; what stands in the table already, stays. With fresh, nothing is taken for granted
// that is there, and the elements of sets, which belong to an earlier process, go. The entries are put in, if they are not
// there.
//
// A packet may be among the old rules while the kernel changes over to the new ones, and it must find their maps full.
// They are deleted when no packet can be there any more.
func (t *Table) Replace(rules steering.Ruleset, fresh bool, entries []Entry) error {
	serial, err := t.replace(rules, fresh, entries)
	if err != nil {
		return fmt.Errorf("replace the rules of nftables table inet %s: %w", t.name, err)
	}
	if passed() {
		t.sweep(serial)
	}
	return nil
}

// tries is how often a replacement begins anew because others change the table meanwhile.
const tries = 10

// passed waits until no packet is where any was when it was called, and reports whether the kernel can tell: the barrier of
// membarrier(2) is a grace period of RCU, under which packets pass the rules.
func passed() bool {
	const global = 1 // MEMBARRIER_CMD_GLOBAL
	_, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0)
	return errno == 0
}

func (t *Table) replace(rules steering.Ruleset, fresh bool, entries []Entry) (serial int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweepLocked() // what is left if the kernel has no barrier
	err = t.replaceLocked(rules, fresh, entries)
	for try := 0; try < tries && errors.Is(err, unix.ENOENT); try++ {
		// Somebody else took away what was to stay. The watch has its elements put back.
		err = t.replaceLocked(rules, true, entries)
	}
	if err == nil {
		t.mu.serial++
	}
	return t.mu.serial, err
}

func (t *Table) replaceLocked(rules steering.Ruleset, fresh bool, entries []Entry) error {
	if fresh {
		b := make([]byte, 4)
		_, _ = rand.Read(b) // it cannot fail (crypto/rand)
		t.mu.salt = "_" + hex.EncodeToString(b)
		for _, c := range t.copies {
			if _, _, err := c.read(t.socket); err != nil {
				return err
			}
		}
	}
	rules = salted(rules, t.mu.salt)
	wanted := contentsOf(rules)
	flushed := func(object string) bool { return t.copies[0].chains[object] && !strings.HasSuffix(object, t.mu.salt) }
	counters := t.countersLocked(flushed)
	x := newTransaction(t.name)
	t.each(x, func(c *holding) { c.prepare(x, rules) })
	if err := t.socket.commit(x); err != nil {
		return err
	}
	for _, c := range t.copies {
		c.exists = true
		c.add(wanted)
	}
	x = newTransaction(t.name)
	t.each(x, func(c *holding) { c.enforce(x, rules, wanted, fresh, entries) })
	if err := t.socket.commit(x); err != nil {
		return err
	}
	t.mu.wanted, t.mu.names = wanted, rules.Counters()
	t.keepLocked(counters)
	return nil
}

// sweep deletes what the replacement with the serial number left over.
func (t *Table) sweep(serial int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.serial == serial {
		t.sweepLocked()
	}
}

// sweepLocked deletes what is not wanted any more. What cannot be deleted is out of force, and is tried again.
func (t *Table) sweepLocked() {
	left := t.copies[0].without(t.mu.wanted)
	var counters map[string]uint64
	if !left.empty() {
		counters = t.countersLocked(left.holds)
	}
	x := newTransaction(t.name)
	t.each(x, func(c *holding) { c.without(t.mu.wanted).discard(x) })
	if x.last == 0 || t.socket.commit(x) != nil {
		return
	}
	for _, c := range t.copies {
		c.contents = c.only(t.mu.wanted)
	}
	if counters != nil {
		t.keepLocked(counters)
	}
}

// keepLocked remembers counters of what is no more. Policies come and go, and what none counts any more would add up for ever.
func (t *Table) keepLocked(counters map[string]uint64) {
	maps.DeleteFunc(counters, func(name string, _ uint64) bool { return !t.mu.names[name] })
	t.mu.base = counters
}

// Counters returns the packets that rules and elements counted, by comment.
func (t *Table) Counters() map[string]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.countersLocked(func(string) bool { return true })
}

// countersLocked returns the counters of what was replaced and of the chains and maps that are wanted. What the copy drops
// that sees a packet first is not counted in the other one, so that the greater number counts. Counters inform, they decide
// nothing: what cannot be read counts nothing.
func (t *Table) countersLocked(wanted func(object string) bool) map[string]uint64 {
	most := map[string]uint64{}
	for _, c := range t.copies {
		for name, n := range c.counters(t.socket, wanted) {
			most[name] = max(most[name], n)
		}
	}
	for name, n := range t.mu.base {
		most[name] += n
	}
	return most
}

// counters returns what the chains and maps that are wanted have counted.
func (c *holding) counters(s *netfilterSocket, wanted func(object string) bool) map[string]uint64 {
	out := map[string]uint64{}
	inTable := func(x *transaction) { x.text(unix.NFTA_RULE_TABLE, c.name) }
	_ = s.dump(unix.NFT_MSG_GETRULE, inTable, func(b []byte) {
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
	for name, counts := range c.maps {
		if !counts || !wanted(name) {
			continue
		}
		inSet := func(x *transaction) {
			x.text(unix.NFTA_SET_ELEM_LIST_TABLE, c.name)
			x.text(unix.NFTA_SET_ELEM_LIST_SET, name)
		}
		_ = s.dump(unix.NFT_MSG_GETSETELEM, inSet, func(b []byte) {
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
	t.each(x, func(c *holding) {
		x.addTable(c.name, 0) // so that the deletion of a table that never was is no error
		x.deleteTable(c.name)
	})
	if err := t.socket.commit(x); err != nil {
		return fmt.Errorf("remove nftables table inet %s: %w", t.name, err)
	}
	for _, c := range t.copies {
		c.contents, c.exists = contents{}, false
	}
	t.mu.wanted = contents{}
	return nil
}

func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.socket.close()
}
