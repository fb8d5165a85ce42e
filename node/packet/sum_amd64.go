//go:build amd64 && !purego

package packet

import "golang.org/x/sys/cpu"

// sumBlock is how many octets sumBlocks takes at a time, and 0 where this processor has no AVX2.
var sumBlock = func() int {
	if cpu.X86.HasAVX2 {
		return 128
	}
	return 0
}()

// sumBlocks adds the 32-bit words in host order of b up to the last whole block. It needs AVX2.
//
//go:noescape
func sumBlocks(b []byte) uint64
