package engine

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestAgenda compares the heap with a plain list, through any order of changes.
func TestAgenda(t *testing.T) {
	begin := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		const things = 20
		var g agenda[int]
		var all [things]appointment[int]
		var model [things]time.Time // zero: not in the agenda
		for i := range all {
			all[i].of, all[i].seq = i, uint64(i)
		}
		due := func(now time.Time) (list []int) {
			for i, at := range model {
				if !at.IsZero() && !now.Before(at) {
					list = append(list, i)
				}
			}
			return list
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			i := rapid.IntRange(0, things-1).Draw(t, "thing")
			at := begin.Add(time.Duration(rapid.IntRange(0, 10).Draw(t, "at")) * time.Second)
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0, 1:
				g.set(&all[i], at)
				model[i] = at
			case 2:
				g.set(&all[i], time.Time{})
				model[i] = time.Time{}
			case 3:
				var taken []int
				for _, a := range g.take(at, nil) {
					taken = append(taken, a.of)
				}
				want := due(at)
				for _, w := range want {
					model[w] = time.Time{}
				}
				if !slices.Equal(taken, want) {
					t.Fatalf("at %s %v are due, want %v", at, taken, want)
				}
			}
			var first time.Time
			count := 0
			for k, m := range model {
				if (all[k].place > 0) != !m.IsZero() {
					t.Fatalf("thing %d is at place %d, want %s", k, all[k].place, m)
				}
				if m.IsZero() {
					continue
				}
				count++
				if first.IsZero() || m.Before(first) {
					first = m
				}
			}
			if !g.first().Equal(first) || len(g.heap) != count {
				t.Fatalf("the first of %d is %s, want %s of %d", len(g.heap), g.first(), first, count)
			}
		}
	})
}

// TestChain keeps the order of adding whatever is removed.
func TestChain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const things = 10
		var c chain[int]
		var links [things]link[int]
		var model []int
		for i := range links {
			links[i].of = i
		}
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			i := rapid.IntRange(0, things-1).Draw(t, "thing")
			if rapid.Bool().Draw(t, "add") {
				if !slices.Contains(model, i) {
					model = append(model, i)
				}
				c.add(&links[i])
			} else {
				model = slices.DeleteFunc(model, func(m int) bool { return m == i })
				c.remove(&links[i])
			}
			if all := c.all(); !slices.Equal(all, model) && len(all)+len(model) > 0 || c.length != len(model) {
				t.Fatalf("the chain has %v (%d), want %v", all, c.length, model)
			}
		}
	})
}
