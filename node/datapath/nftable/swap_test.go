package nftable

import "testing"

// TestSwapsLeakNothing replaces the policy a thousand times while packets flow in both directions: none leaves in clear that
// must not, none that came in clear is accepted, and those that both policies permit go on.
func TestSwapsLeakNothing(t *testing.T) {
	const swaps = 1000
	w := newWire(t)
	if err := w.put(true); err != nil {
		t.Fatal(err)
	}
	w.start(t)
	defer w.end(t)
	for i := range swaps {
		if err := w.put(false); err != nil {
			t.Fatalf("swap %d: %v", i, err)
		}
		if i%100 == 0 {
			w.more(t)
		}
	}
	w.more(t)
	if leaked, came := w.leaked.Load(), w.came.Load(); leaked != 0 || came != 0 {
		t.Errorf("%d packets left in clear that were to be protected, %d that came in clear were accepted", leaked, came)
	}
	if sent, passed := w.sent.Load(), w.passed.Load(); passed < sent/2 {
		t.Errorf("%d of %d permitted packets left: swaps stop what both policies permit", passed, sent)
	}
	t.Logf("%d swaps, %d packets each way, %d permitted ones left", swaps, w.sent.Load(), w.passed.Load())
	w.control(t, w.opener(t))
}

// opener is another program.
func (w *wire) opener(t *testing.T) *netfilterSocket {
	t.Helper()
	var other *netfilterSocket
	if err := w.host.Do(func() (err error) { other, err = openNetfilter(); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := other.close(); err != nil {
			t.Error(err)
		}
	})
	return other
}
