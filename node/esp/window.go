package esp

import "math"

// The replay window in packets.
const (
	MinReplayWindow     = 32 // RFC 4303 3.4.3
	DefaultReplayWindow = 1024
	MaxReplayWindow     = 4096
)

// window is the anti-replay window of RFC 4303 3.4.3 over full sequence numbers. The bits lie in a ring of words
// (RFC 6479), one word more than the window needs, so that moving it clears whole words.
type window struct {
	size    uint64
	mask    uint64 // words in the ring, less one
	highest uint64 // T of RFC 4303 appendix A; 0 before the first packet
	bits    [128]uint64
}

// newWindow returns a window of size packets, MinReplayWindow to MaxReplayWindow.
func newWindow(size uint32) window {
	words := uint64(1)
	for words < uint64(size)/64+2 {
		words *= 2
	}
	return window{size: uint64(size), mask: words - 1}
}

// reconstruct returns the full sequence number for the low half that travels (RFC 4303 appendix A2.2). It is false
// where that number would lie before 1 or after the last one.
func (w *window) reconstruct(low uint32) (uint64, bool) {
	topLow, topHigh := uint32(w.highest), uint32(w.highest>>32)
	bottom := topLow - uint32(w.size) + 1 // modulo 2^32
	high := topHigh
	if uint64(topLow) >= w.size-1 { // case A: the window lies in one subspace
		if low < bottom {
			if high == math.MaxUint32 {
				return 0, false
			}
			high++
		}
	} else if low >= bottom { // case B: the window spans two subspaces
		if high == 0 {
			return 0, false
		}
		high--
	}
	seq := uint64(high)<<32 | uint64(low)
	return seq, seq != 0
}

// fresh reports whether seq may be accepted: right of the window, or inside and not seen yet.
func (w *window) fresh(seq uint64) bool {
	if seq == 0 {
		return false
	}
	if seq > w.highest {
		return true
	}
	if w.highest-seq >= w.size {
		return false
	}
	return w.bits[seq/64&w.mask]&(1<<(seq%64)) == 0
}

// accept enters seq, which is fresh and whose packet is authentic.
func (w *window) accept(seq uint64) {
	if seq > w.highest {
		words := min(seq/64-w.highest/64, w.mask+1)
		for i := range words {
			w.bits[(seq/64-i)&w.mask] = 0
		}
		w.highest = seq
	}
	w.bits[seq/64&w.mask] |= 1 << (seq % 64)
}
