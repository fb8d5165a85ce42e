package contentsync

import (
	"iter"
	"maps"
	"slices"

	"github.com/bailiwick-net/bailiwick/directory"
)

// content is what is known of a server's entries: the snapshot that they last made, and what has changed since. A change
// costs what it touches, and entries are kept once. It is used by one goroutine.
type content struct {
	snapshot *directory.Snapshot // nil before the first
	base     directory.DN        // that the snapshot was asked for with
	// others are the entries of that time that a snapshot does not hold as they are: those that mean nothing, and those with
	// problems.
	others map[directory.UUID]Item
	// changed are the entries since, nil for those that are gone; before the first snapshot all of them.
	changed map[directory.UUID]*Item
	// arrived has the changed entries in the order in which they came before the first snapshot, with some that were
	// replaced: servers send what stands together next to each other, which is half the work of sorting.
	arrived []arrival
	len     int
}

type arrival struct {
	uuid directory.UUID
	item *Item
}

func newContent() content {
	return content{others: map[directory.UUID]Item{}, changed: map[directory.UUID]*Item{}}
}

// clone returns content that changes on its own.
func (c content) clone() content {
	if c.others == nil {
		return newContent()
	}
	c.others, c.changed, c.arrived = maps.Clone(c.others), maps.Clone(c.changed), slices.Clip(c.arrived)
	return c
}

func (c *content) get(u directory.UUID) (Item, bool) {
	if item, ok := c.changed[u]; ok {
		if item == nil {
			return Item{}, false
		}
		return *item, true
	}
	return c.settled(u)
}

// settled returns an entry as it was when the snapshot was made.
func (c *content) settled(u directory.UUID) (Item, bool) {
	if item, ok := c.others[u]; ok {
		return item, true
	}
	if c.snapshot == nil {
		return Item{}, false
	}
	o, ok := c.snapshot.Object(u)
	if !ok {
		return Item{}, false
	}
	return itemOf(o), true
}

func itemOf(o directory.Object) Item {
	_, dn := o.Identity()
	return Item{DN: dn, Object: o}
}

func (c *content) put(u directory.UUID, item Item) {
	if _, known := c.get(u); !known {
		c.len++
	}
	c.changed[u] = &item
	if c.snapshot == nil {
		if len(c.arrived) > 2*len(c.changed)+1000 {
			c.arrived = slices.DeleteFunc(slices.Clone(c.arrived), func(a arrival) bool { return c.changed[a.uuid] != a.item })
		}
		c.arrived = append(c.arrived, arrival{u, &item})
	}
}

// drop takes an entry away, and says whether there was one.
func (c *content) drop(u directory.UUID) bool {
	if _, known := c.get(u); !known {
		return false
	}
	c.len--
	if _, before := c.settled(u); before {
		c.changed[u] = nil
	} else {
		delete(c.changed, u)
	}
	return true
}

// all yields every entry. The content must not be changed meanwhile.
func (c *content) all() iter.Seq2[directory.UUID, Item] {
	return func(yield func(directory.UUID, Item) bool) {
		if !c.apart(yield) || c.snapshot == nil {
			return
		}
		objects := func(yield func(directory.Object) bool) {
			for o := range c.snapshot.Containers() {
				if !yield(o) {
					return
				}
			}
			for o := range c.snapshot.Machines() {
				if !yield(o) {
					return
				}
			}
			for o := range c.snapshot.Groups() {
				if !yield(o) {
					return
				}
			}
		}
		c.shared(objects, yield)
	}
}

// below yields the entries below a name. The content must not be changed meanwhile.
func (c *content) below(dn directory.DN) iter.Seq2[directory.UUID, Item] {
	return func(yield func(directory.UUID, Item) bool) {
		more := c.apart(func(u directory.UUID, item Item) bool {
			return !item.DN.IsDescendantOf(dn) || yield(u, item)
		})
		if more && c.snapshot != nil {
			c.shared(c.snapshot.Below(dn), yield)
		}
	}
}

// apart yields the entries that are not in the snapshot as they are.
func (c *content) apart(yield func(directory.UUID, Item) bool) bool {
	if c.snapshot == nil {
		for _, a := range c.arrived {
			if c.changed[a.uuid] == a.item && !yield(a.uuid, *a.item) {
				return false
			}
		}
		return true
	}
	for u, item := range c.changed {
		if item != nil && !yield(u, *item) {
			return false
		}
	}
	for u, item := range c.others {
		if _, changed := c.changed[u]; !changed && !yield(u, item) {
			return false
		}
	}
	return true
}

// shared yields those of the snapshot's objects that are entries as they are.
func (c *content) shared(objects iter.Seq[directory.Object], yield func(directory.UUID, Item) bool) {
	for o := range objects {
		u, _ := o.Identity()
		_, changed := c.changed[u]
		_, apart := c.others[u]
		if !changed && !apart && !yield(u, itemOf(o)) {
			return
		}
	}
}

// build makes the snapshot anew. After an error everything stays, so that further changes may mend it.
func (c *content) build(base directory.DN) (*directory.Snapshot, error) {
	var next *directory.Snapshot
	var err error
	if c.snapshot == nil || c.base.String() != base.String() {
		b := directory.NewBuilder(base)
		for _, item := range c.all() {
			if item.Object != nil {
				b.Add(item.Object)
			}
			b.AddProblem(item.Problems...)
		}
		next, err = b.Build()
	} else {
		next, err = c.edit()
	}
	if err != nil {
		return nil, err
	}
	c.snapshot, c.base = next, base
	for u, item := range c.changed {
		if item == nil || item.plain() {
			delete(c.others, u)
		} else {
			c.others[u] = *item
		}
	}
	c.changed, c.arrived = map[directory.UUID]*Item{}, nil
	return next, nil
}

func (c *content) edit() (*directory.Snapshot, error) {
	e := c.snapshot.Edit()
	problems := false
	for u, item := range c.changed {
		problems = problems || len(c.others[u].Problems) > 0
		if item == nil {
			e.Remove(u)
			continue
		}
		problems = problems || len(item.Problems) > 0
		if item.Object == nil {
			e.Remove(u)
		} else {
			e.Put(item.Object)
		}
	}
	if problems {
		var all []directory.Problem
		c.apart(func(_ directory.UUID, item Item) bool {
			all = append(all, item.Problems...)
			return true
		})
		e.SetProblems(all)
	}
	return e.Build()
}

// plain says that a snapshot holds all that is known of the entry.
func (i Item) plain() bool { return i.Object != nil && len(i.Problems) == 0 }
