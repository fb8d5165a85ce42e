package ikesim

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Kind is what the rules of a world are.
type Kind uint8

// The kinds of worlds.
const (
	// KindMesh is transport mode between everybody.
	KindMesh Kind = iota
	// KindGateways is a tunnel between the networks of each two nodes, which know each other by fixed addresses.
	KindGateways
	// KindServers is transport mode that one node, or more, asks for; the others have nothing but the default response.
	KindServers
)

// String names the kind.
func (k Kind) String() string { return [...]string{"mesh", "gateways", "servers"}[k] }

// NodePlan is one machine.
type NodePlan struct {
	Name    string
	Addr    netip.Addr // its home
	Away    netip.Addr // the address that it may get instead, or as well
	Outside netip.Addr // outside address of the NAT before it, if there is one
	NAT     bool       // there is one from the start
	Network sa.Selector
	Config  ike.Config
	// Roams is that it stays where it is when the network heals.
	Roams bool
}

// known is the address by which the rules of other gateways know the node.
func (n *NodePlan) known() netip.Addr {
	if n.NAT {
		return n.Outside
	}
	return n.Addr
}

var names = []string{"a.example", "b.example", "c.example"}

// What two nodes may hold against each other: a postquantum preshared key, and how much each wants it.
const ppkName = "quantum"

// planNodes draws the machines. What they have in common is enough to agree, but for a postquantum preshared key that one
// side wants and another may lack.
func planNodes(r *rand.Rand, kind Kind, count int) []NodePlan {
	auth := []spd.Auth{{Method: spd.AuthPSK, Secret: "shared"}, {Method: spd.AuthCertificate}}[r.IntN(2)]
	named := kind == KindGateways && r.IntN(2) == 0 // rules name the peer, and not only its address
	rule := drawRule(r)
	common := drawSettings(r, rule.Lifetime.Time)
	ppk := r.IntN(4) == 0
	var nodes []NodePlan
	for i := range count {
		n := NodePlan{
			Name: names[i], Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), Away: netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 1)}),
			Outside: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}),
			Network: sa.Selector{From: netip.AddrFrom4([4]byte{172, 16, byte(i), 0}), To: netip.AddrFrom4([4]byte{172, 16, byte(i), 255}), PortTo: 65535},
		}
		n.NAT = i == 0 && r.IntN(5) == 0
		own := rule
		own.Offers, own.Auth = drawn(r, espOffers), []spd.Auth{auth}
		c := meshConfig(n.Name, own)
		c.Offers = drawn(r, ikeOffers)
		common(&c)
		if ppk {
			drawPPK(r, &c)
		}
		n.Config = c
		nodes = append(nodes, n)
	}
	for i := range nodes {
		layRules(r, kind, nodes, i, named)
	}
	// Where an identity is named, and everybody follows changes of address, a peer can come from anywhere, and stay there.
	if named && auth.Method == spd.AuthCertificate && !slices.ContainsFunc(nodes, func(n NodePlan) bool { return n.Config.Mobility != ike.MobilityOn }) {
		nodes[0].Roams = r.IntN(2) == 0
	}
	return nodes
}

// drawRule draws what all rules of a world have in common.
func drawRule(r *rand.Rand) ike.Rule {
	rule := ike.Rule{ID: "mesh", Mode: transport, PFS: r.IntN(2) == 0, Lifetime: spd.Lifetime{Time: time.Hour}}
	if r.IntN(4) == 0 { // one that ends while the world is looked at
		rule.Lifetime.Time = time.Duration(20+r.IntN(100)) * time.Second
	}
	rule.Fallback.Mode = []spd.FallbackMode{spd.FallbackNone, spd.FallbackNone, spd.FallbackWait, spd.FallbackDiscover}[r.IntN(4)]
	return rule
}

// drawSettings draws the settings of IKE of a world, of which each node gets its own choice where that matters.
func drawSettings(r *rand.Rand, lifetime time.Duration) func(c *ike.Config) {
	ikeLifetime := lifetime
	if lifetime < time.Hour {
		ikeLifetime *= time.Duration(1 + r.IntN(3))
	}
	mobility := []ike.Mobility{ike.MobilityOff, ike.MobilityOn, ike.MobilityOn, ike.MobilityOn, ike.MobilityWithoutNAT}[r.IntN(5)]
	mixed, reauthenticates := r.IntN(5) == 0, r.IntN(4) == 0
	transcript := []spd.Transcript{spd.TranscriptPrefer, spd.TranscriptRequire, spd.TranscriptNever}[r.IntN(3)]
	return func(c *ike.Config) {
		c.Untraced, c.IKELifetime, c.Mobility, c.Transcript = true, ikeLifetime, mobility, transcript
		if mixed {
			c.Mobility = ike.Mobility(r.IntN(3))
		}
		if transcript == spd.TranscriptPrefer && r.IntN(3) == 0 {
			c.Transcript = spd.TranscriptNever
		}
		if r.IntN(2) == 0 {
			c.CrashSecret = crashSecret(c, 0)
		}
		if reauthenticates && r.IntN(2) == 0 {
			c.Reauthentication = time.Duration(40+r.IntN(160)) * time.Second
		}
		c.Childless = spd.Childless(r.IntN(3))
		if r.IntN(4) == 0 {
			c.ChildLimit = 1 + r.IntN(3)
		}
		c.AnnounceAuthentication = r.IntN(3) == 0
		c.ForceEncap = r.IntN(8) == 0
		if r.IntN(3) == 0 {
			c.Liveness = time.Duration(3+r.IntN(20)) * time.Second
		}
	}
}

// crashSecret is what a node makes its crash detection tokens from; each loss of it brings another.
func crashSecret(c *ike.Config, losses int) sa.Secret {
	return sa.NewSecret(fmt.Appendf(nil, "crash secret %d of %s", losses, c.Local.Data))
}

// drawPPK draws whether a node has the postquantum preshared key, and how much it wants it.
func drawPPK(r *rand.Rand, c *ike.Config) {
	a := &c.Rules[0].Auth[0]
	switch r.IntN(5) {
	case 0:
		return
	case 1, 2:
		a.PPK, a.PPKOptional = ppkName, true
	default:
		a.PPK = ppkName
	}
	if r.IntN(4) > 0 {
		c.Secrets[ppkName] = sa.NewSecret([]byte("a postquantum preshared key of 32"))
	}
}

// layRules gives a node the rules of its kind of world.
func layRules(r *rand.Rand, kind Kind, nodes []NodePlan, i int, named bool) {
	n := &nodes[i]
	rule := n.Config.Rules[0]
	switch kind {
	case KindMesh:
		n.Config.Rules = []ike.Rule{aboutAll(rule, n.Addr)}
	case KindServers:
		if i > 0 && (i == 1 || r.IntN(2) == 0) {
			n.Config.Rules, n.Config.DefaultResponse = nil, &rule
			rule.ID, rule.Fallback = "", spd.Fallback{}
			return
		}
		n.Config.Rules = []ike.Rule{aboutAll(rule, n.Addr)}
	case KindGateways:
		n.Config.Rules = nil
		for j := range nodes {
			if j == i {
				continue
			}
			to := rule
			to.ID, to.Mode, to.Tunnel = "to "+nodes[j].Name, sa.Tunnel, nodes[j].known()
			to.Pairs = []ike.Pair{{Local: n.Network, Remote: nodes[j].Network}}
			if named {
				to.Auth = slices.Clone(to.Auth)
				to.Auth[0].RemoteID = "fqdn:" + nodes[j].Name
			}
			n.Config.Rules = append(n.Config.Rules, to)
		}
	}
}

// aboutAll is a rule between this machine, which has these addresses, and everybody.
func aboutAll(rule ike.Rule, own ...netip.Addr) ike.Rule {
	rule.Pairs = nil
	for _, a := range own {
		rule.Pairs = append(rule.Pairs, ike.Pair{Local: allOf(a), Remote: anyone})
	}
	return rule
}

// each changes every rule of a configuration, and the default response, which no other configuration shares then.
func each(c *ike.Config, change func(r *ike.Rule)) {
	c.Rules = slices.Clone(c.Rules)
	for i := range c.Rules {
		change(&c.Rules[i])
	}
	if c.DefaultResponse != nil {
		r := *c.DefaultResponse
		change(&r)
		c.DefaultResponse = &r
	}
}

// entry is how a node authenticates its peers.
func entry(c *ike.Config) spd.Auth {
	if len(c.Rules) > 0 {
		return c.Rules[0].Auth[0]
	}
	return c.DefaultResponse.Auth[0]
}

// agree tells whether two nodes can have an association at all, as they are planned: RFC 8784 3, where one side wants a
// postquantum preshared key both need it.
func agree(a, b *NodePlan) bool {
	x, y := entry(&a.Config), entry(&b.Config)
	required := x.PPK != "" && !x.PPKOptional || y.PPK != "" && !y.PPKOptional
	both := x.PPK != "" && y.PPK != "" && a.Config.Secrets[ppkName].Len() > 0 && b.Config.Secrets[ppkName].Len() > 0
	return !required || both
}

// postQuantum puts an offer of quantumOffers in the place of each, and fresh key exchanges of the same kind.
func postQuantum(c *ike.Config) {
	var list []proposal.IKE
	for _, o := range c.Offers {
		list = append(list, quantumOffers[slices.Index(ikeOffers, o)])
	}
	c.Offers = list
	each(c, func(r *ike.Rule) {
		var list []proposal.ESP
		for _, o := range r.Offers {
			list = append(list, quantumESP[slices.Index(espOffers, o)])
		}
		r.Offers = list
	})
}

// drawn is some of the offers in some order; the first of all is always among them, so that there is one in common.
func drawn[O comparable](r *rand.Rand, all []O) []O {
	if r.IntN(2) == 0 {
		return all[:1]
	}
	list := slices.Clone(all)
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	list = list[:1+r.IntN(len(list))]
	if !slices.Contains(list, all[0]) {
		list = append(list, all[0])
	}
	return list
}

// String describes the machine in one line.
func (n *NodePlan) String() string {
	var b strings.Builder
	c := &n.Config
	fmt.Fprintf(&b, "node %s %s", n.Name, n.Addr)
	if n.NAT {
		fmt.Fprintf(&b, " behind %s", n.Outside)
	}
	if n.Roams {
		b.WriteString(" that roams")
	}
	r := c.DefaultResponse
	if len(c.Rules) > 0 {
		r = &c.Rules[0]
	} else {
		b.WriteString(" with the default response")
	}
	a := r.Auth[0]
	fmt.Fprintf(&b, ", IKE SA %s, Child SA %s, PFS %v, fallback %s, %s", c.IKELifetime, r.Lifetime.Time, r.PFS, r.Fallback.Mode, a.Method)
	if a.RemoteID != "" {
		b.WriteString(" of named peers")
	}
	if a.PPK != "" {
		fmt.Fprintf(&b, ", PPK optional %v, there %v", a.PPKOptional, c.Secrets[ppkName].Len() > 0)
	}
	fmt.Fprintf(&b, ", mobility %d, tokens %v, childless %s, transcript %s", c.Mobility, c.CrashSecret.Len() > 0, c.Childless, c.Transcript)
	if c.ChildLimit > 0 {
		fmt.Fprintf(&b, ", %d Child SAs for each key exchange", c.ChildLimit)
	}
	if c.Reauthentication > 0 {
		fmt.Fprintf(&b, ", reauthentication %s", c.Reauthentication)
	}
	if c.Liveness > 0 {
		fmt.Fprintf(&b, ", liveness %s", c.Liveness)
	}
	if c.ForceEncap {
		b.WriteString(", always in UDP")
	}
	fmt.Fprintf(&b, ", %v, %v", c.Offers, r.Offers)
	return b.String()
}
