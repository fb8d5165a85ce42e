package ikesim

import (
	"bytes"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/ikev2"
	"github.com/bailiwick-net/bailiwick/node/ike/impair"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

var (
	transport = sa.Transport
	anyone    = sa.Selector{From: netip.IPv4Unspecified(), To: netip.AddrFrom4([4]byte{255, 255, 255, 255}), PortTo: 65535}

	ikeOffers = []proposal.IKE{
		{Encryption: proposal.EncrAESGCM16, KeyBits: 256, Integrity: proposal.IntegNone, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupX25519},
		{Encryption: proposal.EncrAESGCM16, KeyBits: 128, Integrity: proposal.IntegNone, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupECP256},
		{Encryption: proposal.EncrAESCBC, KeyBits: 128, Integrity: proposal.IntegHMACSHA256128, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupX25519},
	}
	// quantumOffers take the place of ikeOffers, one by one, in some worlds: additional key exchanges, and a KEM alone.
	quantumOffers = []proposal.IKE{
		{
			Encryption: proposal.EncrAESGCM16, KeyBits: 256, PRF: proposal.PRFHMACSHA256,
			Group: proposal.GroupX25519, Additional: proposal.AdditionalOf(proposal.GroupMLKEM768),
		},
		{
			Encryption: proposal.EncrAESGCM16, KeyBits: 256, PRF: proposal.PRFHMACSHA256,
			Group: proposal.GroupECP256, Additional: proposal.AdditionalOf(proposal.GroupMLKEM1024, proposal.GroupX25519),
		},
		{Encryption: proposal.EncrAESGCM16, KeyBits: 128, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupMLKEM768},
	}
	// quantumESP take the place of espOffers in those worlds.
	quantumESP = []proposal.ESP{
		{Encryption: proposal.EncrAESGCM16, KeyBits: 128},
		{
			Encryption: proposal.EncrAESGCM16, KeyBits: 256,
			Group: proposal.GroupX25519, Additional: proposal.AdditionalOf(proposal.GroupMLKEM768),
		},
		{Encryption: proposal.EncrAESGCM16, KeyBits: 256, Group: proposal.GroupMLKEM768},
	}
	espOffers = []proposal.ESP{
		{Encryption: proposal.EncrAESGCM16, KeyBits: 128},
		{Encryption: proposal.EncrAESGCM16, KeyBits: 256, Group: proposal.GroupX25519},
		{Encryption: proposal.EncrAESGCM16, KeyBits: 256, Group: proposal.GroupECP256},
	}
)

func meshConfig(name string, rule ike.Rule) ike.Config {
	return ike.Config{
		Rules: []ike.Rule{rule}, Offers: ikeOffers[:1],
		Local:   ike.Identity{Type: byte(wire.IDFQDN), Data: []byte(name)},
		Chain:   [][]byte{[]byte("certificate of " + name)},
		Secrets: map[string]sa.Secret{"shared": sa.NewSecret([]byte("a preshared key of enough octets"))},
	}
}

// wrong are the mistakes that the first node makes, and those of all others.
type wrong struct{ first, others []impair.Fault }

// Play runs a plan: what happens, then a network that heals, until nothing is under way.
func Play(p Plan, tracing bool) *World { return playWrong(p, wrong{}, tracing) }

// playWrong runs a plan with nodes that make mistakes.
func playWrong(p Plan, by wrong, tracing bool) *World {
	w := New(p.Seed, p.Faults)
	w.Tracing, w.oracle, w.plan = tracing, true, &p
	for _, s := range p.Steps {
		w.flooded = w.flooded || s.Op == OpFlood
	}
	for i := range p.Nodes {
		np := &p.Nodes[i]
		c := np.Config
		c.Untraced = !tracing
		n := w.Add(np.Name, np.Addr, c)
		n.expire, n.plan = true, np
		n.Wrong = by.others
		if len(w.Nodes) == 1 {
			n.Wrong = by.first
		}
		if np.NAT {
			n.Hide(np.Outside)
		}
		n.tellAddresses()
	}
	for _, s := range p.Steps {
		w.Run(s.After)
		w.logf("--- %s %s %d", p.Nodes[s.Node].Name, s.Op, s.Arg)
		w.perform(p, s)
		if len(w.Broken) > 0 {
			return w
		}
	}
	w.heal(p)
	return w
}

// changes is the number of changes that change knows.
const changes = 10

// change is another configuration of a node.
func change(c ike.Config, kind int) ike.Config {
	switch kind % changes {
	case 0: // the same again
	case 1:
		c.Rules, c.DefaultResponse = nil, nil
	case 2: // closes the Child SAs
		each(&c, func(r *ike.Rule) { r.Lifetime.Time += time.Second })
	case 3: // closes the IKE SA, and refuses new ones
		c.Offers = ikeOffers[1:2]
	case 4:
		each(&c, func(r *ike.Rule) { r.Offers = espOffers[1:] })
	case 5:
		c.Secrets, c.Chain = nil, nil
	case 6:
		c.Mobility = (c.Mobility + 1) % 3
	case 7:
		c.CrashSecret = crashSecret(&c, 7)
	case 8: // or soon, when the authentication does not count so long any more
		c.Reauthentication = time.Minute
	case 9:
		c.Secrets = maps.Clone(c.Secrets)
		delete(c.Secrets, ppkName)
	}
	return c
}

func (w *World) perform(p Plan, s Step) {
	n, m := w.Nodes[s.Node], w.Nodes[s.Other]
	switch s.Op {
	case OpAcquire:
		n.Do(ike.Acquire{Flow: w.flow(n, m)})
	case OpRekeyChild, OpExpireChild, OpIdleChild, OpDeleteChild, OpRekeyPeer:
		w.performChild(n, s)
	case OpRekeyIKE, OpDeleteIKE, OpRekeyIKEPeer:
		w.performIKE(n, s)
	case OpCrash:
		if s.Arg == 2 {
			n.Config.CrashSecret = crashSecret(&n.Config, n.epoch+1)
		}
		n.Crash()
		n.tellAddresses()
	case OpOff:
		n.Cut = true
		w.disturbed = true
		w.Run(time.Duration(s.Arg) * time.Millisecond)
		n.Cut = false
	case OpReconfigure:
		w.reconfigure(n, change(p.Nodes[s.Node].Config, s.Arg))
	case OpRestore:
		w.reconfigure(n, p.Nodes[s.Node].Config)
	case OpClock:
		n.Skew = time.Duration(s.Arg) * time.Millisecond
		w.disturbed = true // a wait for the peer may be over before the peer has had the time
		w.farJumped = w.farJumped || max(s.Arg, -s.Arg) >= farJump
	case OpRebind:
		n.Rebind(s.Arg == 1)
	case OpFailInstall:
		n.failing += s.Arg
	case OpFlood:
		w.flood(n, s.Arg)
	case OpReplay:
		for _, e := range slices.Clone(w.pending) {
			if e.to == n && isDatagram(e.ev) {
				again := *e
				w.schedule(time.Duration(s.Arg)*time.Millisecond, &again)
			}
		}
	case OpDamage:
		w.damage(n, s.Arg)
	case OpCut:
		w.cut(n)
	case OpMove:
		w.move(n, s.Arg)
	case OpNAT:
		w.hide(n, s.Arg%2 == 1)
	case OpTraffic:
		for _, n := range w.Nodes {
			w.traffic(n)
		}
	case ops:
	}
}

func (w *World) performChild(n *Node, s Step) {
	live := n.live()
	if len(live) == 0 {
		return
	}
	i := n.SADB[live[s.Arg%len(live)]]
	spi := i.Child.In.SPI
	switch s.Op {
	case OpRekeyChild:
		n.Do(ike.ChildExpiring{SPI: spi, Limit: ike.LimitSoft})
	case OpExpireChild:
		n.Do(ike.ChildExpiring{SPI: spi, Limit: ike.LimitHard})
	case OpIdleChild:
		n.Do(ike.ChildExpiring{SPI: spi, Limit: ike.LimitIdle})
	case OpDeleteChild:
		n.Do(ike.Close{Child: spi})
	default:
		if p := w.at(i.Child.Remote.Addr()); p != nil {
			p.Do(ike.ChildExpiring{SPI: i.Child.Out.SPI, Limit: ike.LimitSoft})
		}
	}
}

func (w *World) performIKE(n *Node, s Step) {
	var live []*ikev2.SA
	for q := range n.Engine.SAs() {
		if q.State() == ikev2.StateEstablished {
			live = append(live, q)
		}
	}
	if len(live) == 0 {
		return
	}
	q := live[s.Arg%len(live)]
	switch s.Op {
	case OpRekeyIKE:
		n.Do(ike.Rekey{IKE: ike.IKESPI(q.SPI())})
	case OpDeleteIKE:
		n.Do(ike.Close{IKE: ike.IKESPI(q.SPI())})
	default:
		if _, remote := q.Addresses(); w.at(remote.Addr()) != nil {
			w.at(remote.Addr()).Do(ike.Rekey{IKE: ike.IKESPI(q.PeerSPI())})
		}
	}
}

func (w *World) reconfigure(n *Node, c ike.Config) {
	w.reoffered = true
	c.Untraced = !w.Tracing
	n.Do(ike.Reconfigure{Config: n.placed(c)})
}

// flood sends IKE_SA_INIT requests of strangers: of one in one half of the cases, else of many.
func (w *World) flood(to *Node, count int) {
	for i := range count {
		from := netip.AddrFrom4([4]byte{203, 0, 113, byte(i * (count % 2))})
		m := wire.Message{
			Header: wire.Header{SPIi: wire.SPI(w.rand.Uint64() | 1), Exchange: wire.IKESAInit, Flags: wire.FlagInitiator},
			Payloads: []wire.Payload{
				wire.SAFromIKE(ikeOffers, 0), wire.KE{Group: proposal.GroupX25519, Data: make([]byte, 32)},
				wire.Nonce{Data: bytes.Repeat([]byte{byte(i)}, 32)},
			},
		}
		local := netip.AddrPortFrom(to.Addr, 500)
		to.Do(ike.Datagram{Local: local, Remote: netip.AddrPortFrom(from, 500), Bytes: wire.AppendMessage(nil, m)})
	}
}

func (w *World) damage(to *Node, at int) {
	w.disturbed = true
	for _, e := range w.pending {
		if d, ok := e.ev.(ike.Datagram); ok && e.to == to && len(d.Bytes) > 0 {
			d.Bytes = bytes.Clone(d.Bytes)
			d.Bytes[at%len(d.Bytes)] ^= 1 << (at % 8)
			e.ev = d
			return
		}
	}
}

func (w *World) cut(to *Node) {
	w.disturbed = true
	for _, e := range w.pending {
		if e.to == to && isDatagram(e.ev) {
			e.epoch = -1
			e.ev = nil
		}
	}
}

// healTime is longer than all that a crash or a loss leaves behind: a liveness check, its retransmissions, and the wait
// for a peer's delete.
const healTime = 4 * time.Minute

// heal ends all faults, lets everything come to rest, and checks what must hold then.
func (w *World) heal(p Plan) {
	w.logf("--- the network heals")
	w.disturbed = w.disturbed || !w.quiet() // what was lost before has its effect yet
	w.Faults = Faults{Delay: 5 * time.Millisecond}
	var behind time.Duration // clocks that went back stand still until the world has caught up
	for i, n := range w.Nodes {
		n.failing = 0
		behind += n.behind()
		w.settle(n)
		if w.reoffered {
			w.reconfigure(n, p.Nodes[i].Config)
		}
	}
	w.acquireAll()
	w.Run(healTime + behind)
	// Rest may fall into a rekey, and what was about to end ends meanwhile: who has lost what it had asks again.
	for range 3 {
		w.acquireAll()
		w.Run(20 * time.Second)
		for range 240 {
			if w.atRest() {
				break
			}
			w.Run(500 * time.Millisecond)
		}
		if w.allConnected() == "" {
			break
		}
	}
	if why := w.unrest(); why != "" {
		w.broken("I5 no rest: %s", why)
	}
	w.CheckRest()
	if why := w.allConnected(); why != "" {
		w.broken("I5 %s, although it asked", why)
	}
}

// allConnected tells whose packets are not protected, of those who can reach each other; "" when all are.
func (w *World) allConnected() string {
	for _, a := range w.Nodes {
		for _, b := range w.Nodes {
			if a == b || !w.canReach(a, b) {
				continue
			}
			if why := w.connected(a, b); why != "" {
				return why
			}
		}
	}
	return ""
}

// behind is how long the engine will see no time pass, because its clock has gone back.
func (n *Node) behind() time.Duration { return max(0, n.latest.Sub(n.now())) }

func (w *World) acquireAll() {
	for _, a := range w.Nodes {
		for _, b := range w.Nodes {
			if a != b && w.canReach(a, b) && w.connected(a, b) != "" {
				a.Do(ike.Acquire{Flow: w.flow(a, b)})
			}
		}
	}
}
