package packet

import (
	"math/rand/v2"
	"testing"
)

// The vectors and the scalar loop give the very same sum, for each length and however full the words are.
func TestSumIsTheSameWithAndWithoutVectors(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	octets := make([]byte, 64<<10)
	for _, fill := range []func() byte{
		func() byte { return 0 }, func() byte { return 0xff }, func() byte { return byte(random.Uint32()) },
	} {
		for i := range octets {
			octets[i] = fill()
		}
		for length := range 2200 {
			b := octets[length%37:][:length]
			if got, want := Sum(b, 0x1234), sumScalar(b, 0, 0x1234); got != want {
				t.Fatalf("%d octets: got %#x, want %#x", length, got, want)
			}
		}
		if got, want := Sum(octets, 0), sumScalar(octets, 0, 0); got != want {
			t.Fatalf("%d octets: got %#x, want %#x", len(octets), got, want)
		}
	}
}
