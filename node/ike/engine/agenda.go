package engine

import (
	"slices"
	"time"
)

// agenda is a heap of points in time: the first one is at hand, changing one costs O(log n). Equal times are ordered by
// the order of the making of what they belong to, so that nothing depends on the history of the heap.
type agenda[T any] struct{ heap []*appointment[T] }

// appointment is the point in time of one thing; zero is none. It is part of that thing and in one agenda at most.
type appointment[T any] struct {
	of    T
	seq   uint64 // order of the making
	at    time.Time
	place int // index in the heap plus one; 0: not there
}

// first is the earliest time; zero when there is none.
func (g *agenda[T]) first() time.Time {
	if len(g.heap) == 0 {
		return time.Time{}
	}
	return g.heap[0].at
}

// set moves an appointment; zero ends it.
func (g *agenda[T]) set(a *appointment[T], at time.Time) {
	if a.place > 0 && at.Equal(a.at) {
		return
	}
	a.at = at
	switch {
	case at.IsZero():
		g.remove(a)
	case a.place == 0:
		g.heap = append(g.heap, a)
		a.place = len(g.heap)
		g.up(a.place - 1)
	default:
		i := a.place - 1
		g.up(i)
		g.down(a.place - 1)
	}
}

func (g *agenda[T]) remove(a *appointment[T]) {
	if a.place == 0 {
		return
	}
	i, last := a.place-1, len(g.heap)-1
	g.swap(i, last)
	g.heap[last] = nil
	g.heap = g.heap[:last]
	a.place = 0
	if i < last {
		moved := g.heap[i]
		g.up(i)
		g.down(moved.place - 1)
	}
}

// take removes what is due, appends it to list in the order of its making, and returns that. The appointments keep their
// times, so that whoever handles one sees whether another has moved it meanwhile.
func (g *agenda[T]) take(now time.Time, list []*appointment[T]) []*appointment[T] {
	for len(g.heap) > 0 && !now.Before(g.heap[0].at) {
		a := g.heap[0]
		g.remove(a)
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b *appointment[T]) int {
		if a.seq < b.seq {
			return -1
		}
		return 1
	})
	return list
}

func (g *agenda[T]) less(i, j int) bool {
	a, b := g.heap[i], g.heap[j]
	return a.at.Before(b.at) || a.at.Equal(b.at) && a.seq < b.seq
}

func (g *agenda[T]) swap(i, j int) {
	g.heap[i], g.heap[j] = g.heap[j], g.heap[i]
	g.heap[i].place, g.heap[j].place = i+1, j+1
}

func (g *agenda[T]) up(i int) {
	for i > 0 && g.less(i, (i-1)/2) {
		g.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

func (g *agenda[T]) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(g.heap) {
			return
		}
		if child+1 < len(g.heap) && g.less(child+1, child) {
			child++
		}
		if !g.less(child, i) {
			return
		}
		g.swap(i, child)
		i = child
	}
}

// chain is a list in the order of making; adding and removing cost O(1).
type chain[T any] struct {
	first, last *link[T]
	length      int
}

// link is the place of one thing in a chain. It is part of that thing.
type link[T any] struct {
	of         T
	prev, next *link[T]
	in         bool
}

func (c *chain[T]) add(l *link[T]) {
	if l.in {
		return
	}
	l.in, l.prev, l.next = true, c.last, nil
	if c.last == nil {
		c.first = l
	} else {
		c.last.next = l
	}
	c.last = l
	c.length++
}

func (c *chain[T]) remove(l *link[T]) {
	if !l.in {
		return
	}
	if l.prev == nil {
		c.first = l.next
	} else {
		l.prev.next = l.next
	}
	if l.next == nil {
		c.last = l.prev
	} else {
		l.next.prev = l.prev
	}
	l.in, l.prev, l.next = false, nil, nil
	c.length--
}

// all is what is in the chain now, so that it may change while the list is read.
func (c *chain[T]) all() []T {
	list := make([]T, 0, c.length)
	for l := c.first; l != nil; l = l.next {
		list = append(list, l.of)
	}
	return list
}
