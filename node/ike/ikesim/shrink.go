package ikesim

import "time"

// Shrink takes away from a plan whose world breaks what it can without mending it: steps, then faults, then waits. tries
// bounds the worlds that it plays.
func Shrink(p Plan, tries int) Plan {
	fails := func(q Plan) bool {
		if tries == 0 {
			return false
		}
		tries--
		return len(Play(q, false).Broken) > 0
	}
	without := func(from, count int) Plan {
		q := p
		q.Steps = append(append([]Step(nil), p.Steps[:from]...), p.Steps[from+count:]...)
		return q
	}
	for again := true; again; {
		again = false
		for size := max(1, len(p.Steps)/2); size > 0; size /= 2 {
			for from := 0; from+size <= len(p.Steps); {
				if q := without(from, size); fails(q) {
					p, again = q, true
				} else {
					from += size
				}
			}
		}
		for _, ease := range []func(f *Faults){
			func(f *Faults) { *f = Faults{Delay: f.Delay} },
			func(f *Faults) { f.Loss = 0 },
			func(f *Faults) { f.Duplicate = 0 },
			func(f *Faults) { f.Jitter = 0 },
			func(f *Faults) { f.JobTime = 0 },
			func(f *Faults) { f.Delay = 10 * time.Millisecond },
		} {
			q := p
			if ease(&q.Faults); q.Faults != p.Faults && fails(q) {
				p, again = q, true
			}
		}
		for i := range p.Steps {
			q := without(0, 0)
			if q.Steps[i].After = q.Steps[i].After.Truncate(time.Second); q.Steps[i] != p.Steps[i] && fails(q) {
				p, again = q, true
			}
		}
	}
	return p
}
