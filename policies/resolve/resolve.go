// Package resolve finds the policy of a machine: the links of its site and of the containers above it, in the order of MS-GPOL 3.2.5.1
// (computer mode), of which exactly one wins, whole.
//
// Its invariant: the answer depends on the snapshot, the documents and the addresses of machines alone, and names every link that was considered
// with the reason why it won or lost. It leaves what a policy says to policies, and what to do while the winner cannot
// be read to the controller.
package resolve

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
)

// ErrUnknownMachine is wrapped when a machine is asked for that the snapshot does not have.
var ErrUnknownMachine = errors.New("no such machine in the directory")

// Reason says why a link won or lost.
type Reason uint8

// The reasons.
const (
	Won                Reason = iota + 1
	Overridden                // another link that applies has precedence
	LinkDisabled              // the link is disabled, enforced or not
	InheritanceBlocked        // a container between the link and the machine blocks inheritance
	NotInGroup                // the link applies to groups that the machine is no member of
	DeniedByGroup             // the machine is a member of a group that the link denies
	NotAScope                 // the container is neither OU= nor DC=, so it has no links
)

// String names the reason, for programs.
func (r Reason) String() string {
	switch r {
	case Won:
		return "won"
	case Overridden:
		return "overridden"
	case LinkDisabled:
		return "link-disabled"
	case InheritanceBlocked:
		return "inheritance-blocked"
	case NotInGroup:
		return "not-in-group"
	case DeniedByGroup:
		return "denied-by-group"
	case NotAScope:
		return "not-a-scope"
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}

// Entry is one link that was considered, with the fields of RSOP_GPLink and RSOP_IPSECPolicySetting (MS-GPOL,
// MS-GPIPSEC).
type Entry struct {
	Link         policies.Link
	Policy       string
	Container    directory.DN // where the link is
	SOMOrder     int          // of the container among the scopes above the machine, 1 is the top; 0 if it is no scope
	LinkOrder    int          // among the links of the container, 1 is the strongest
	AppliedOrder int          // among the links that apply, the last one wins; 0 if it does not apply
	Precedence   int          // among the links that apply, 1 is the winner; 0 if it does not apply
	Enabled      bool
	NoOverride   bool // enforced
	Reason       Reason
	Sentence     string // the reason in words
}

// Outcome is the answer for a machine, and for every machine alike: those of one container and the same groups share
// one. It never changes.
type Outcome struct {
	// Policy is the name of the policy that applies; policies.NoneName if none does. It is empty with Err.
	Policy string
	// Err wraps policies.ErrReference if the winner names a policy that does not exist. It does not fall through to the
	// next link (semantics of a Group Policy object whose IPsec policy was deleted): a machine keeps what it has.
	Err error
	// Entries are the links that were considered: those that apply from the winner downwards, then the others from the
	// nearest container upwards. Not to be modified.
	Entries []Entry
}

// Winner returns the entry that won; false if no policy applies.
func (o *Outcome) Winner() (Entry, bool) {
	if len(o.Entries) == 0 || o.Entries[0].Reason != Won {
		return Entry{}, false
	}
	return o.Entries[0], true
}

// Plan is what the documents say about containers, ready to be asked. It never changes and serves any snapshot.
type Plan struct {
	links  map[string][]policies.Link // by container, order 1 first
	blocks map[string]bool
	exists map[string]bool // policies

	subnets subnets
	where   Locations // nil without any
	// linkedSites says that there are links to sites, without which nobody's site matters.
	linkedSites bool
}

// Prepare reads links, containers and the names of policies. It looks at no directory.
func Prepare(d policies.Documents) *Plan {
	p := &Plan{links: map[string][]policies.Link{}, blocks: map[string]bool{}, exists: map[string]bool{}, subnets: newSubnets(d.Sites)}
	for _, l := range d.Links {
		p.linkedSites = p.linkedSites || policies.IsSite(l.Container)
		p.links[l.Container.Key()] = append(p.links[l.Container.Key()], l)
	}
	for _, list := range p.links {
		slices.SortFunc(list, func(a, b policies.Link) int {
			return cmp.Or(cmp.Compare(a.Order, b.Order), cmp.Compare(a.Key(), b.Key()))
		})
	}
	for _, c := range d.Containers {
		if c.BlockInheritance {
			p.blocks[c.DN.Key()] = true
		}
	}
	for _, doc := range d.Policies {
		p.exists[doc.Name] = true
	}
	return p
}

// level is one container above a machine that has a say.
type level struct {
	dn    directory.DN
	order int // SOMOrder; 0 if it is no scope
	links []policies.Link
	block bool
}

// chain is what applies to the machines of a container: its levels from the top to the container.
type chain struct {
	levels []level
	scopes int                 // scopes so far, those without a say included
	groups map[string]bool     // by DN key: the groups that any link asks for
	shared map[string]*Outcome // by membership in those groups
	sites  map[string]*chain   // by DN key: the same with a site on top
}

// extend returns the chain of a container below that of its parent; the parent's own if the container has no say.
func (p *Plan) extend(parent *chain, c directory.Container) *chain {
	scope := c.LinksPolicy()
	links, block := p.links[c.DN.Key()], scope && p.blocks[c.DN.Key()]
	out := chain{levels: parent.levels, scopes: parent.scopes, groups: parent.groups, shared: parent.shared, sites: parent.sites}
	if scope {
		out.scopes++
	}
	if len(links) == 0 && !block {
		return &out
	}
	l := level{dn: c.DN, links: links, block: block}
	if scope {
		l.order = out.scopes
	}
	out.levels = append(slices.Clip(parent.levels), l)
	out.shared, out.sites = map[string]*Outcome{}, map[string]*chain{}
	out.groups = withGroups(parent.groups, links)
	return &out
}

func withGroups(groups map[string]bool, links []policies.Link) map[string]bool {
	out := map[string]bool{}
	for g := range groups {
		out[g] = true
	}
	for _, l := range links {
		for _, dn := range slices.Concat(l.Apply, l.Deny) {
			out[dn.Key()] = true
		}
	}
	return out
}

// Machine resolves one machine.
func (p *Plan) Machine(s *directory.Snapshot, id directory.UUID) (*Outcome, error) {
	m, ok := s.Machine(id)
	if !ok {
		return nil, fmt.Errorf("resolve machine %s: %w", id, ErrUnknownMachine)
	}
	c := &chain{shared: map[string]*Outcome{}, sites: map[string]*chain{}}
	for _, container := range s.Path(m.DN) {
		c = p.extend(c, container)
	}
	c = p.sited(c, m)
	return p.outcome(c, memberships(s, c, m.DN)), nil
}

// Assignments is the answer for every machine of a snapshot. It never changes.
type Assignments struct {
	byMachine map[directory.UUID]*Outcome
}

// All resolves every machine. Machines with the same answer share its Outcome.
func (p *Plan) All(s *directory.Snapshot) Assignments {
	_, machines, _ := s.Len()
	out := Assignments{byMachine: make(map[directory.UUID]*Outcome, machines)}
	chains := map[string]*chain{}
	root := &chain{shared: map[string]*Outcome{}, sites: map[string]*chain{}}
	for container := range s.Containers() { // parents come first
		parent, ok := chains[container.DN.Parent().Key()]
		if !ok {
			parent = root // the base
		}
		c := p.extend(parent, container)
		chains[container.DN.Key()] = c
		for m := range s.ChildMachines(container.DN) {
			at := p.sited(c, m)
			groups := memberships(s, at, m.DN)
			o, ok := at.shared[groups.signature]
			if !ok {
				o = p.outcome(at, groups)
				at.shared[groups.signature] = o
			}
			out.byMachine[m.UUID] = o
		}
	}
	return out
}

// Len returns the number of machines.
func (a Assignments) Len() int { return len(a.byMachine) }

// Of returns the outcome of a machine; false if the snapshot did not have it.
func (a Assignments) Of(id directory.UUID) (*Outcome, bool) {
	o, ok := a.byMachine[id]
	return o, ok
}

// Policies returns how many machines each policy applies to, by name; policies.NoneName among them. Machines whose
// outcome has an error are not counted.
func (a Assignments) Policies() map[string]int {
	out := map[string]int{}
	for _, o := range a.byMachine {
		if o.Err == nil {
			out[o.Policy]++
		}
	}
	return out
}

// membership tells which of the groups that a chain asks for a machine belongs to; it belongs to itself.
type membership struct {
	signature string
	groups    map[string]bool
}

func memberships(s *directory.Snapshot, c *chain, dn directory.DN) membership {
	if len(c.groups) == 0 {
		return membership{}
	}
	var out membership
	add := func(key string) {
		if !c.groups[key] {
			return
		}
		if out.groups == nil {
			out.groups = map[string]bool{}
		}
		out.groups[key] = true
		out.signature += key + "\n"
	}
	add(dn.Key())                      // a link may name a single machine
	for _, g := range s.MemberOf(dn) { // ordered by DN
		add(g.DN.Key())
	}
	return out
}
