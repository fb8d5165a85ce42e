package ikesim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// Plan is a world and what happens to it. PlanOf makes it from a seed; what is left out of one makes it smaller.
type Plan struct {
	Seed   uint64
	Kind   Kind
	Faults Faults
	Nodes  []NodePlan
	Steps  []Step
}

// Step is something that happens After the one before.
type Step struct {
	After time.Duration
	Op    Op
	Node  int // who does it
	Other int // with whom
	Arg   int
}

// Op is what can happen.
type Op uint8

// The operations.
const (
	OpAcquire      Op = iota
	OpRekeyChild      // Arg chooses the Child SA
	OpRekeyPeer       // the same Child SA, by its peer
	OpRekeyIKE        // Arg chooses the IKE SA
	OpRekeyIKEPeer    // the same IKE SA, by its peer
	OpExpireChild     // hard limit
	OpIdleChild       // idle limit
	OpDeleteChild     // by the administrator
	OpDeleteIKE       // by the administrator
	OpCrash           // and start anew, without the secret of its tokens with Arg 2
	OpOff             // is cut off for Arg milliseconds
	OpReconfigure     // Arg chooses the change
	OpRestore         // the first configuration again
	OpClock           // the clock jumps by Arg milliseconds
	OpRebind          // the NAT of the node forgets; Arg 1: the peers see ESP
	OpFailInstall     // the datapath refuses the next Child SA
	OpFlood           // Arg IKE_SA_INIT requests with invented sources
	OpReplay          // what is on its way to the node comes once more, Arg milliseconds later
	OpDamage          // what is on its way to the node is damaged at octet Arg
	OpCut             // what is on its way to the node is lost
	OpMove            // other addresses: Arg chooses
	OpNAT             // a NAT appears before the node with Arg 1, or goes
	OpTraffic         // everybody sends something through each Child SA
	ops
)

// String names the operation.
func (o Op) String() string {
	return [...]string{
		"acquire", "rekey-child", "rekey-child-by-peer", "rekey-ike", "rekey-ike-by-peer", "expire-child", "idle-child",
		"delete-child", "delete-ike", "crash", "off", "reconfigure", "restore", "clock", "rebind", "fail-install", "flood",
		"replay", "damage", "cut", "move", "nat", "traffic",
	}[o]
}

// String writes the plan as a script of one line per step.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %s, loss %.2f, duplicates %.2f, delay %s, jitter %s, jobs up to %s\n",
		p.Seed, p.Kind, p.Faults.Loss, p.Faults.Duplicate, p.Faults.Delay, p.Faults.Jitter, p.Faults.JobTime)
	for i := range p.Nodes {
		b.WriteString(p.Nodes[i].String() + "\n")
	}
	for _, s := range p.Steps {
		fmt.Fprintf(&b, "+%-8s %s %s", s.After, p.Nodes[s.Node].Name, s.Op)
		if s.Op == OpAcquire {
			fmt.Fprintf(&b, " %s", p.Nodes[s.Other].Name)
		} else if s.Arg != 0 {
			fmt.Fprintf(&b, " %d", s.Arg)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// worldSizes are the worlds: most are small, because small ones are fast and their failures are easy to understand.
var worldSizes = []struct{ share, nodes, least, more int }{
	{70, 2, 2, 5},
	{22, 2, 6, 12},
	{8, 3, 12, 24},
}

// PlanOf draws a plan.
func PlanOf(seed uint64) Plan {
	r := rand.New(rand.NewPCG(seed, 99))
	size := worldSizes[0]
	for at, i := r.IntN(100), 0; i < len(worldSizes); i++ {
		if size = worldSizes[i]; at < size.share {
			break
		}
		at -= size.share
	}
	p := Plan{Seed: seed, Faults: Faults{Delay: time.Duration(1+r.IntN(40)) * time.Millisecond}}
	if r.IntN(4) > 0 {
		p.Faults.Loss = r.Float64() * 0.3
		p.Faults.Duplicate = r.Float64() * 0.3
		p.Faults.Jitter = time.Duration(r.IntN(400)+1) * time.Millisecond
	}
	if r.IntN(2) == 0 {
		p.Faults.JobTime = time.Duration(r.IntN(300)+1) * time.Millisecond
	}
	p.Kind = []Kind{KindMesh, KindMesh, KindMesh, KindMesh, KindMesh, KindGateways, KindGateways, KindGateways, KindServers}[r.IntN(9)]
	p.Nodes = planNodes(r, p.Kind, size.nodes)
	if seed%4 == 3 {
		for i := range p.Nodes {
			postQuantum(&p.Nodes[i].Config)
		}
	}
	for i := range p.Nodes {
		for j := range p.Nodes {
			if i != j && (r.IntN(3) > 0 || len(p.Steps) == 0) {
				p.Steps = append(p.Steps, Step{Op: OpAcquire, Node: i, Other: j})
			}
		}
	}
	for n := size.least + r.IntN(size.more); n > 0; n-- {
		p.Steps = append(p.Steps, planSteps(r, len(p.Nodes))...)
	}
	return p
}

// The bounds of clock jumps, in milliseconds. Smaller ones change nothing of what holds at rest; after larger ones two
// sides may judge differently whether two IKE SAs crossed, and both stay.
const (
	smallJump = 20_000
	farJump   = 600_000
)

// planSteps draws one thing that happens, or two that cross.
func planSteps(r *rand.Rand, nodes int) []Step {
	s := Step{After: time.Duration(r.IntN(4000)) * time.Millisecond, Node: r.IntN(nodes)}
	s.Other = (s.Node + 1 + r.IntN(nodes-1)) % nodes
	s.Arg = r.IntN(4)
	pair := func(op, second Op) []Step {
		s.Op = op
		list := []Step{s}
		if r.IntN(3) > 0 {
			t := s
			t.Op, t.After = second, time.Duration(r.IntN(60))*time.Millisecond
			list = append(list, t)
			if r.IntN(3) == 0 { // the same moment
				list[1].After = 0
			}
		}
		return list
	}
	one := func(op Op, arg int) []Step {
		s.Op, s.Arg = op, arg
		return []Step{s}
	}
	switch at := r.IntN(118); {
	case at < 10:
		return one(OpAcquire, 0)
	case at < 30:
		return pair(OpRekeyChild, []Op{OpRekeyPeer, OpRekeyPeer, OpExpireChild, OpRekeyIKEPeer, OpReconfigure, OpDeleteChild}[r.IntN(6)])
	case at < 48:
		return pair(OpRekeyIKE, []Op{OpRekeyIKEPeer, OpRekeyIKEPeer, OpRekeyPeer, OpReconfigure, OpDeleteIKE, OpDeleteChild}[r.IntN(6)])
	case at < 54:
		return pair([]Op{OpExpireChild, OpIdleChild, OpDeleteChild}[r.IntN(3)], OpRekeyPeer)
	case at < 58:
		return pair(OpDeleteIKE, []Op{OpRekeyIKEPeer, OpRekeyPeer, OpDeleteIKE}[r.IntN(3)])
	case at < 63:
		return pair(OpCrash, []Op{OpTraffic, OpAcquire, OpMove}[r.IntN(3)])
	case at < 66:
		return one(OpOff, 1+r.IntN(20000))
	case at < 72:
		return one(OpReconfigure, r.IntN(changes))
	case at < 75:
		return one(OpRestore, 0)
	case at < 80:
		if r.IntN(8) == 0 {
			return one(OpClock, 2*farJump*(r.IntN(2)*2-1))
		}
		return one(OpClock, r.IntN(2*smallJump)-smallJump)
	case at < 84:
		return one(OpRebind, r.IntN(2))
	case at < 87:
		return one(OpFailInstall, 1+r.IntN(2))
	case at < 89:
		return one(OpFlood, 1+r.IntN(100))
	case at < 94:
		return one(OpReplay, r.IntN(30_000))
	case at < 97:
		return one(OpDamage, r.IntN(400))
	case at < 100:
		return one(OpCut, 0)
	case at < 107:
		s.Arg = r.IntN(movePlaces)
		return pair(OpMove, []Op{OpRekeyPeer, OpRekeyIKE, OpTraffic, OpMove, OpNAT, OpCrash}[r.IntN(6)])
	case at < 112:
		s.Arg = r.IntN(2)
		return pair(OpNAT, []Op{OpRekeyPeer, OpRekeyIKE, OpTraffic, OpMove}[r.IntN(4)])
	default:
		return one(OpTraffic, 0)
	}
}
