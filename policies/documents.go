// Package policies owns the documents that an administrator writes: policies, filter lists, filter actions, links of
// policies to containers of the directory, settings, and tests of all that. It decodes them from YAML and back, validates them as a whole
// and turns a policy with the lists and actions that it names into one effective spd.Policy.
//
// Its invariant: a document that decoded says exactly what its text says; an unknown field, a value out of range or a
// second definition is an error with its place, never skipped. Secrets are named, they never stand in a document. It
// leaves the choice of a policy for a machine to policies/resolve and its meaning to policies/spd.
package policies

import (
	"net/netip"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// APIVersion is the version of the documents that this package reads and writes.
const APIVersion = "bailiwick.net/v1alpha1"

// NoneName is the name of the policy of a machine that has none assigned. No document may have it.
const NoneName = "none"

// Kind names what a document describes.
type Kind string

// The kinds.
const (
	KindPolicy       Kind = "Policy"
	KindFilterList   Kind = "FilterList"
	KindFilterAction Kind = "FilterAction"
	KindLink         Kind = "Link"
	KindContainer    Kind = "Container"
	KindSettings     Kind = "Settings"
	KindPolicyTest   Kind = "PolicyTest"
)

// Kinds lists the kinds in the order in which Export writes them: what is named before what names it.
func Kinds() []Kind {
	return []Kind{KindSettings, KindFilterList, KindFilterAction, KindPolicy, KindContainer, KindSite, KindLink, KindPolicyTest}
}

// Position is a place in a file; line and column count from 1. The zero value is no place.
type Position struct {
	File         string
	Line, Column int
}

// Meta is what every object carries.
type Meta struct {
	Name        string
	Description string
	At          Position // where it was read; not part of the content
}

// A Document is one object of a file: a Policy, FilterList, FilterAction, Link, Container, Site, Settings or PolicyTest.
type Document interface {
	// Kind names the kind.
	Kind() Kind
	// Key is the identity of the document among those of its kind.
	Key() string
	// Metadata returns name, description and place.
	Metadata() Meta

	write(w *writer)
	add(d *Documents)
}

// Policy is the unit of assignment: rules, and what goes with them.
type Policy struct {
	Meta
	Rules           []Rule
	DefaultResponse DefaultResponse
	KeyExchange     KeyExchange
	Exemptions      Exemptions
}

// Rule joins a filter list with a filter action, both by name.
type Rule struct {
	Meta           // the name is unique in the policy
	Disabled       bool
	FilterList     string
	FilterAction   string
	Authentication []spd.Auth
	Interfaces     spd.Interfaces
	Tunnel         Tunnel
	// PeerGroups, if it is not empty, accepts only machines in one of these groups as peers.
	PeerGroups []directory.DN
}

// Tunnel holds the endpoints of a tunnel rule. The zero value is transport mode.
type Tunnel struct {
	Remote netip.Addr
	Local  netip.Addr // zero for the source address of the route
}

// Offer is one offer for a Child SA with the lifetime that it asks for.
type Offer struct {
	proposal.ESP
	Life proposal.Life
}

// String prints the offer as documents write it.
func (o Offer) String() string { return o.ESP.String() + o.Life.String() }

// DefaultResponse answers peers that ask for security where no rule covers them.
type DefaultResponse struct {
	Active         bool
	Offers         []Offer // empty for those of Level or, without one, proposal.DefaultESP
	Level          proposal.Level
	Authentication []spd.Auth
	PFS            bool
	Idle           time.Duration
}

// KeyExchange holds the settings of IKE SAs; without offers, those of proposal.DefaultIKE.
type KeyExchange = spd.KeyExchange

// Exemptions are packets that no rule sees, beside those that are always exempt.
type Exemptions struct {
	Multicast bool
	Broadcast bool
	Kerberos  bool
	RSVP      bool
	ICMP      bool
	// Level asks for exemptions by the number that Windows has for them.
	Level         ExemptionLevel
	BreakGlassTCP []uint16
}

// FilterList is a named set of filters that any number of rules may use.
type FilterList struct {
	Meta
	Filters []Filter
}

// Filter describes packets. Its name is optional, and unique in its list.
type Filter struct {
	Meta
	Source          spd.Address
	Destination     spd.Address
	Protocol        uint8
	SourcePort      spd.PortRange
	DestinationPort spd.PortRange
	Mirrored        bool
}

// FilterAction is what happens to the packets of a list; any number of rules may use it.
type FilterAction struct {
	Meta
	Action   spd.Action
	Inpass   bool
	Fallback spd.Fallback
	Offers   []Offer
	Level    proposal.Level // stands for its offers
	PFS      bool
	// Associations is how many Child SAs with the same selectors are wanted; 0 means one.
	Associations uint8
}

// Link assigns a policy to a container of the directory.
type Link struct {
	Meta      // the name is optional; it tells two links of one policy to one container apart
	Policy    string
	Container directory.DN // of the directory, or of a Site
	Order     int          // among the links of the container; 1 wins
	Enforced  bool
	Disabled  bool
	// Apply, if it is not empty, limits the link to the members of these groups. Deny excludes the members of these
	// groups, also from Apply. Either may name a single machine.
	Apply []directory.DN
	Deny  []directory.DN
}

// Container holds the settings of one container of the directory.
type Container struct {
	Meta             // without a name
	DN               directory.DN
	BlockInheritance bool
}

// Settings hold for the whole fleet. There is at most one document of them.
type Settings struct {
	Meta                   // without a name
	BreakGlassTCP []uint16 // added to those of every policy
	// BlockApply is how grave a finding has to be to keep a change from being applied that brings it.
	BlockApply BlockApply
}

// Documents are the documents of one or many files, in the order in which they were read.
type Documents struct {
	Policies      []Policy
	FilterLists   []FilterList
	FilterActions []FilterAction
	Links         []Link
	Containers    []Container
	Sites         []Site
	Settings      []Settings
	PolicyTests   []PolicyTest
}

// Kind returns KindPolicy.
func (Policy) Kind() Kind { return KindPolicy }

// Kind returns KindFilterList.
func (FilterList) Kind() Kind { return KindFilterList }

// Kind returns KindFilterAction.
func (FilterAction) Kind() Kind { return KindFilterAction }

// Kind returns KindLink.
func (Link) Kind() Kind { return KindLink }

// Kind returns KindContainer.
func (Container) Kind() Kind { return KindContainer }

// Kind returns KindSettings.
func (Settings) Kind() Kind { return KindSettings }

// Key returns the name.
func (m Meta) Key() string { return m.Name }

// Metadata returns the Meta itself.
func (m Meta) Metadata() Meta { return m }

// Key returns the name of the link or, without one, "policy -> container".
func (l Link) Key() string {
	if l.Name != "" {
		return l.Name
	}
	return l.Policy + " -> " + l.Container.Key()
}

// Key returns the normal form of the DN.
func (c Container) Key() string { return c.DN.Key() }

// Key returns "fleet": there is one document of settings.
func (Settings) Key() string { return "fleet" }

func (p Policy) add(d *Documents)       { d.Policies = append(d.Policies, p) }
func (l FilterList) add(d *Documents)   { d.FilterLists = append(d.FilterLists, l) }
func (a FilterAction) add(d *Documents) { d.FilterActions = append(d.FilterActions, a) }
func (l Link) add(d *Documents)         { d.Links = append(d.Links, l) }
func (c Container) add(d *Documents)    { d.Containers = append(d.Containers, c) }
func (s Settings) add(d *Documents)     { d.Settings = append(d.Settings, s) }

// Add appends one document.
func (d *Documents) Add(doc Document) { doc.add(d) }

// All returns every document by kind, in the order of Kinds.
func (d Documents) All() []Document {
	var out []Document
	out = appendDocuments(out, d.Settings)
	out = appendDocuments(out, d.FilterLists)
	out = appendDocuments(out, d.FilterActions)
	out = appendDocuments(out, d.Policies)
	out = appendDocuments(out, d.Containers)
	out = appendDocuments(out, d.Sites)
	out = appendDocuments(out, d.Links)
	return appendDocuments(out, d.PolicyTests)
}

func appendDocuments[D Document](out []Document, list []D) []Document {
	for _, doc := range list {
		out = append(out, doc)
	}
	return out
}

// Merge returns the documents of both. Two of one kind and key are both kept, for Validate to report.
func (d Documents) Merge(o Documents) Documents {
	return Documents{
		Policies:      slices.Concat(d.Policies, o.Policies),
		FilterLists:   slices.Concat(d.FilterLists, o.FilterLists),
		FilterActions: slices.Concat(d.FilterActions, o.FilterActions),
		Links:         slices.Concat(d.Links, o.Links),
		Containers:    slices.Concat(d.Containers, o.Containers),
		Sites:         slices.Concat(d.Sites, o.Sites),
		Settings:      slices.Concat(d.Settings, o.Settings),
		PolicyTests:   slices.Concat(d.PolicyTests, o.PolicyTests),
	}
}

// Policy returns the policy of a name.
func (d Documents) Policy(name string) (Policy, bool) { return named(d.Policies, name) }

// FilterList returns the filter list of a name.
func (d Documents) FilterList(name string) (FilterList, bool) { return named(d.FilterLists, name) }

// FilterAction returns the filter action of a name.
func (d Documents) FilterAction(name string) (FilterAction, bool) {
	return named(d.FilterActions, name)
}

func named[D Document](list []D, name string) (D, bool) {
	i := slices.IndexFunc(list, func(d D) bool { return d.Key() == name })
	if i < 0 {
		var none D
		return none, false
	}
	return list[i], true
}
