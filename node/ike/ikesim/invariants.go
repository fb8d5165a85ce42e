package ikesim

import (
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/ikev2"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// The invariants of the engine:
//
//	I1  no outbound SPI is in use whose inbound half the peer has not installed; at rest, children mirror, one per rule
//	I2  no two installs with the same key; no (key, IV) pair of an IKE SA is used twice
//	I3  one IKE SA per pair at rest, the same one on both sides
//	I4  message IDs step by one, one request at a time; what is repeated is octet for octet the same; nothing is sent
//	    after the end of an SA but the repetition of its last answer
//	I5  progress: at rest nothing is under way, and whoever asked for an association has one; Step at the deadline
//	    moves the deadline, and no engine spins
//	I6  with the spd.Set as oracle, a packet of a protect rule is encrypted as its rule says, or dropped
//	I7  half-open SAs, unsolicited octets and queues are bounded
//	I8  what is chosen is in both offers, and the best of the responder; both sides have the same keys
//	I9  the same seed is the same world: its fingerprint (the caller runs a world twice)
//
// I2 for ESP (IV, wrap) belongs to node/esp. Here are I1, I3, I5 and I8; messages.go has I2, I4 and I7, traffic.go I6.
type observed struct {
	sends map[sentKey]uint64
	ivs   map[ivKey]uint64
	keys  map[uint64]keyOwner
	// fingerprint is a hash of everything that the engines have asked for.
	fingerprint uint64
	// negotiable says that the offers have been the same from the start, so that the choice can be judged (I8).
	reoffered bool
	checks    uint64
	// oracle says that the rules are those of a mesh, so that the policy can be judged (I6).
	oracle bool
	// farJumped says that a clock jumped so far that both sides may judge a crossing differently.
	farJumped bool
	// moved says that an address has changed, or a NAT has come or gone.
	moved bool
	// flooded says that strangers sent something: the bounds of I7 matter.
	flooded bool
}

func newObserved() observed {
	return observed{
		sends: make(map[sentKey]uint64), ivs: make(map[ivKey]uint64), keys: make(map[uint64]keyOwner), fingerprint: 14695981039346656037,
	}
}

// nodeObserved is what is known of one node until it crashes.
type nodeObserved struct {
	active map[ike.IKESPI]*ike.Up
	ended  map[ike.IKESPI]struct{}
	// removed tells why a Child SA is no longer there.
	removed map[sa.SPI]ike.Reason
	windows map[windowKey]*window
	sources map[sourceKey]*exposure
	// reconfigured is when the last configuration came, on the node's own clock.
	reconfigured time.Time
	// replaced are the Child SAs that were removed in this step because others have replaced them.
	replaced []sa.Child
	// second and ticks count how often the deadline came in one second.
	second time.Time
	ticks  int
}

func newNodeObserved() nodeObserved {
	return nodeObserved{
		active: make(map[ike.IKESPI]*ike.Up), ended: make(map[ike.IKESPI]struct{}), removed: make(map[sa.SPI]ike.Reason),
		windows: make(map[windowKey]*window), sources: make(map[sourceKey]*exposure),
	}
}

func (w *World) broken(format string, args ...any) {
	s := fmt.Sprintf("%10.3f ", w.Now.Sub(Start).Seconds()) + fmt.Sprintf(format, args...)
	w.logf("BROKEN %s", s)
	w.Broken = append(w.Broken, s)
}

// mix adds to the fingerprint.
func (w *World) mix(v sa.SPI) { w.fingerprint = (w.fingerprint ^ uint64(v)) * 1099511628211 }

// hashSeed is the same for all worlds of a process: fingerprints are compared within one only.
var hashSeed = maphash.MakeSeed()

type keyOwner struct {
	node *Node // who receives with it
	spi  sa.SPI
}

// checkInstall: I2, keys are never used twice; I6; I8, the other side has the same.
func (w *World) checkInstall(n *Node, c *sa.Child) {
	w.mix(c.In.SPI)
	peer := w.peerOf(c)
	for _, k := range [...]struct {
		keys     *sa.Keys
		receiver *Node
	}{{&c.In, n}, {&c.Out, peer}} {
		var h maphash.Hash
		h.SetSeed(hashSeed)
		_, _ = h.Write(k.keys.Encryption.Expose())
		_, _ = h.Write(k.keys.Integrity.Expose())
		sum, owner := h.Sum64(), keyOwner{k.receiver, k.keys.SPI}
		if k.keys.Encryption.Len() == 0 {
			w.broken("I2 %s: SA %s has no key", n.Name, k.keys.SPI)
		} else if old, seen := w.keys[sum]; seen && (old.spi != owner.spi || old.node != nil && peer != nil && old.node != owner.node) { // nobody is where a peer was that moved
			w.broken("I2 %s: SA %s has the key of SA %s", n.Name, k.keys.SPI, old.spi)
		}
		w.keys[sum] = owner
	}
	if n.SADB[c.In.SPI] != nil {
		w.broken("I1 %s: InstallIn of %s, which is installed", n.Name, c.In.SPI)
	}
	w.checkSelectors(n, c)
	if peer == nil {
		return
	}
	if p := peer.SADB[c.Out.SPI]; p != nil && p.Child.Out.SPI == c.In.SPI {
		w.checkAgreement(n, peer, c, &p.Child)
	}
}

// checkAgreement: I8, for a Child SA that both sides have; n completes it, so n has initiated the exchange.
func (w *World) checkAgreement(n, peer *Node, c, p *sa.Child) {
	if !p.In.Encryption.Equal(c.Out.Encryption) || !p.Out.Encryption.Equal(c.In.Encryption) ||
		!p.In.Integrity.Equal(c.Out.Integrity) || !p.Out.Integrity.Equal(c.In.Integrity) || p.Suite != c.Suite || p.Mode != c.Mode {
		w.broken("I8 %s and %s disagree about Child SA %s/%s", n.Name, peer.Name, c.In.SPI, c.Out.SPI)
	}
	// Through a NAT the selectors of transport mode are what each side sees of the other, which may have moved since.
	plain := c.Mode == sa.Tunnel || n.nat == nil && peer.nat == nil && !w.moved
	if plain && (!slices.Equal(c.LocalTS, p.RemoteTS) || !slices.Equal(c.RemoteTS, p.LocalTS)) {
		w.broken("I8 %s and %s disagree about the selectors of Child SA %s/%s", n.Name, peer.Name, c.In.SPI, c.Out.SPI)
	}
	own, theirs := n.rule(c), peer.rule(p)
	if w.reoffered || own == nil || theirs == nil {
		return
	}
	// Without a fresh key exchange groups do not count. With one, an offer without group means that of the IKE SA.
	bare := c.Suite.Group == proposal.GroupNone
	for _, theirs := range theirs.Offers {
		for _, o := range own.Offers {
			i := theirs
			o.ESN, i.ESN = c.Suite.ESN, c.Suite.ESN
			vague := !bare && (o.Group == proposal.GroupNone || i.Group == proposal.GroupNone)
			if bare || vague {
				i.Group, o.Group = c.Suite.Group, c.Suite.Group
				i.Additional, o.Additional = c.Suite.Additional, c.Suite.Additional
			}
			switch {
			case i != o || vague && o != c.Suite:
			case o != c.Suite:
				w.broken("I8 %s chose %v for Child SA %s where %v was offered", peer.Name, c.Suite, p.In.SPI, o)
				return
			default:
				return
			}
		}
	}
	w.broken("I8 %s and %s use %v, which they do not both offer", n.Name, peer.Name, c.Suite)
}

// rule is the rule of a Child SA in the present configuration.
func (n *Node) rule(c *sa.Child) *ike.Rule {
	for i := range n.Config.Rules {
		if n.Config.Rules[i].ID == c.Rule && !c.DefaultResponse {
			return &n.Config.Rules[i]
		}
	}
	return nil
}

// checkUp: I8, the suite of an IKE SA is in the own offers, and the peer has the same.
func (w *World) checkUp(n *Node, up ike.Up) {
	if n.active[up.IKE] != nil {
		w.broken("I4 %s: second Up of %016x", n.Name, uint64(up.IKE))
	}
	n.active[up.IKE] = &up
	w.mix(sa.SPI(up.IKE))
	if !w.reoffered && !slices.Contains(n.Config.Offers, up.Suite) {
		w.broken("I8 %s: IKE SA %016x uses %v, which was not offered", n.Name, uint64(up.IKE), up.Suite)
	}
	peer := w.at(up.Remote.Addr())
	if peer == nil || w.reoffered {
		return
	}
	for s := range n.Engine.SAs() {
		if uint64(s.SPI()) != uint64(up.IKE) {
			continue
		}
		other := peer.active[ike.IKESPI(s.PeerSPI())]
		if other == nil {
			return
		}
		if other.Suite != up.Suite {
			w.broken("I8 %s and %s disagree about the algorithms of IKE SA %016x", n.Name, peer.Name, uint64(up.IKE))
		}
		responder, initiator := n, peer
		if s.Initiator() {
			responder, initiator = peer, n
		}
		for _, o := range responder.Config.Offers {
			if slices.Contains(initiator.Config.Offers, o) {
				if o != up.Suite {
					w.broken("I8 %s chose %v for IKE SA %016x where %v was offered", responder.Name, up.Suite, uint64(up.IKE), o)
				}
				break
			}
		}
		return
	}
}

func (w *World) checkDown(n *Node, d ike.Down) {
	w.checkRestarted(n, d)
	delete(n.active, d.IKE)
	n.ended[d.IKE] = struct{}{}
	w.mix(sa.SPI(d.IKE))
}

// checkRestarted: I3, an SA ends because the peer has forgotten it only when it has: by a restart, or because it gave up
// what this side took for established (RFC 6290).
func (w *World) checkRestarted(n *Node, d ike.Down) {
	if d.Reason != ike.ReasonPeerRestarted || w.plan == nil {
		return
	}
	for s := range n.Engine.SAs() {
		if ike.IKESPI(s.SPI()) != d.IKE {
			continue
		}
		for _, peer := range w.Nodes {
			if peer.Name == d.Peer && peer.active[ike.IKESPI(s.PeerSPI())] != nil {
				w.broken("I3 %s ends IKE SA %s, because %s has forgotten it, which has it", n.Name, s.SPI(), peer.Name)
			}
		}
	}
}

// checkBelief: I6, nobody is believed longer than its authentication counts. A policy that comes later leaves two minutes.
func (w *World) checkBelief(n *Node, s *ikev2.SA) {
	most := n.Config.Reauthentication
	end := s.Origin().Established.Add(most)
	if soon := n.reconfigured.Add(min(most, 2*time.Minute)); end.Before(soon) {
		end = soon
	}
	if w.plan == nil || most == 0 || !s.Usable() || n.latest.Before(end.Add(time.Second)) {
		return
	}
	w.broken("I6 %s uses IKE SA %s, whose authentication is older than %s", n.Name, s.SPI(), most)
}

// checkSwitch: I1, the inbound half is installed at the peer before this side sends on it.
func (w *World) checkSwitch(n *Node, i *Installed) {
	w.mix(i.Child.Out.SPI)
	peer := w.peerOf(&i.Child)
	if peer == nil || peer.Off || peer.epoch > 0 || w.unchecked { // after a crash nothing is sure until both have noticed
		return
	}
	if p := peer.SADB[i.Child.Out.SPI]; p != nil {
		if p.Child.Out.SPI != i.Child.In.SPI && !p.Failed {
			w.broken("I1 %s sends on %s, which is another Child SA at %s", n.Name, i.Child.Out.SPI, peer.Name)
		}
		return
	}
	// What the peer has closed for a reason of its own, the delete is on its way. A loss may delay that of a rekey.
	if r, was := peer.removed[i.Child.Out.SPI]; was && (r != ike.ReasonRekeyed && r != ike.ReasonRedundant || !w.quiet()) {
		return
	}
	// What was asked for before an address changed may not be wanted any more: its delete is on the way, too.
	if w.moved && i.Child.Mode == sa.Transport {
		return
	}
	// A responder may use a new SA, that replaces none, after a wait: the response may have been lost.
	if n.timer && !w.quiet() {
		return
	}
	w.broken("I1 %s sends on %s, which %s has not installed", n.Name, i.Child.Out.SPI, peer.Name)
}

// quiet reports whether the network does nothing wrong.
func (w *World) quiet() bool {
	return w.Faults.Loss == 0 && !w.disturbed && w.hold == nil && len(w.held) == 0 && w.Faults.Jitter == 0 &&
		w.Faults.JobTime < 100*time.Millisecond
}

// tick gives a node the timeout that is due. I5: the deadline moves, and does not come too often.
func (w *World) tick(n *Node) bool {
	before := n.Engine.Deadline()
	n.Do(ike.Timeout{})
	if after := n.Engine.Deadline(); !after.IsZero() && !after.After(before) {
		w.broken("I5 %s: Step at the deadline %s leaves the deadline at %s", n.Name, before.Sub(Start), after.Sub(Start))
		return false
	}
	if w.Now.Sub(n.second) >= time.Second {
		n.second, n.ticks = w.Now, 0
	}
	n.ticks++
	if n.ticks == 100+20*n.sas() && !w.unchecked {
		w.broken("I5 %s spins: its deadline came %d times in a second", n.Name, n.ticks)
		return false
	}
	return true
}

func (n *Node) sas() int {
	count := 0
	for range n.Engine.SAs() {
		count++
	}
	return count
}

// tablesEvery is how many steps there are to one after which the tables of the engine are checked as well.
const tablesEvery = 16

// checkStep: what the engine knows is what the datapath has; I7.
func (w *World) checkStep(n *Node) {
	known, halfOpen := 0, 0
	for s := range n.Engine.SAs() {
		if !s.Initiator() && s.State() < ikev2.StateEstablished {
			halfOpen++
		}
		if s.State() == ikev2.StateClosed {
			continue
		}
		w.checkBelief(n, s)
		for c := range s.Each() {
			known++
			if n.SADB[c.In.SPI] == nil {
				w.broken("I1 %s: the engine holds Child SA %s, the datapath does not", n.Name, c.In.SPI)
			}
		}
	}
	if known != len(n.SADB) {
		w.broken("I1 %s: the engine holds %d Child SAs, the datapath %d", n.Name, known, len(n.SADB))
	}
	for _, c := range n.replaced {
		w.checkReplaced(n, &c)
	}
	if w.checks++; w.checks%tablesEvery == 0 {
		if err := n.Engine.CheckTables(); err != nil {
			w.broken("I5 %s: %s", n.Name, err)
		}
	}
	w.checkCost(n, halfOpen)
}

// checkReplaced: I1, traffic does not stop with a rekey: what is removed because it was rekeyed has a successor in use.
func (w *World) checkReplaced(n *Node, c *sa.Child) {
	heir := false
	for _, spi := range n.order {
		if i := n.SADB[spi]; i != nil && slices.Equal(i.Child.LocalTS, c.LocalTS) && slices.Equal(i.Child.RemoteTS, c.RemoteTS) {
			if i.Switched > 0 {
				return
			}
			heir = heir || i.Child.ReplacesIn == c.In.SPI && !i.Failed && !i.Ending
		}
	}
	if heir {
		w.broken("I1 %s: nothing carries the traffic of Child SA %s, although there is what replaces it", n.Name, c.In.SPI)
	}
}

// CheckRest checks what holds when nothing is under way: I1, I3.
func (w *World) CheckRest() {
	for i, a := range w.Nodes {
		if a.Off {
			continue
		}
		for s := range a.Engine.SAs() {
			if s.State() != ikev2.StateEstablished && s.State() != ikev2.StateClosed {
				w.broken("I5 at rest %s has an IKE SA %s in state %s", a.Name, s.SPI(), s.State())
			}
		}
		for j, b := range w.Nodes {
			if i != j && !b.Off {
				w.checkPair(a, b)
			}
		}
	}
}

func (w *World) checkPair(a, b *Node) {
	count := 0
	for s := range a.Engine.SAs() {
		_, remote := s.Addresses()
		if s.State() == ikev2.StateClosed || w.at(remote.Addr()) != b {
			continue
		}
		count++
		mirrored := false
		for p := range b.Engine.SAs() {
			mirrored = mirrored || p.SPI() == s.PeerSPI() && p.PeerSPI() == s.SPI() && p.State() != ikev2.StateClosed
		}
		if !mirrored {
			w.broken("I3 at rest %s has IKE SA %s that %s does not have", a.Name, s.SPI(), b.Name)
		}
	}
	if count > 1 && !w.several() {
		w.broken("I3 at rest %s has %d IKE SAs with %s", a.Name, count, b.Name)
	}
	type traffic struct {
		rule          string
		local, remote sa.Selector
	}
	seen := make(map[traffic]*Installed)
	for _, spi := range a.order {
		i := a.SADB[spi]
		if i == nil || w.peerOf(&i.Child) != b {
			continue
		}
		if w.moved && w.at(i.Child.Remote.Addr()) != b {
			continue // like its IKE SA above: it leads to where the peer is no more, and ends with the next sign of life asked for
		}
		p := b.SADB[i.Child.Out.SPI]
		if p == nil || p.Child.Out.SPI != i.Child.In.SPI {
			w.broken("I1 at rest %s has Child SA %s/%s that %s does not have", a.Name, spi, i.Child.Out.SPI, b.Name)
		}
		if i.Switched == 0 {
			w.broken("I1 at rest %s does not use Child SA %s", a.Name, spi)
		}
		t := traffic{i.Child.Rule, i.Child.LocalTS[0], i.Child.RemoteTS[0]}
		if seen[t] != nil && !w.several() {
			w.broken("I1 at rest %s has more than one Child SA of rule %q with %s", a.Name, t.rule, b.Name)
		}
		seen[t] = i
	}
}

// several tells whether two nodes may end with more than one IKE SA, each with what it carries. After a far jump of a
// clock the two may judge differently whether both crossed. And of two that were made for different addresses of a peer
// one may move to where the other is: no rule says which of them has to go, and both serve.
func (w *World) several() bool { return w.farJumped || w.moved }

// atRest reports whether nothing is under way.
func (w *World) atRest() bool { return w.unrest() == "" }

// unrest tells what is under way.
func (w *World) unrest() string {
	for _, n := range w.Nodes {
		if n.Off {
			continue
		}
		if q := n.Engine.Queued(); q > 0 {
			return fmt.Sprintf("%s has %d flows waiting", n.Name, q)
		}
		for s := range n.Engine.SAs() {
			if st := s.State(); st != ikev2.StateClosed && (st != ikev2.StateEstablished || s.Busy()) {
				return fmt.Sprintf("%s has IKE SA %s in state %s, busy %v", n.Name, s.SPI(), st, s.Busy())
			}
		}
		for _, i := range n.SADB {
			if i.Switched == 0 {
				return n.Name + " does not use one of its Child SAs"
			}
		}
	}
	for _, e := range w.pending {
		if isDatagram(e.ev) {
			return "a datagram is on its way"
		}
	}
	for _, n := range w.Nodes {
		if c := n.Engine.Retiring(); c > 0 && !n.Off {
			return fmt.Sprintf("%s gives up %d IKE SAs for others", n.Name, c)
		}
	}
	return ""
}
