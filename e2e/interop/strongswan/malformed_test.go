package strongswan

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/interop/handmade"
	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

// TestMalformedMessages sends a running node thousands of messages that are not quite: every beginning of a first message
// and of a protected one, both with octets changed, and noise. It stays up, counts them, answers nothing in the SA that
// they claim to be of, and lets the next peer in.
func TestMalformedMessages(t *testing.T) {
	shows(t, 61)
	x := againstNode(t, pair.Policy{})
	peer := handmade.New(t, x.config)
	x.establish(peer)
	dropped := x.counter("ike_dropped_malformed")
	r := rand.New(rand.NewPCG(1, 2))
	sealed := peer.Seal(wire.Informational, 2, false, wire.Delete{Protocol: wire.ProtocolIKE})
	// A sender of its own, so that the refusals of first messages do not come to the peer that has the SA.
	config := x.config
	config.Local = netip.AddrPortFrom(config.Local.Addr(), 5500)
	stranger := handmade.New(t, config)
	sent := 0
	for _, original := range [][]byte{stranger.InitRequest(), sealed} {
		for n := range original {
			stranger.Send(original[:n])
			spoilt := slices.Clone(original)
			spoilt[n] ^= byte(1 + r.IntN(255))
			stranger.Send(spoilt)
			sent += 2
		}
		peer.Alive()
	}
	for range 500 {
		noise := handmade.Random(1 + r.IntN(600))
		stranger.Send(noise)
		sent++
	}
	peer.Alive()
	if now := x.counter("ike_dropped_malformed"); now < dropped+100 {
		t.Errorf("the node counts %d malformed messages more of %d", now-dropped, sent)
	}
	select {
	case <-x.Process.Done():
		t.Fatal("the node ended")
	default:
	}
	if ours := x.Ours(); len(ours.Children) != 1 {
		t.Errorf("the node has %+v, want the child that it had", ours.Children)
	}
}
