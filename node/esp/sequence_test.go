package esp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"sync"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

func TestSequenceStartsAtOneAndStopsForGood(t *testing.T) {
	for _, esn := range []bool{false, true} {
		suite := suites["chacha20-poly1305"]
		suite.ESN = esn
		out, in := newPair(t, testChild(t, suite, sa.Tunnel, false))
		b := sealed(t, out, udp(1, false))
		if o, err := open(in, b); err != nil || o.Sequence != 1 {
			t.Errorf("esn=%v: first packet: got number %d, %v", esn, o.Sequence, err)
		}
		last := uint64(math.MaxUint32)
		if esn {
			last = math.MaxUint64
		}
		out.sequence.last.Store(last - 1)
		if _, err := out.Seal(nil, udp(1, false)); err != nil {
			t.Errorf("esn=%v: last number: %v", esn, err)
		}
		for range 3 {
			if got, err := out.Seal(nil, udp(1, false)); !errors.Is(err, ErrExhausted) || len(got) != 0 {
				t.Errorf("esn=%v: after the last number: got %x, %v", esn, got, err)
			}
		}
		if fork, err := out.Fork(); err != nil {
			t.Error(err)
		} else if _, err := fork.Seal(nil, udp(1, false)); !errors.Is(err, ErrExhausted) {
			t.Errorf("esn=%v: a fork after the last number: got %v", esn, err)
		}
	}
}

func TestForksNeverShareANumber(t *testing.T) {
	for _, name := range []string{"aes-gcm-128", "aes-cbc-128-sha256"} {
		t.Run(name, func(t *testing.T) { testForks(t, suites[name]) })
	}
}

func testForks(t *testing.T, suite proposal.ESP) {
	out, _ := newPair(t, testChild(t, suite, sa.Tunnel, false))
	const forks, packets = 4, 500
	numbers := make([][]uint32, forks)
	var wg sync.WaitGroup
	for k := range forks {
		fork, err := out.Fork()
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for range packets {
				b, err := fork.Seal(nil, udp(1, false))
				if err != nil {
					t.Error(err)
					return
				}
				numbers[k] = append(numbers[k], binary.BigEndian.Uint32(b[4:]))
			}
		})
	}
	wg.Wait()
	all := slices.Concat(numbers...)
	slices.Sort(all)
	if len(all) != forks*packets || len(slices.Compact(all)) != forks*packets || out.Stats().Sequence != forks*packets {
		t.Errorf("got %d numbers, last %d, want %d different ones", len(all), out.Stats().Sequence, forks*packets)
	}
}

func TestKeysMayBeWiped(t *testing.T) {
	for name, suite := range suites {
		c := testChild(t, suite, sa.Tunnel, false)
		out, in := newPair(t, c)
		c.Out.Encryption.Wipe()
		c.Out.Integrity.Wipe()
		fork, err := out.Fork()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, o := range []*Outbound{fork, out, fork} {
			if got, err := open(in, sealed(t, o, udp(9, false))); err != nil || !bytes.Equal(got.Packet, udp(9, false)) {
				t.Errorf("%s: got %x, %v", name, got.Packet, err)
			}
		}
	}
}

func TestCBCNeverRepeatsAnIV(t *testing.T) {
	out, _ := newPair(t, testChild(t, suites["aes-cbc-128-sha256"], sa.Tunnel, false))
	seen := map[[16]byte]bool{}
	for range 1000 {
		b, err := out.Seal(nil, udp(1, false))
		if err != nil {
			t.Fatal(err)
		}
		iv := [16]byte(b[8:24])
		if seen[iv] {
			t.Fatalf("IV %x occurs twice", iv)
		}
		seen[iv] = true
	}
}
