package datapathtest

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// inLane makes a pair of SAs between the hosts in the bundle of others, or the first one of a bundle. The lowest bits of the
// SPIs tell the thread, as the engine chooses them. The pair takes over from an old one, if there is one.
func (w *World) inLane(o Options, lane int, others []*Pair, old *Pair) (*Pair, error) {
	pair, err := w.NewPair(w.A, ike.Flow{Local: w.A.V4, Remote: w.B.V4, LocalTS: whole(w.A.V4), RemoteTS: whole(w.B.V4)}, o)
	if err != nil {
		return nil, err
	}
	a, b := &pair.FromEnd, &pair.ToEnd
	a.In.SPI, b.In.SPI = a.In.SPI<<8|sa.SPI(lane), b.In.SPI<<8|sa.SPI(lane)
	a.Out.SPI, b.Out.SPI = b.In.SPI, a.In.SPI
	a.Bundle, b.Bundle = a.In.SPI, b.In.SPI
	if len(others) > 0 {
		a.Bundle, b.Bundle = others[0].FromEnd.Bundle, others[0].ToEnd.Bundle
	}
	if old != nil {
		a.ReplacesIn, b.ReplacesIn = old.FromEnd.In.SPI, old.ToEnd.In.SPI
	}
	return pair, nil
}

// bundle installs a pair of SAs for each of so many threads.
func (w *World) bundle(t *testing.T, o Options, queues int) (pairs []*Pair) {
	t.Helper()
	for lane := range queues {
		pair, err := w.inLane(o, lane, pairs, nil)
		if err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, pair)
		if err := pair.Install(); err != nil {
			t.Fatal(err)
		}
	}
	return pairs
}

// Bundle fails where a backend with several packet threads does not spread flows over the SAs that were made together for
// as many threads (RFC 9611), or loses packets of any.
func Bundle(t *testing.T, prefix string, factory Factory, queues int) {
	w := NewWorld(t, prefix, factory)
	for _, p := range []*Peer{w.A, w.B} {
		p.SetPolicy(t, respondOnly())
	}
	o := Options{Mode: sa.Transport, Encap: true}
	pairs := w.bundle(t, o, queues)
	server := netip.AddrPortFrom(w.B.V4, 7000)
	w.B.EchoUDP(t, server)
	w.B.EchoTCP(t, 7001)
	watch := w.Watch(t)
	const flows = 64
	for range flows {
		if err := w.A.TryUDP(server, 700, 5*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	failed := make(chan error, 2*queues)
	for range cap(failed) {
		go func() { failed <- w.A.TransferTCP(netip.AddrPortFrom(w.B.V4, 7001), 4<<20, 30*time.Second) }()
	}
	for range cap(failed) {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	watch().wantProtected(t)
	for _, p := range []*Peer{w.A, w.B} {
		used, report := 0, ""
		for _, c := range p.Node.Status().Children {
			report += fmt.Sprintf(" %s: %d out, %d in;", c.In, c.OutPackets, c.InPackets)
			if c.OutPackets > flows/4 {
				used++
			}
			if c.ReplayDropped+c.AuthFailed+c.SelectorMismatch+c.Discarded > 0 {
				t.Errorf("SA %s: %d packets replayed, %d not authentic, %d that do not fit, %d discarded", c.In, c.ReplayDropped, c.AuthFailed, c.SelectorMismatch, c.Discarded)
			}
		}
		if used < 2 {
			t.Errorf("%d flows went through %d SAs of %d:%s", flows+cap(failed), used, queues, report)
		}
	}
	// A rekey of one SA leaves its flows with its thread, and loses none.
	old := pairs[queues-1]
	next, err := w.inLane(o, queues-1, pairs, old)
	if err != nil {
		t.Fatal(err)
	}
	err = w.A.converse(netip.AddrPortFrom(w.B.V4, 7001), 1<<20, func() error {
		if err := next.Install(); err != nil {
			return err
		}
		return old.Remove()
	})
	if err != nil {
		t.Error(err)
	}
	for _, p := range []*Peer{w.A, w.B} {
		if n := len(p.Node.Status().Children); n != queues {
			t.Errorf("%d SAs after the rekey, want %d", n, queues)
		}
	}
}
