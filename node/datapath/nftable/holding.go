package nftable

import (
	"encoding/binary"
	"errors"
	"maps"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/node/datapath/userspace/steering"
)

// contents are the names of what a table holds.
type contents struct {
	sets, chains map[string]bool
	maps         map[string]bool // true where elements count packets
}

// holding is one table and what it holds, wanted or not yet deleted.
type holding struct {
	name   string
	flags  uint32
	exists bool
	contents
}

func contentsOf(rules steering.Ruleset) contents {
	c := contents{sets: map[string]bool{}, chains: map[string]bool{}, maps: map[string]bool{}}
	for _, s := range rules.Sets {
		c.sets[s.Name] = true
	}
	for _, m := range rules.Maps {
		c.maps[m.Name] = m.Counted
	}
	for _, chain := range rules.Chains {
		c.chains[chain.Name] = true
	}
	return c
}

// pick returns what f chooses of the names.
func (c contents) pick(f func(there map[string]bool, name string) bool, other contents) contents {
	some := func(from, there map[string]bool) map[string]bool {
		out := map[string]bool{}
		for name, v := range from {
			if f(there, name) {
				out[name] = v
			}
		}
		return out
	}
	return contents{sets: some(c.sets, other.sets), chains: some(c.chains, other.chains), maps: some(c.maps, other.maps)}
}

func (c contents) without(other contents) contents {
	return c.pick(func(there map[string]bool, name string) bool { _, ok := there[name]; return !ok }, other)
}

func (c contents) only(other contents) contents {
	return c.pick(func(there map[string]bool, name string) bool { _, ok := there[name]; return ok }, other)
}

// add makes the union. The maps of contents may be shared, so they are replaced.
func (c *contents) add(other contents) {
	union := func(a, b map[string]bool) map[string]bool {
		out := map[string]bool{}
		maps.Copy(out, a)
		maps.Copy(out, b)
		return out
	}
	c.sets, c.chains, c.maps = union(c.sets, other.sets), union(c.chains, other.chains), union(c.maps, other.maps)
}

func (c contents) empty() bool { return len(c.sets)+len(c.chains)+len(c.maps) == 0 }

// holds reports whether a chain or a map is among the contents.
func (c contents) holds(object string) bool {
	_, isMap := c.maps[object]
	return isMap || c.chains[object]
}

// discard deletes contents: rules first, which refer to maps, then those, which refer to chains.
func (c contents) discard(x *transaction) {
	for name := range c.chains {
		x.flushChain(name)
	}
	for name := range c.maps {
		x.deleteSet(name)
	}
	for name := range c.chains {
		x.deleteChain(name)
	}
	for name := range c.sets {
		x.deleteSet(name)
	}
}

// prepare adds what the rules refer to and this table does not hold: nothing of it is asked yet. The kernel fills the
// maps of intervals of a transaction only after it has put its rules into force; for a moment those rules would find them
// empty, and packets would pass that none of them permits.
func (c *holding) prepare(x *transaction, rules steering.Ruleset) {
	if c.exists {
		x.addTable(c.name, 0)
	} else {
		x.addTable(c.name, c.flags)
	}
	for _, s := range rules.Sets {
		if !c.sets[s.Name] {
			x.addSet(s)
		}
	}
	// All chains before all maps, and those before all rules: each refers to the ones before.
	for _, chain := range rules.Chains {
		if !c.chains[chain.Name] {
			x.addChain(chain)
		}
	}
	for _, m := range rules.Maps {
		if _, there := c.maps[m.Name]; !there {
			x.addMap(m)
		}
	}
	for _, chain := range rules.Chains {
		if chain.Digest && !c.chains[chain.Name] {
			x.addRules(chain)
		}
	}
}

// enforce puts the rules into force whose chains, sets and maps have been prepared.
func (c *holding) enforce(x *transaction, rules steering.Ruleset, wanted contents, fresh bool, entries []Entry) {
	x.addTable(c.name, 0)
	for _, s := range rules.Sets {
		if fresh {
			x.elements(unix.NFT_MSG_DELSETELEM, s.Name, nil)
		}
	}
	for _, e := range entries {
		if wanted.sets[e.set.Name] { // else its rule is no more
			x.elements(unix.NFT_MSG_NEWSETELEM, e.set.Name, []element{e.element})
		}
	}
	for _, chain := range rules.Chains {
		if !chain.Digest {
			x.flushChain(chain.Name)
			x.addRules(chain)
		}
	}
}

func (x *transaction) addRules(chain steering.Chain) {
	for _, r := range chain.Rules {
		x.addRule(chain.Name, r.Expressions(), r.Comment)
	}
}

// salted returns the rules with other names for what has a digest for a name, so that nothing is mistaken for them that
// stands in the table already and may have been changed by others.
func salted(rules steering.Ruleset, salt string) steering.Ruleset {
	digests := map[string]bool{}
	for _, c := range rules.Chains {
		digests[c.Name] = c.Digest
	}
	name := func(s string) string {
		if digests[s] {
			return s + salt
		}
		return s
	}
	out := steering.Ruleset{Sets: rules.Sets}
	for _, m := range rules.Maps {
		m.Name += salt
		elements := make([]steering.Element, len(m.Elements))
		for i, e := range m.Elements {
			e.Target = name(e.Target)
			elements[i] = e
		}
		m.Elements = elements
		out.Maps = append(out.Maps, m)
	}
	for _, c := range rules.Chains {
		c.Name = name(c.Name)
		list := make([]steering.Rule, len(c.Rules))
		for i, r := range c.Rules {
			r.Target = name(r.Target)
			if r.Map != nil {
				m := *r.Map
				m.Name += salt
				r.Map = &m
			}
			list[i] = r
		}
		c.Rules = list
		out.Chains = append(out.Chains, c)
	}
	return out
}

// read learns what the kernel holds of the table, its flags, and the port of the socket that it belongs to.
func (c *holding) read(s *netfilterSocket) (flags, owner uint32, err error) {
	c.exists = false
	c.contents = contents{sets: map[string]bool{}, chains: map[string]bool{}, maps: map[string]bool{}}
	err = s.dump(unix.NFT_MSG_GETTABLE, func(*transaction) {}, func(b []byte) {
		if name, value := named(b, unix.NFTA_TABLE_NAME, unix.NFTA_TABLE_FLAGS); name == c.name {
			c.exists, flags = true, value
			_, owner = named(b, unix.NFTA_TABLE_NAME, tableOwnerPort)
		}
	})
	if err != nil || !c.exists {
		return 0, 0, err
	}
	// The name of the table is attribute 1 of every message.
	inTable := func(x *transaction) { x.text(unix.NFTA_SET_TABLE, c.name) }
	err = errors.Join(
		s.dump(unix.NFT_MSG_GETSET, inTable, func(b []byte) {
			name, flags := named(b, unix.NFTA_SET_NAME, unix.NFTA_SET_FLAGS)
			switch {
			case flags&unix.NFT_SET_ANONYMOUS != 0: // it goes with its rule
			case flags&unix.NFT_SET_MAP != 0:
				c.maps[name] = true
			default:
				c.sets[name] = true
			}
		}),
		s.dump(unix.NFT_MSG_GETCHAIN, func(*transaction) {}, func(b []byte) {
			if table, _ := named(b, unix.NFTA_CHAIN_TABLE, 0); table == c.name {
				name, _ := named(b, unix.NFTA_CHAIN_NAME, 0)
				c.chains[name] = true
			}
		}),
	)
	return flags, owner, err
}

// named returns an attribute that is a text and one that is a number.
func named(b []byte, nameKind, valueKind uint16) (name string, value uint32) {
	for kind, data := range attributes(b) {
		switch {
		case kind == nameKind:
			name = strings.TrimRight(string(data), "\x00")
		case kind == valueKind && len(data) == 4:
			value = binary.BigEndian.Uint32(data)
		}
	}
	return name, value
}
