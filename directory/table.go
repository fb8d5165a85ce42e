package directory

import (
	"iter"
	"slices"
)

// A table is a list in the order of a key that no two items share. It is immutable: an edit makes another one, which
// shares every chunk that it leaves alone. Where chunks end depends on the items and not on how the table came about: equal
// content has equal chunks, so that digests of chunks add up to a digest of the content, and the difference of two
// tables is in the chunks that they do not share.
type table[T any] struct {
	chunks []*chunk[T]
	len    int
}

// chunk is a run of items. Its last one is where an order says that chunks end, but for the last chunk of a table.
type chunk[T any] struct {
	items []T
	sum   Digest // zero in tables that have no digest, and before it is worked out
}

func (c *chunk[T]) last() T { return c.items[len(c.items)-1] }

// chunkSize is how many items a chunk has on average: an edit copies that many, and as many pointers as there are chunks.
const chunkSize = 256

// order is the order of a table and where its chunks end.
type order[T comparable] struct {
	compare func(a, b T) int
	// prefix orders as compare does where it differs: most comparisons of a sort need no more.
	prefix func(T) uint64
	ends   func(T) bool
}

// sort sorts in place.
func (o order[T]) sort(items []T) {
	if len(items) < 2 {
		return
	}
	type keyed struct {
		prefix uint64
		item   T
	}
	all := make([]keyed, len(items))
	for i, item := range items {
		all[i] = keyed{o.prefix(item), item}
	}
	slices.SortFunc(all, func(a, b keyed) int {
		switch {
		case a.prefix < b.prefix:
			return -1
		case a.prefix > b.prefix:
			return 1
		}
		return o.compare(a.item, b.item)
	})
	for i := range all {
		items[i] = all[i].item
	}
}

// edit returns the table without the items of gone, which it has, and with those of fresh. Both are sorted in place. clash is
// called with two items of one key; the result is of no use then.
func (o order[T]) edit(t table[T], gone, fresh []T, clash func(a, b T)) table[T] {
	o.sort(gone)
	o.sort(fresh)
	e := editing[T]{order: o, clash: clash}
	e.out.chunks = make([]*chunk[T], 0, len(t.chunks)+2+len(fresh)/chunkSize*2)
	e.out.len = t.len - len(gone) + len(fresh)
	i := 0
	for len(gone)+len(fresh) > 0 || len(e.open) > 0 && i < len(t.chunks) {
		if len(e.open) == 0 {
			kept := o.before(t.chunks[i:], gone, fresh)
			e.out.chunks = append(e.out.chunks, t.chunks[i:i+kept]...)
			i += kept
		}
		if i == len(t.chunks) {
			e.put(fresh)
			break
		}
		for _, item := range t.chunks[i].items {
			n := 0
			for n < len(fresh) && o.compare(fresh[n], item) < 0 {
				n++
			}
			e.put(fresh[:n])
			fresh = fresh[n:]
			if len(gone) > 0 && gone[0] == item {
				gone = gone[1:]
				continue
			}
			e.push(item, false)
		}
		i++
		if i < len(t.chunks) {
			continue
		}
		e.put(fresh)
		break
	}
	e.close()
	e.out.chunks = append(e.out.chunks, t.chunks[i:]...)
	return e.out
}

// before counts the chunks at the beginning that the next change leaves alone.
func (o order[T]) before(chunks []*chunk[T], gone, fresh []T) int {
	var next T
	switch {
	case len(gone) == 0, len(fresh) > 0 && o.compare(fresh[0], gone[0]) < 0:
		next = fresh[0]
	default:
		next = gone[0]
	}
	n, _ := slices.BinarySearchFunc(chunks, next, func(c *chunk[T], next T) int { return o.compare(c.last(), next) })
	// What comes behind a last chunk that does not end there belongs to it.
	if n > 0 && n == len(chunks) && !o.ends(chunks[n-1].last()) {
		n--
	}
	return n
}

// editing is a table in the making: its chunks so far, and the items of the one that is open.
type editing[T comparable] struct {
	order[T]
	out   table[T]
	open  []T
	clash func(a, b T)
	prev  T
	had   bool // prev is set
	fresh bool // prev is a new item
}

func (e *editing[T]) put(items []T) {
	for _, item := range items {
		e.push(item, true)
	}
}

func (e *editing[T]) push(item T, fresh bool) {
	if e.had && (fresh || e.fresh) && e.compare(e.prev, item) == 0 {
		e.clash(e.prev, item)
	}
	e.prev, e.had, e.fresh = item, true, fresh
	e.open = append(e.open, item)
	if e.ends(item) {
		e.close()
	}
}

func (e *editing[T]) close() {
	if len(e.open) > 0 {
		e.out.chunks = append(e.out.chunks, &chunk[T]{items: slices.Clone(e.open)})
		e.open = e.open[:0]
	}
}

// seek returns the place of the first item that is not before what compare looks for. compare tells how an item stands to it.
func (t table[T]) seek(compare func(T) int) (chunk, item int) {
	lo, hi := 0, len(t.chunks)
	for lo < hi {
		if mid := (lo + hi) / 2; compare(t.chunks[mid].last()) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == len(t.chunks) {
		return lo, 0
	}
	items := t.chunks[lo].items
	i, j := 0, len(items)
	for i < j {
		if mid := (i + j) / 2; compare(items[mid]) < 0 {
			i = mid + 1
		} else {
			j = mid
		}
	}
	return lo, i
}

// find returns the item that compare looks for.
func (t table[T]) find(compare func(T) int) (item T, ok bool) {
	c, i := t.seek(compare)
	if c == len(t.chunks) || compare(t.chunks[c].items[i]) != 0 {
		return item, false
	}
	return t.chunks[c].items[i], true
}

// equal yields the items, next to each other, that compare takes for equal to what it looks for.
func (t table[T]) equal(compare func(T) int) iter.Seq[T] {
	return func(yield func(T) bool) {
		c, i := t.seek(compare)
		for ; c < len(t.chunks); c, i = c+1, 0 {
			for _, item := range t.chunks[c].items[i:] {
				if compare(item) != 0 || !yield(item) {
					return
				}
			}
		}
	}
}

// all yields every item.
func (t table[T]) all() iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, c := range t.chunks {
			for _, item := range c.items {
				if !yield(item) {
					return
				}
			}
		}
	}
}

// difference calls each with every item of either table that is not the very same in the other, in their order: with the
// two items of one key, or with the zero value where a table has none. What both share is passed over.
func (o order[T]) difference(old, next table[T], each func(was, is T)) {
	var none T
	a, b := cursor[T]{table: old}, cursor[T]{table: next}
	for {
		for a.item == 0 && b.item == 0 && !a.end() && !b.end() && old.chunks[a.chunk] == next.chunks[b.chunk] {
			a.chunk++
			b.chunk++
		}
		switch {
		case a.end() && b.end():
			return
		case b.end():
			each(a.next(), none)
			continue
		case a.end():
			each(none, b.next())
			continue
		}
		was, is := a.get(), b.get()
		if was == is {
			a.next()
			b.next()
			continue
		}
		switch d := o.compare(was, is); {
		case d < 0:
			each(a.next(), none)
		case d > 0:
			each(none, b.next())
		default:
			each(a.next(), b.next())
		}
	}
}

// cursor is a place in a table.
type cursor[T any] struct {
	table       table[T]
	chunk, item int
}

func (c *cursor[T]) end() bool { return c.chunk == len(c.table.chunks) }
func (c *cursor[T]) get() T    { return c.table.chunks[c.chunk].items[c.item] }

func (c *cursor[T]) next() T {
	item := c.get()
	if c.item++; c.item == len(c.table.chunks[c.chunk].items) {
		c.chunk, c.item = c.chunk+1, 0
	}
	return item
}
