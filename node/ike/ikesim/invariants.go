package ikesim

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/engine"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// The invariants of the engine, with the numbers of the design: I1 no black hole, I2 keys are never used twice, I3 one
// IKE SA per pair at rest, I4 message IDs, I5 progress, I7 bounded cost, I8 both sides agree, I9 determinism (the caller
// runs a world twice).

func (w *World) broken(format string, args ...any) {
	s := fmt.Sprintf("%10.3f ", w.Now.Sub(Start).Seconds()) + fmt.Sprintf(format, args...)
	w.logf("BROKEN %s", s)
	w.Broken = append(w.Broken, s)
}

// sendKey names one message of one side.
type sendKey struct {
	spis     [16]byte
	flags    byte
	id       [4]byte
	exchange byte
	epoch    int
	node     *Node
}

// checkSend: I4, a repeated message is repeated octet for octet. One message is one set of fragments.
func (w *World) checkSend(n *Node, s ike.Send) {
	if len(s.Bytes) < 28 || s.Bytes[18] == 34 {
		return
	}
	if s.Bytes[16] != 46 && s.Bytes[16] != 53 {
		return // unprotected errors answer whatever came
	}
	k := sendKey{
		spis: [16]byte(s.Bytes[:16]), flags: s.Bytes[19], id: [4]byte(s.Bytes[20:24]), exchange: s.Bytes[18], epoch: n.epoch, node: n,
	}
	part := "all"
	if s.Bytes[16] == 53 {
		part = fmt.Sprintf("%x", s.Bytes[32:36])
	}
	sum := sha256.Sum256(s.Bytes)
	id := part + fmt.Sprintf("%x", sum[:8])
	for _, seen := range w.sends[k] {
		if seen == id {
			return
		}
		if strings.HasPrefix(seen, part) {
			w.broken("I4 %s: message %x of exchange %d is repeated with other octets", n.Name, k.id, k.exchange)
		}
	}
	w.sends[k] = append(w.sends[k], id)
}

// checkInstall: I2, keys are never used twice; I8, the other side has the same.
func (w *World) checkInstall(n *Node, c sa.Child) {
	for dir, k := range map[string]sa.Keys{"in": c.In, "out": c.Out} {
		key := string(k.Encryption.Expose()) + string(k.Integrity.Expose())
		// The same key belongs to the inbound half here and to the outbound half at the peer: one SPI at one receiver.
		receiver := c.Local.Addr()
		if dir == "out" {
			receiver = c.Remote.Addr()
		}
		name := fmt.Sprintf("%s/%s", receiver, k.SPI)
		if old, seen := w.keys[key]; seen && old != name {
			w.broken("I2 %s: SA %s has the key of %s", n.Name, name, old)
		}
		w.keys[key] = name
	}
	peer := w.at(c.Remote.Addr())
	if peer == nil {
		return
	}
	for _, spi := range peer.order {
		p := peer.SADB[spi]
		if p == nil || p.Child.In.SPI != c.Out.SPI || p.Child.Out.SPI != c.In.SPI {
			continue
		}
		if !p.Child.In.Encryption.Equal(c.Out.Encryption) || !p.Child.Out.Encryption.Equal(c.In.Encryption) ||
			p.Child.Suite != c.Suite || p.Child.Mode != c.Mode {
			w.broken("I8 %s and %s disagree about Child SA %s/%s", n.Name, peer.Name, c.In.SPI, c.Out.SPI)
		}
	}
}

// checkSwitch: I1, the inbound half is installed at the peer before this side sends on it.
func (w *World) checkSwitch(n *Node, i *Installed) {
	peer := w.at(i.Child.Remote.Addr())
	if peer == nil || peer.Off || peer.epoch > 0 { // after a crash nothing is sure until both have noticed
		return
	}
	// What the peer has closed for a reason of its own, the delete is on its way.
	if r, was := peer.removed[i.Child.Out.SPI]; was && r != ike.ReasonRekeyed && r != ike.ReasonRedundant {
		return
	}
	if _, ok := peer.SADB[i.Child.Out.SPI]; !ok && w.quiet() {
		w.broken("I1 %s sends on %s, which %s has not installed", n.Name, i.Child.Out.SPI, peer.Name)
	}
}

// quiet reports whether the network does nothing wrong: with losses a responder may use a new SA, that replaces none,
// before the initiator has got the response.
func (w *World) quiet() bool {
	return w.Faults.Loss == 0 && !w.disturbed && w.hold == nil && len(w.held) == 0 && w.Faults.Jitter == 0 &&
		w.Faults.JobTime < 100*time.Millisecond
}

// checkStep: I7, everything is bounded.
func (w *World) checkStep(n *Node) {
	halfOpen := 0
	v := n.Engine.Snapshot()
	for _, s := range v.SAs {
		if s.Established.IsZero() && !s.Initiator {
			halfOpen++
		}
	}
	if halfOpen > 4096 {
		w.broken("I7 %s: %d half-open SAs", n.Name, halfOpen)
	}
	if err := n.Engine.CheckTables(); err != nil {
		w.broken("%s: %s", n.Name, err)
	}
	// What the engine knows is what the datapath has.
	known := 0
	for _, s := range v.SAs {
		for _, c := range s.Children {
			known++
			if n.SADB[c.In.SPI] == nil {
				w.broken("%s: the engine holds Child SA %s, the datapath does not", n.Name, c.In.SPI)
			}
		}
	}
	if known != len(n.SADB) {
		w.broken("%s: the engine holds %d Child SAs, the datapath %d", n.Name, known, len(n.SADB))
	}
}

// CheckRest checks what holds when nothing is under way: I1, I3.
func (w *World) CheckRest() {
	for i, a := range w.Nodes {
		if a.Off {
			continue
		}
		v := a.Engine.Snapshot()
		for _, s := range v.SAs {
			if s.State != "established" {
				w.broken("at rest %s has an IKE SA %016x in state %s", a.Name, s.SPI, s.State)
			}
		}
		for j, b := range w.Nodes {
			if i == j || b.Off {
				continue
			}
			w.checkPair(a, b)
		}
	}
}

func (w *World) checkPair(a, b *Node) {
	count := 0
	for _, s := range a.Engine.Snapshot().SAs {
		if s.Remote.Addr() != b.Addr {
			continue
		}
		count++
		mirrored := slices.ContainsFunc(b.Engine.Snapshot().SAs, func(p engine.SA) bool { return p.SPI == s.PeerSPI && p.PeerSPI == s.SPI })
		if !mirrored {
			w.broken("at rest %s has IKE SA %016x that %s does not have", a.Name, s.SPI, b.Name)
		}
	}
	if count > 1 {
		w.broken("I3 at rest %s has %d IKE SAs with %s", a.Name, count, b.Name)
	}
	type traffic struct {
		rule          string
		local, remote string
	}
	seen := make(map[traffic]int)
	for _, spi := range a.order {
		i := a.SADB[spi]
		if i == nil || i.Child.Remote.Addr() != b.Addr {
			continue
		}
		p := b.SADB[i.Child.Out.SPI]
		if p == nil || p.Child.Out.SPI != i.Child.In.SPI {
			w.broken("I1 at rest %s has Child SA %s/%s that %s does not have", a.Name, spi, i.Child.Out.SPI, b.Name)
		}
		if i.Switched == 0 {
			w.broken("I1 at rest %s does not use Child SA %s", a.Name, spi)
		}
		seen[traffic{i.Child.Rule, fmt.Sprint(i.Child.LocalTS), fmt.Sprint(i.Child.RemoteTS)}]++
	}
	for t, n := range seen {
		if n > 1 {
			w.broken("at rest %s has %d Child SAs of rule %q from %s to %s", a.Name, n, t.rule, t.local, t.remote)
		}
	}
}

// atRest reports whether nothing is under way.
func (w *World) atRest() bool { return w.unrest() == "" }

// unrest tells what is under way.
func (w *World) unrest() string {
	for _, n := range w.Nodes {
		if n.Off {
			continue
		}
		v := n.Engine.Snapshot()
		if len(v.Waiting) > 0 {
			return fmt.Sprintf("%s has %d flows waiting", n.Name, len(v.Waiting))
		}
		for _, s := range v.SAs {
			if s.State != "established" || s.Busy {
				return fmt.Sprintf("%s has IKE SA %016x in state %s, busy %v", n.Name, s.SPI, s.State, s.Busy)
			}
		}
		for _, i := range n.SADB {
			if i.Switched == 0 {
				return fmt.Sprintf("%s does not use Child SA %s", n.Name, i.Child.In.SPI)
			}
		}
	}
	for _, e := range w.pending {
		if isDatagram(e.ev) {
			return "a datagram is on its way"
		}
	}
	return ""
}
