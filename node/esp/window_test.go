package esp

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// naiveWindow is RFC 4303 3.4.3 word for word: a set of numbers seen, and the highest.
type naiveWindow struct {
	size, highest uint64
	seen          map[uint64]bool
}

func (w *naiveWindow) fresh(seq uint64) bool {
	if seq == 0 || w.seen[seq] {
		return false
	}
	return seq > w.highest || seq+w.size > w.highest
}

func (w *naiveWindow) accept(seq uint64) {
	w.seen[seq] = true
	w.highest = max(w.highest, seq)
}

func TestWindowAgreesWithTheNaiveModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom([]uint32{32, 33, 64, 100, 128, 1000, 1024, 4095, 4096}).Draw(t, "size")
		base := rapid.SampledFrom([]uint64{0, 1, 60, 1<<32 - 50, 1 << 40}).Draw(t, "base")
		w, naive := newWindow(size), &naiveWindow{size: uint64(size), seen: map[uint64]bool{}}
		at := base
		for range rapid.IntRange(1, 200).Draw(t, "packets") {
			step := rapid.OneOf(
				rapid.Int64Range(-70, 70), rapid.Int64Range(-int64(size)-2, -int64(size)+2),
				rapid.Int64Range(-5000, 20000), rapid.Just(int64(64)), rapid.Just(int64(0)),
			).Draw(t, "step")
			seq := at + uint64(step)
			if step < 0 && uint64(-step) > at {
				seq = 0
			}
			if got, want := w.fresh(seq), naive.fresh(seq); got != want {
				t.Fatalf("fresh(%d) with highest %d and window %d: got %v, want %v", seq, naive.highest, size, got, want)
			}
			if naive.fresh(seq) {
				w.accept(seq)
				naive.accept(seq)
			}
			if w.highest != naive.highest {
				t.Fatalf("highest: got %d, want %d", w.highest, naive.highest)
			}
			at = max(naive.highest, base)
		}
	})
}

// Any full number within 2^31 of the window comes back from its low half.
func TestReconstructFindsTheNearestNumber(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWindow(rapid.Uint32Range(32, 4096).Draw(t, "size"))
		w.highest = rapid.OneOf(
			rapid.Uint64Range(0, 5000), rapid.Uint64Range(1<<32-5000, 1<<32+5000), rapid.Uint64Range(7<<32-5000, 7<<32+5000),
		).Draw(t, "highest")
		lowest := uint64(1)
		if w.highest >= w.size {
			lowest = w.highest - w.size + 1
		}
		seq := lowest + rapid.OneOf(rapid.Uint64Range(0, 10000), rapid.Uint64Range(0, 1<<32-1)).Draw(t, "ahead")
		if seq > w.highest+1<<32-w.size {
			t.Skip("further ahead than 2^32 less the window")
		}
		if got, ok := w.reconstruct(uint32(seq)); !ok || got != seq {
			t.Fatalf("highest %d, window %d, low half of %d: got %d, %v", w.highest, w.size, seq, got, ok)
		}
	})
}

func TestReconstructAtTheEdges(t *testing.T) {
	for _, c := range []struct {
		name    string
		highest uint64
		low     uint32
		want    uint64
		ok      bool
	}{
		{"first packet", 0, 1, 1, true},
		{"number 0 never travels", 0, 0, 0, false},
		{"before the first packet of all", 0, math.MaxUint32, 0, false},
		{"left of a young window that reaches below 0", 10, math.MaxUint32 - 20, 0, false},
		{"case A: bottom of the window", 1000, 1000 - 63, 1000 - 63, true},
		{"case A: one left of the window is the next subspace", 1000, 1000 - 64, 1<<32 + 1000 - 64, true},
		{"case A: top of the subspace", 1<<32 - 1, 1<<32 - 1, 1<<32 - 1, true},
		{"case A: wraps to the next subspace", 1<<32 - 1, 0, 1 << 32, true},
		{"case B: in the previous subspace", 1<<32 + 10, math.MaxUint32 - 52, 1<<32 - 53, true},
		{"case B: one left of the window is this subspace", 1<<32 + 10, math.MaxUint32 - 53, 1<<33 - 54, true},
		{"case B: in this subspace", 1<<32 + 10, 5, 1<<32 + 5, true},
		{"T at W-1 is case A", 1<<32 + 63, 0, 1 << 32, true},
		{"T at W-2 is case B", 1<<32 + 62, math.MaxUint32, 1<<32 - 1, true},
		{"last subspace", math.MaxUint64, 7, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWindow(64)
			w.highest = c.highest
			got, ok := w.reconstruct(c.low)
			if ok != c.ok || ok && got != c.want {
				t.Errorf("reconstruct(%#x) with highest %#x: got %#x, %v, want %#x, %v", c.low, c.highest, got, ok, c.want, c.ok)
			}
		})
	}
}
