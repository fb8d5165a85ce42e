// Package nftable puts a steering.Ruleset into force: one nftables table, changed in transactions, watched for what others
// do to it.
//
// Its invariant: there is no moment without rules between two rulesets, and what a call refused changed nothing. It leaves
// what the rules say to its sibling steering and what follows from a change to the backends.
package nftable

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/node/datapath/userspace/steering"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// Table is the nftables table of the backend. Every change is one transaction of the kernel. A call after an
// error finds what was in force before.
type Table struct {
	table *nftables.Table
	port  uint32 // of the netlink socket: changes that come from it are our own

	mu struct {
		sync.Mutex
		conn *nftables.Conn
		// sets and chains are those that the table holds now.
		sets   map[string]bool
		chains map[string]bool
		// base holds the counters of rules that were replaced.
		base map[string]uint64
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
	var port uint32
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		port = c.PID()
		return widen(c)
	}))
	if err != nil {
		return nil, fmt.Errorf("open the netlink socket of nftables: %w", err)
	}
	t := &Table{table: &nftables.Table{Family: nftables.TableFamilyINet, Name: name}, port: port}
	t.mu.conn = conn
	t.mu.sets, t.mu.chains, t.mu.base = map[string]bool{}, map[string]bool{}, map[string]uint64{}
	if err := t.readExisting(); err != nil {
		return nil, errors.Join(fmt.Errorf("read nftables table inet %s: %w", name, err), conn.CloseLasting())
	}
	return t, nil
}

func (t *Table) readExisting() error {
	tables, err := t.mu.conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return err
	}
	found := false
	for _, other := range tables {
		found = found || other.Name == t.table.Name
	}
	if !found {
		return nil
	}
	sets, err := t.mu.conn.GetSets(t.table)
	if err != nil {
		return err
	}
	for _, s := range sets {
		t.mu.sets[s.Name] = true
	}
	chains, err := t.mu.conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return err
	}
	for _, c := range chains {
		if c.Table.Name == t.table.Name {
			t.mu.chains[c.Name] = true
		}
	}
	return nil
}

// Replace puts a ruleset into force in one transaction. Base chains stay hooked and named sets keep their elements, so
// there is no moment without rules. With fresh, the elements of sets, which belong to an earlier process, go. The dynamic
// entries are put in, if they are not there.
func (t *Table) Replace(rules steering.Ruleset, fresh bool, entries []Dynamic) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.mu.conn
	counters := t.countersLocked()
	c.AddTable(t.table)
	sets, chains := map[string]bool{}, map[string]bool{}
	for _, s := range rules.Sets {
		sets[s.Name] = true
		if err := c.AddSet(t.set(s), nil); err != nil {
			return fmt.Errorf("encode nftables set %s: %w", s.Name, err)
		}
		if fresh && t.mu.sets[s.Name] {
			c.FlushSet(t.set(s))
		}
	}
	for _, e := range entries {
		if err := c.SetAddElements(t.set(e.set()), []nftables.SetElement{e.element()}); err != nil {
			return fmt.Errorf("encode an element of nftables set %s: %w", e.set().Name, err)
		}
	}
	// All chains before all rules: rules refer to chains.
	for _, chain := range rules.Chains {
		chains[chain.Name] = true
		c.AddChain(t.chain(chain))
		c.FlushChain(t.chain(chain))
	}
	for name := range t.mu.chains {
		if !chains[name] {
			c.FlushChain(&nftables.Chain{Table: t.table, Name: name})
		}
	}
	for _, chain := range rules.Chains {
		for _, rule := range chain.Rules {
			c.AddRule(&nftables.Rule{
				Table: t.table, Chain: &nftables.Chain{Table: t.table, Name: chain.Name}, Exprs: rule.Expressions(),
				UserData: userdata.AppendString(nil, userdata.TypeComment, rule.Comment),
			})
		}
	}
	for name := range t.mu.chains {
		if !chains[name] {
			c.DelChain(&nftables.Chain{Table: t.table, Name: name})
		}
	}
	for name := range t.mu.sets {
		if !sets[name] {
			c.DelSet(&nftables.Set{Table: t.table, Name: name})
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("replace the rules of nftables table inet %s: %w", t.table.Name, err)
	}
	t.mu.sets, t.mu.chains = sets, chains
	t.mu.base = counters
	return nil
}

func (t *Table) set(s steering.Set) *nftables.Set {
	address := nftables.TypeIPAddr
	if s.IPv6 {
		address = nftables.TypeIP6Addr
	}
	var types []nftables.SetDatatype
	for _, f := range s.Key {
		switch f {
		case steering.Local, steering.Remote:
			types = append(types, address)
		case steering.Protocol:
			types = append(types, nftables.TypeInetProto)
		case steering.LocalPort, steering.RemotePort:
			types = append(types, nftables.TypeInetService)
		}
	}
	return &nftables.Set{
		Table: t.table, Name: s.Name, KeyType: nftables.MustConcatSetType(types...), Concatenation: true,
		HasTimeout: s.Timeout, Interval: s.Interval,
	}
}

func (t *Table) chain(c steering.Chain) *nftables.Chain {
	out := &nftables.Chain{Table: t.table, Name: c.Name}
	if c.Hook == steering.HookNone {
		return out
	}
	out.Type, out.Priority = nftables.ChainTypeFilter, nftables.ChainPriorityMangle
	if c.Late {
		out.Priority = nftables.ChainPriorityRef(*nftables.ChainPriorityNATSource + 1)
	}
	policy := nftables.ChainPolicyAccept
	out.Policy = &policy
	switch c.Hook {
	case steering.HookPrerouting:
		out.Hooknum = nftables.ChainHookPrerouting
	case steering.HookInput:
		out.Hooknum = nftables.ChainHookInput
	case steering.HookForward:
		out.Hooknum = nftables.ChainHookForward
	case steering.HookOutput:
		out.Hooknum, out.Type = nftables.ChainHookOutput, nftables.ChainTypeRoute
	case steering.HookPostrouting:
		out.Hooknum = nftables.ChainHookPostrouting
	case steering.HookNone: // has no place in the stack
	}
	return out
}

// Reassembles reports whether the kernel can reassemble fragments without connection tracking. It tries, in a table that
// no other transaction ever sees.
func (t *Table) Reassembles() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.mu.conn
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: t.table.Name + "-probe"})
	chain := c.AddChain(&nftables.Chain{Table: table, Name: "probe"})
	rule := steering.Rule{Matches: []steering.Match{steering.Proto(unix.IPPROTO_TCP), steering.Reassembly{}}}
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: rule.Expressions()})
	c.DelTable(table)
	return c.Flush() == nil
}

// pair is the key of a soft or secured set.
type Pair struct{ Local, Remote netip.Addr }

// Add puts a pair into a set, for a time if ttl is not 0. A pair that is there already gets the new time.
func (t *Table) Add(s steering.Set, p Pair, ttl time.Duration) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.mu.sets[s.Name] {
		return fmt.Errorf("add %s to %s in nftables set %s: the policy in force has no such set", p.Local, p.Remote, s.Name)
	}
	element := nftables.SetElement{Key: key(p.Local, p.Remote), Timeout: ttl}
	// An element that exists keeps its time: it is replaced in one transaction.
	c := t.mu.conn
	bare := nftables.SetElement{Key: element.Key}
	if err := errors.Join(c.SetAddElements(t.set(s), []nftables.SetElement{bare}),
		c.SetDeleteElements(t.set(s), []nftables.SetElement{bare}),
		c.SetAddElements(t.set(s), []nftables.SetElement{element})); err != nil {
		return fmt.Errorf("encode an element of nftables set %s: %w", s.Name, err)
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("add %s to %s to nftables set %s: %w", p.Local, p.Remote, s.Name, err)
	}
	return nil
}

// Remove takes a pair out of a set, if it is there.
func (t *Table) Remove(s steering.Set, p Pair) error {
	return t.drop(s, nftables.SetElement{Key: key(p.Local, p.Remote)})
}

// drop takes an element out of a set, if it is there: it is added first, which changes nothing for one that exists.
func (t *Table) drop(s steering.Set, elements ...nftables.SetElement) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.mu.sets[s.Name] {
		return nil
	}
	c := t.mu.conn
	if err := errors.Join(c.SetAddElements(t.set(s), elements), c.SetDeleteElements(t.set(s), elements)); err != nil {
		return fmt.Errorf("encode an element of nftables set %s: %w", s.Name, err)
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("remove an element from nftables set %s: %w", s.Name, err)
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

func (d Dynamic) element() nftables.SetElement {
	from := key(d.local, d.remote)
	if !d.hasProtocol {
		return nftables.SetElement{Key: from}
	}
	from = append(from, d.protocol, 0, 0, 0)
	if !d.hasPorts_ {
		return nftables.SetElement{Key: from}
	}
	to := bytes.Clone(from)
	return nftables.SetElement{Key: ports(from, d.localFrom, d.remoteFrom), KeyEnd: ports(to, d.localTo, d.remoteTo)}
}

// AddDynamic puts an entry into its dynamic set.
func (t *Table) AddDynamic(d Dynamic) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := d.set()
	if !t.mu.sets[s.Name] {
		return fmt.Errorf("protect %s to %s: no policy is in force yet", d.local, d.remote)
	}
	if err := t.mu.conn.SetAddElements(t.set(s), []nftables.SetElement{d.element()}); err != nil {
		return fmt.Errorf("encode an element of nftables set %s: %w", s.Name, err)
	}
	if err := t.mu.conn.Flush(); err != nil {
		return fmt.Errorf("add %s to %s to nftables set %s: %w", d.local, d.remote, s.Name, err)
	}
	return nil
}

// RemoveDynamic takes an entry out of its dynamic set, if it is there.
func (t *Table) RemoveDynamic(d Dynamic) error { return t.drop(d.set(), d.element()) }

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

// Counters returns the packets that the rules counted, by comment.
func (t *Table) Counters() map[string]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.countersLocked()
}

func (t *Table) countersLocked() map[string]uint64 {
	out := map[string]uint64{}
	for name, n := range t.mu.base {
		out[name] = n
	}
	for name := range t.mu.chains {
		rules, err := t.mu.conn.GetRules(t.table, &nftables.Chain{Table: t.table, Name: name})
		if err != nil {
			continue // counters inform, they decide nothing
		}
		for _, r := range rules {
			comment, ok := userdata.GetString(r.UserData, userdata.TypeComment)
			if !ok || comment == "" {
				continue
			}
			for _, e := range r.Exprs {
				if c, ok := e.(*expr.Counter); ok {
					out[strings.TrimSuffix(comment, "\x00")] += c.Packets
				}
			}
		}
	}
	return out
}

// Release removes the table.
func (t *Table) Release() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.conn.AddTable(t.table) // so that the deletion of a table that never was is no error
	t.mu.conn.DelTable(t.table)
	if err := t.mu.conn.Flush(); err != nil {
		return fmt.Errorf("remove nftables table inet %s: %w", t.table.Name, err)
	}
	t.mu.sets, t.mu.chains = map[string]bool{}, map[string]bool{}
	return nil
}

// Close ends the use of the table, which stays in force.
func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.conn.CloseLasting()
}
