package steering

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/bits"
	"slices"
)

// A list of filters in order of weight becomes a tree: a verdict map over one dimension leads to the filters that are
// still possible, and so on. What a packet costs grows with the depth of the tree, of which each level resolves a
// dimension for good, and not with the number of filters.
//
// The order of weights stays exact. A map is made of the elementary intervals of its dimension, between the bounds of
// all its filters; within one, each filter describes either every value or none, so the filters of the interval, still in
// their order, are all there is to ask. Filters that leave the dimension open stand in every interval where a later one
// does not. When the list of an interval finds nothing, its chain returns, and behind the map stand the filters that
// leave the dimension open once more, followed by all that come after: those are what a packet whose dimension cannot be
// read (NFT_BREAK) is held against, too.

// outcome is what becomes of the packets of a filter.
type outcome struct {
	Verdict Verdict
	Target  string
	Comment string
}

// item is a filter with what becomes of its packets.
type item struct {
	spans [dimensions]span
	bound uint8   // bit d: spans[d] counts
	extra []Match // conditions that no map knows
	outcome
}

func (i *item) bind(d Dimension, s span) { i.bound, i.spans[d] = i.bound|1<<d, s }

// entry is an item in a part of the tree, where dimensions that were looked up no longer count.
type entry struct {
	*item
	bound uint8
}

func (e entry) binds(d Dimension) bool { return e.bound>>d&1 == 1 }

// certain tells that the entry describes every packet that comes here.
func (e entry) certain() bool { return e.bound == 0 && len(e.extra) == 0 }

const (
	// straight lists are faster without a map.
	straight = 4
	// deepest is how many chains a tree may have below its first one: the kernel bounds the length of any way through the
	// chains of a table (16), and the way of a forwarded packet leads through two trees.
	deepest = 4
	// A dimension with few values that nearly all filters name is looked up first: the many values of another dimension
	// are then the last level, whose elements can hold the verdict itself.
	fewParts = 16
	// growth bounds how often filters may stand in the parts of one map, as a multiple of their number, beyond allowance;
	// overgrowth how often they may stand in all maps of a tree.
	growth     = 4
	overgrowth = 24
	allowance  = 64
)

// tree builds the chains and maps of one list of items of one family.
type tree struct {
	v6, quoted bool
	counted    bool
	out        *Ruleset
	seen       map[string]bool // chains and maps that are in out
	deepest    int
	room       int // how many more members its parts may have before it grows no more
}

func (t *tree) key(d Dimension) Key { return Key{Of: d, IPv6: t.v6, Quoted: t.quoted} }

// rules returns the rules that hold a packet against items, in their order.
func (t *tree) rules(items []item) []Rule {
	list := make([]entry, len(items))
	for i := range items {
		list[i] = entry{&items[i], items[i].bound}
	}
	t.room = overgrowth*len(items) + allowance
	return t.build(list, 0)
}

// build returns the rules of a list; depth counts the chains above.
func (t *tree) build(list []entry, depth int) []Rule {
	var out []Rule
	for len(list) > 0 {
		if i := slices.IndexFunc(list, entry.certain); i >= 0 {
			list = list[:i+1]
		}
		cut, found := t.choose(list)
		if !found || depth == t.deepest {
			n := min(len(list), straight)
			for _, e := range list[:n] {
				out = append(out, t.rule(e))
			}
			list = list[n:]
			continue
		}
		out = append(out, t.build(list[:cut.start], depth)...)
		var rest []entry
		for _, e := range list[cut.start:cut.length] {
			if !e.binds(cut.dimension) {
				rest = append(rest, e)
			}
		}
		t.room -= cut.total
		out = append(out, t.decide(list, cut, depth))
		list = append(rest, list[cut.length:]...)
	}
	return out
}

// rule holds a packet against one entry.
func (t *tree) rule(e entry) Rule {
	r := Rule{Verdict: e.Verdict, Target: e.Target, Comment: e.Comment}
	for d := range dimensions {
		if e.binds(d) {
			r.Matches = append(r.Matches, t.key(d).match(e.spans[d]))
		}
	}
	r.Matches = append(r.Matches, e.extra...)
	return r
}

// decide makes the rule that looks a dimension up.
func (t *tree) decide(list []entry, c division, depth int) Rule {
	if len(c.parts) == 1 { // one value that all have in common
		to := t.lead(list, c.dimension, c.parts[0].members, depth)
		return Rule{Matches: []Match{t.key(c.dimension).match(c.parts[0].span)}, Verdict: to.Verdict, Target: to.Target, Comment: to.Comment}
	}
	m := Map{Key: t.key(c.dimension), Counted: t.counted}
	for _, p := range c.parts {
		to := t.lead(list, c.dimension, p.members, depth)
		from, until := p.from.octets(m.Key), p.to.octets(m.Key)
		if n := len(m.Elements); n > 0 && m.Elements[n-1].outcome() == to && p.follows {
			m.Elements[n-1].To = until
			continue
		}
		m.Elements = append(m.Elements, Element{From: from, To: until, Verdict: to.Verdict, Target: to.Target, Comment: to.Comment})
	}
	return Rule{Map: t.addMap(m)}
}

// lead returns what leads to the members of a part.
func (t *tree) lead(list []entry, d Dimension, members []int32, depth int) outcome {
	sub := make([]entry, len(members))
	for i, m := range members {
		sub[i] = list[m]
		sub[i].bound &^= 1 << d
	}
	if sub[0].certain() {
		return sub[0].outcome
	}
	return outcome{Verdict: Jump, Target: t.addChain(t.build(sub, depth+1))}
}

func (t *tree) addChain(rules []Rule) string {
	h := sha256.New()
	for _, r := range rules {
		fmt.Fprintln(h, r.text())
	}
	name := "c_" + hex.EncodeToString(h.Sum(nil)[:8])
	if !t.seen[name] {
		t.seen[name] = true
		t.out.Chains = append(t.out.Chains, Chain{Name: name, Digest: true, Rules: rules})
	}
	return name
}

func (t *tree) addMap(m Map) *Map {
	h := sha256.New()
	fmt.Fprintln(h, m.Key, m.Counted)
	for _, e := range m.Elements {
		m.Interval = m.Interval || string(e.From) != string(e.To)
		fmt.Fprintf(h, "%x-%x %d %s %q\n", e.From, e.To, e.Verdict, e.Target, e.Comment)
	}
	m.Name = "m_" + hex.EncodeToString(h.Sum(nil)[:8])
	if !t.seen[m.Name] {
		t.seen[m.Name] = true
		t.out.Maps = append(t.out.Maps, m)
	}
	return &m
}

// division is a way to look up one dimension of some entries of a list.
type division struct {
	dimension Dimension
	start     int // entries in front of it
	length    int // entries in front of it and those that it decides about
	parts     []part
	total     int // members of all parts
	longest   int // members of the longest part
	rest      int // entries that stand behind the map
	bound     int // entries of the part of the list that name the dimension
}

// part is an interval of a dimension with the entries that are possible there, by their index. Where only entries are
// possible that leave the dimension open, there is no part.
type part struct {
	span
	follows bool // the part before it ends where this one begins
	members []int32
}

// choose picks the dimension to look up next. It finds none where that would save nothing.
func (t *tree) choose(list []entry) (best division, found bool) {
	if len(list) <= straight {
		return division{}, false
	}
	var all uint8
	for _, e := range list {
		all |= e.bound
	}
	var few division
	for d := range dimensions {
		if all>>d&1 == 0 {
			continue
		}
		c, ok := t.divide(list, d)
		if !ok {
			continue
		}
		if len(c.parts) <= fewParts && 8*c.bound >= 7*len(list) && (few.parts == nil || len(c.parts) < len(few.parts)) {
			few = c
		}
		if c.longest+c.rest+straight <= len(list) && (!found || c.cost() < best.cost()) {
			best, found = c, true
		}
	}
	if few.parts != nil {
		return few, true
	}
	return best, found
}

// cost is what a packet may have to be held against, and then the size.
func (c division) cost() uint64 {
	hi, lo := bits.Mul64(uint64(c.longest+c.rest), 1<<32)
	if hi != 0 {
		return ^uint64(0)
	}
	return lo + uint64(c.total)
}

// divide looks for the longest beginning of a list whose parts are not much more than its entries.
func (t *tree) divide(list []entry, d Dimension) (best division, found bool) {
	for length := 2 * straight; ; length *= 2 {
		length = min(length, len(list))
		if c, ok := partition(list, d, length, t.limit(length)); ok {
			best, found = c, true
		} else if found || length > 8*allowance {
			return best, found
		}
		if length == len(list) {
			return best, found
		}
	}
}

// limit bounds the members of the parts of a map over as many entries.
func (t *tree) limit(entries int) int {
	if t.room <= 0 {
		return entries
	}
	return growth*entries + allowance
}

// partition cuts a dimension into elementary intervals. It gives up when the parts grow beyond their bound.
func partition(list []entry, d Dimension, length, limit int) (division, bool) {
	for length > 0 && !list[length-1].binds(d) {
		length-- // what nothing follows that names the dimension is found behind the map
	}
	c := division{dimension: d, length: length}
	for c.start < length && !list[c.start].binds(d) {
		c.start++ // and what comes before them needs to stand in one place only
	}
	type edge struct {
		at    position
		entry int32
		ends  bool
	}
	edges := make([]edge, 0, 2*(length-c.start))
	var open []int32
	for i, e := range list[:length] {
		if i < c.start {
			continue
		}
		if !e.binds(d) {
			open = append(open, int32(i))
			continue
		}
		edges = append(edges, edge{at: e.spans[d].from, entry: int32(i)})
		if after, ok := e.spans[d].to.next(); ok {
			edges = append(edges, edge{at: after, entry: int32(i), ends: true})
		}
	}
	if len(edges) == 0 {
		return division{}, false
	}
	c.bound = length - c.start - len(open)
	c.rest = len(list) - c.bound
	slices.SortFunc(edges, func(a, b edge) int { return a.at.compare(b.at) })
	last := position{^uint64(0), ^uint64(0)}
	var active []int32
	for i := 0; i < len(edges); {
		at := edges[i].at
		for ; i < len(edges) && edges[i].at == at; i++ {
			j, there := slices.BinarySearch(active, edges[i].entry)
			switch {
			case there && edges[i].ends:
				active = slices.Delete(active, j, j+1)
			case !there && !edges[i].ends:
				active = slices.Insert(active, j, edges[i].entry)
			}
		}
		if len(active) == 0 {
			continue
		}
		p := part{span: span{from: at, to: last}, members: merge(active, open)}
		if i < len(edges) {
			p.to = edges[i].at.before()
		}
		if k := slices.IndexFunc(p.members, func(m int32) bool { return list[m].without(d).certain() }); k >= 0 {
			p.members = p.members[:k+1]
		}
		if n := len(c.parts); n > 0 {
			after, ok := c.parts[n-1].to.next()
			p.follows = ok && after == at
		}
		c.parts = append(c.parts, p)
		c.total += len(p.members)
		c.longest = max(c.longest, len(p.members))
		if c.total > limit {
			return division{}, false
		}
	}
	return c, true
}

func (e entry) without(d Dimension) entry {
	e.bound &^= 1 << d
	return e
}

// merge returns the active entries and, in their order, those open ones that come before the last of them.
func merge(active, open []int32) []int32 {
	n, _ := slices.BinarySearch(open, active[len(active)-1])
	out := append(append(make([]int32, 0, n+len(active)), open[:n]...), active...)
	slices.Sort(out)
	return out
}
