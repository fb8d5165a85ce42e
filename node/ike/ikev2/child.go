package ikev2

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/impair"
	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

const (
	// LimitChildren bounds the Child SAs of one IKE SA.
	LimitChildren = 1024
	limitDeleted  = 16
	replayWindow  = 1024
)

// child is a Child SA and what is going on with it.
type child struct {
	sa.Child
	rule      *ike.Rule // as it was when the Child SA was made
	initiator bool      // this side initiated the exchange
	installed time.Time
	confirm   time.Time // when an unused outbound half is used at the latest
	switched  bool      // the outbound half carries traffic
	replaced  bool      // a successor of an own rekey is installed, the delete waits
	deleting  bool      // own delete is outstanding
	gone      bool
	rekeyDue  bool // to be rekeyed when it is in use
	peerRekey *peerRekey
	ex        Exchange // that made it
	fromAuth  bool     // made in IKE_AUTH
	twin      *child   // the same Child SA, made by the peer at the same time, that stays when this one goes
}

// waits reports whether the outbound half is unused until something confirms that the peer has the other one. What is
// being replaced or deleted already is not taken into use any more.
func (c *child) waits() bool {
	return !c.gone && !c.switched && !c.replaced && !c.deleting && !c.confirm.IsZero()
}

// peerRekey is the peer's rekey of a Child SA that this side answered.
type peerRekey struct {
	child *child
	ex    Exchange
}

// childRequest is one negotiation of a Child SA, own or of the peer.
type childRequest struct {
	spi           sa.SPI // own inbound one
	rule          *ike.Rule
	isDefault     bool
	offers        []proposal.ESP // own
	offered       wire.SA        // of the peer
	transport     bool
	local, remote []sa.Selector // as proposed, seen from here
	withGroup     bool          // in CREATE_CHILD_SA
	ke            wire.KE       // own or of the peer
	hasKE         bool
	private       any
	rekeys        *child
	ni, nr        []byte
	narrowed      narrowing
	resource      uint32 // RFC 9611; 0 for the first of its selectors
	resources     bool   // the peer's request says that it wants several
}

// groupsOf adapts the offers of a rule to its PFS setting. Without a group of their own they take the one of the IKE SA.
func (s *SA) groupsOf(r *ike.Rule) []proposal.ESP {
	return proposal.ForRule(r.Offers, r.PFS, s.suite.KeyExchange())
}

// newChildRequest prepares an own negotiation for a flow. The group of the key exchange is that of the first offer.
func (s *SA) newChildRequest(flow ike.Flow, rule ike.Rule, withGroup bool, resource uint32) *childRequest {
	w := &childRequest{
		rule: &rule, isDefault: flow.DefaultResponse, offers: s.groupsOf(&rule), transport: wantsTransport(&rule),
		local: []sa.Selector{flow.LocalTS}, remote: []sa.Selector{flow.RemoteTS}, withGroup: withGroup, resource: resource,
	}
	w.spi = s.host.ChildSPI(s.laneOf(w, w.rule))
	return w
}

// group is the key exchange that an own CREATE_CHILD_SA starts with.
func (w *childRequest) group() proposal.Group {
	if !w.withGroup || len(w.offers) == 0 {
		return proposal.GroupNone
	}
	return w.offers[0].Group
}

// childPayloads are the payloads of an own request that describe the Child SA.
func (s *SA) childPayloads(w *childRequest) []wire.Payload {
	s.trace("ask for a Child SA %v to %v, offer %v", w.local, w.remote, slices.Clone(w.offers))
	payloads := make([]wire.Payload, 0, usualPayloads/2)
	if w.transport {
		payloads = append(payloads, wire.Notify{Type: wire.NotifyUseTransportMode})
	}
	if w.rekeys == nil {
		payloads = append(payloads, resourceInfo(w.rule, w.resource)...)
	}
	payloads = append(payloads, wire.SAFromESP(w.offers, w.spi, w.withGroup))
	if w.withGroup {
		payloads = append(payloads, wire.Nonce{Data: w.ni})
	}
	if w.hasKE {
		payloads = append(payloads, w.ke)
	}
	return append(payloads, wire.TS{Selectors: w.local}, wire.TS{Responder: true, Selectors: w.remote})
}

var errChildPayloads = errors.New("request for a Child SA without SA, TSi and TSr")

// readChildRequest reads the peer's request for a Child SA.
func (s *SA) readChildRequest(payloads []wire.Payload) (*childRequest, error) {
	offered, hasSA := wire.Find[wire.SA](payloads, nil)
	tsi, hasTSi := wire.Find(payloads, func(t wire.TS) bool { return !t.Responder })
	tsr, hasTSr := wire.Find(payloads, func(t wire.TS) bool { return t.Responder })
	if !hasSA || !hasTSi || !hasTSr {
		return nil, errChildPayloads
	}
	w := &childRequest{offered: offered, local: tsr.Selectors, remote: tsi.Selectors}
	_, w.transport = wire.FindNotify(payloads, wire.NotifyUseTransportMode)
	w.resource, w.resources = readResource(payloads)
	w.ke, w.hasKE = wire.Find[wire.KE](payloads, nil)
	if n, ok := wire.Find[wire.Nonce](payloads, nil); ok {
		w.ni = n.Data
	}
	return w, nil
}

// childChoice is what the responder chose.
type childChoice struct {
	selection
	suite  proposal.ESP
	number uint8
	peer   sa.SPI
}

// chooseChild decides as responder, without making anything. The second result is the answer when nothing is chosen.
func (s *SA) chooseChild(w *childRequest) (childChoice, *wire.Notify) {
	refuse := func(n wire.NotifyType, reason ike.Reason, detail string) (childChoice, *wire.Notify) {
		s.refuseRequest(reason, detail)
		return childChoice{}, &wire.Notify{Type: n}
	}
	if live := s.liveChildren(); live >= LimitChildren {
		return refuse(wire.NotifyNoAdditionalSAs, ike.ReasonChildLimit, fmt.Sprintf("the IKE SA has %d Child SAs", live))
	}
	sel, ok := s.narrow(w)
	if !ok {
		return refuse(wire.NotifyTSUnacceptable, ike.ReasonTSUnacceptable,
			fmt.Sprintf("no rule covers %v to %v", w.remote, w.local))
	}
	if w.resource > 0 && w.rekeys == nil && s.tooManyResources(sel) { // RFC 9611 5.2
		return refuse(wire.NotifyTSMaxQueue, ike.ReasonChildLimit, fmt.Sprintf("rule %q wants no more of these selectors", sel.rule.ID))
	}
	// The rule that covers the traffic must allow the way in which this peer was authenticated.
	if !slices.Contains(sel.rule.Auth, s.auth) {
		return refuse(wire.NotifyTSUnacceptable, ike.ReasonAuthNotAllowed,
			fmt.Sprintf("rule %q does not allow the authentication of this IKE SA", sel.rule.ID))
	}
	if !s.admits(sel.rule) {
		return refuse(wire.NotifyTSUnacceptable, ike.ReasonPeerNotInGroup, s.notAdmitted(sel.rule))
	}
	own := s.groupsOf(sel.rule)
	if impair.On(impair.WeakerProposal) {
		slices.Reverse(own)
	}
	chosen, number, ok := wire.ChooseESP(own, w.offered, w.withGroup)
	if !ok && w.withGroup && !sel.rule.PFS {
		chosen, number, ok = wire.ChooseESP(proposal.WithGroups(own, s.cfg.Offers), w.offered, true)
	}
	if !ok {
		return refuse(wire.NotifyNoProposalChosen, ike.ReasonNoProposal,
			fmt.Sprintf("rule %q allows none of the proposals for the Child SA: offered is %s; allowed is %v", sel.rule.ID, w.offered, own))
	}
	peer, ok := w.offered.OfferedSPI(number)
	if !ok || peer < 256 {
		return refuse(wire.NotifyInvalidSyntax, ike.ReasonSyntax, "the proposal has no usable SPI")
	}
	return childChoice{selection: sel, suite: chosen, number: number, peer: peer}, nil
}

// acceptChild makes a Child SA as responder where no key exchange is needed: in IKE_AUTH.
func (s *SA) acceptChild(w *childRequest, ke *wire.KE) ([]wire.Payload, *child) {
	choice, refusal := s.chooseChild(w)
	if refusal != nil {
		return []wire.Payload{*refusal}, nil
	}
	return s.buildChild(w, choice, ke, sa.Secret{})
}

// buildChild makes the Child SA without using its outbound half, and gives the answer.
func (s *SA) buildChild(w *childRequest, choice childChoice, ke *wire.KE, shared sa.Secret) ([]wire.Payload, *child) {
	payloads := s.answerChild(w, choice, ke)
	c, err := s.makeChild(w, choice, shared)
	if err != nil {
		s.refuseRequest(ike.ReasonInternal, "derive the keys of a Child SA: "+err.Error())
		return []wire.Payload{wire.Notify{Type: wire.NotifyNoProposalChosen}}, nil
	}
	return payloads, c
}

// answerChild chooses the own SPI and gives the answer to CREATE_CHILD_SA.
func (s *SA) answerChild(w *childRequest, choice childChoice, ke *wire.KE) []wire.Payload {
	w.spi = s.host.ChildSPI(s.laneOf(w, choice.rule))
	payloads := make([]wire.Payload, 0, usualPayloads/2)
	if choice.mode == sa.Transport {
		payloads = append(payloads, wire.Notify{Type: wire.NotifyUseTransportMode})
	}
	if w.resources && w.rekeys == nil {
		payloads = append(payloads, resourceInfo(choice.rule, w.resource)...)
	}
	payloads = append(payloads, wire.AnswerESP(choice.suite, choice.number, w.offered, w.spi))
	if w.withGroup {
		payloads = append(payloads, wire.Nonce{Data: w.nr})
	}
	if ke != nil {
		payloads = append(payloads, *ke)
	}
	return append(payloads, wire.TS{Selectors: choice.toldRemote}, wire.TS{Responder: true, Selectors: choice.told})
}

// makeChild derives the keys and installs the Child SA that was answered, without using its outbound half.
func (s *SA) makeChild(w *childRequest, choice childChoice, shared sa.Secret, additional ...sa.Secret) (*child, error) {
	fromInitiator, fromResponder, err := suite.DeriveChild(s.suite.PRF, s.keys.D, shared, w.ni, w.nr, choice.suite, additional...)
	if err != nil {
		return nil, err
	}
	c := s.newChild(choice.rule, choice.isDefault, choice.mode, choice.suite, false)
	c.LocalTS, c.RemoteTS = choice.local, choice.remote
	c.In, c.Out = fromInitiator, fromResponder
	if impair.On(impair.KeysReused) && w.rekeys != nil {
		c.In, c.Out = w.rekeys.In, w.rekeys.Out
	}
	c.In.SPI, c.Out.SPI = w.spi, choice.peer
	c.ex, c.fromAuth = Exchange{Ni: w.ni, Nr: w.nr}, !w.withGroup
	if w.rekeys != nil {
		c.ReplacesIn = w.rekeys.In.SPI
	}
	c.Bundle = s.bundleOf(w, c)
	s.install(c)
	return c, nil
}

func (s *SA) newChild(rule *ike.Rule, isDefault bool, mode sa.Mode, chosen proposal.ESP, initiator bool) *child {
	c := &child{rule: rule, initiator: initiator}
	c.Child = sa.Child{
		DefaultResponse: isDefault, Peer: s.peerName, Mode: mode, Local: s.local, Remote: s.remote,
		Encap: s.encap, Suite: chosen, ReplayWindow: replayWindow, Idle: rule.Idle, NATRemote: s.natRemote,
		Mobile: s.mobile,
	}
	c.Soft, c.Hard = s.bounds(rule.Lifetime, chosen, initiator)
	if isDefault {
		if c.Idle == 0 {
			c.Idle = idleDefault
		}
	} else {
		c.Rule = rule.ID
	}
	return c
}

// install puts both halves into the datapath; the outbound one is not used yet.
func (s *SA) install(c *child) {
	c.installed = s.now
	s.children = append(s.children, c)
	s.derived++
	s.logChildKeys(c)
	s.trace("install Child SA in %s out %s %s %v to %v, protected by %s, rule %q", c.In.SPI, c.Out.SPI, c.Mode, c.LocalTS, c.RemoteTS, c.Suite, c.Rule)
	if impair.On(impair.OutboundHalfFirst) {
		s.host.Emit(ike.InstallOut{Child: c.Child})
	}
	s.host.Emit(ike.InstallIn{Child: c.Child})
	s.host.Emit(ike.InstallOut{Child: c.Child})
}

func (s *SA) switchOut(c *child) {
	if c.switched || c.gone {
		return
	}
	c.switched, c.confirm = true, timeZero
	s.host.Emit(ike.SwitchOut{Child: c.Child})
	for _, o := range s.children {
		if o.twin == c {
			s.closeChild(o, ike.ReasonRedundant)
		}
	}
	if c.rekeyDue {
		c.rekeyDue = false
		s.rekeyChild(c)
	}
}

// duplicate looks for the same Child SA made by the other side at the same time. As with rekeys the one whose exchange
// has the lowest nonce is redundant, and its creator deletes it once the other is in use.
func (s *SA) duplicate(c *child) {
	for _, o := range s.children {
		if o == c || o.gone || o.deleting || o.replaced || o.initiator == c.initiator && o.ReplacesIn == 0 || o.Rule != c.Rule ||
			o.DefaultResponse != c.DefaultResponse || !slices.Equal(o.LocalTS, c.LocalTS) || !slices.Equal(o.RemoteTS, c.RemoteTS) {
			continue
		}
		own, theirs := c, o
		if o.initiator {
			own, theirs = o, c
		}
		switch {
		case o.ReplacesIn != 0 && c.initiator: // it was there before the request came, perhaps a late one
			own, theirs = c, o
		case o.ReplacesIn != 0, !own.ex.lowest(theirs.ex):
			continue // the peer deletes its own
		}
		s.trace("Child SA in %s is the same as in %s and redundant", own.In.SPI, theirs.In.SPI)
		own.twin = theirs
		if theirs.switched {
			s.closeChild(own, ike.ReasonRedundant)
		}
	}
}

// passTwin lets what is redundant beside c wait for what has replaced c.
func (s *SA) passTwin(c *child) {
	for _, o := range s.children {
		if o.twin != c {
			continue
		}
		i := slices.IndexFunc(s.children, func(n *child) bool { return n.ReplacesIn == c.In.SPI && !n.gone && n != o })
		if i < 0 {
			o.twin = nil // it is the only one again
			continue
		}
		if o.twin = s.children[i]; o.twin.switched {
			s.closeChild(o, ike.ReasonRedundant)
		}
	}
}

// announce tells that a new Child SA, which replaces no other, is there. As responder its outbound half waits for a sign
// that the initiator has installed its inbound half.
func (s *SA) announce(c *child) {
	if c == nil || c.gone {
		return
	}
	if !c.switched {
		c.confirm = s.now.Add(s.confirmWait(c))
	}
	s.note(ChildUp{Child: c.Child})
	s.duplicate(c)
}

// uninstall removes a Child SA from the datapath.
func (s *SA) uninstall(c *child, reason ike.Reason) {
	if c.gone {
		return
	}
	c.gone = true
	if pr := c.peerRekey; pr != nil && !pr.child.gone && !pr.child.switched && pr.child.confirm.IsZero() {
		pr.child.confirm = s.now.Add(confirmWait) // nothing else carries the traffic now
	}
	s.trace("remove Child SA in %s out %s: %s", c.In.SPI, c.Out.SPI, reason)
	s.host.Emit(ike.Remove{Child: c.Child, Reason: reason})
	s.children = slices.DeleteFunc(slices.Clone(s.children), func(o *child) bool { return o == c })
	if s.state == StateClosed || s.closing() {
		return
	}
	s.passTwin(c)
	for i := len(s.children) - 1; i >= 0; i-- { // what stays carries the traffic
		o := s.children[i]
		if o.switched && !o.gone && !o.deleting && !o.replaced && slices.Equal(o.LocalTS, c.LocalTS) && slices.Equal(o.RemoteTS, c.RemoteTS) {
			s.host.Emit(ike.SwitchOut{Child: o.Child})
			break
		}
	}
	if !s.anyChild() {
		s.childless = s.now.Add(childlessWait)
	}
}

// Prefer sends the traffic of all Child SAs through this SA, where others carry it as well.
func (s *SA) Prefer(now time.Time) {
	s.now = now
	for _, c := range s.children {
		if !c.gone && c.switched && !c.deleting && !c.replaced {
			s.host.Emit(ike.SwitchOut{Child: c.Child})
		}
	}
}

func (s *SA) liveChildren() int {
	n := 0
	for _, c := range s.children {
		if !c.gone {
			n++
		}
	}
	return n
}

func (s *SA) anyChild() bool { return s.liveChildren() > 0 }

// childByOut finds a Child SA by the SPI that the peer chose.
func (s *SA) childByOut(spi sa.SPI) *child {
	for _, c := range s.children {
		if !c.gone && c.Out.SPI == spi {
			return c
		}
	}
	return nil
}

func (s *SA) childByIn(spi sa.SPI) *child {
	for _, c := range s.children {
		if !c.gone && c.In.SPI == spi {
			return c
		}
	}
	return nil
}

// Holds reports whether a Child SA with this inbound SPI belongs to the SA.
func (s *SA) Holds(spi sa.SPI) bool { return s.childByIn(spi) != nil }

// Covers reports whether a Child SA of the rule carries a flow.
func (s *SA) Covers(flow ike.Flow) bool { return s.covering(flow) != nil }

func (s *SA) covering(flow ike.Flow) *child {
	for _, c := range s.children {
		if !c.gone && !c.deleting && !c.replaced && c.Rule == flow.Rule && c.DefaultResponse == flow.DefaultResponse && CoversFlow(c.Child, flow) {
			return c
		}
	}
	return nil
}

// CoversFlow reports whether the selectors of a Child SA contain those of a flow.
func CoversFlow(c sa.Child, flow ike.Flow) bool {
	in := func(list []sa.Selector, x sa.Selector) bool {
		return slices.ContainsFunc(list, func(s sa.Selector) bool { return s.Contains(x) })
	}
	return in(c.LocalTS, flow.LocalTS) && in(c.RemoteTS, flow.RemoteTS)
}

// RefusalSeen says that an error without authentication came while IKE_SA_INIT was under way. It decides nothing yet, but
// an administrator wants to hear of it before the last retransmission.
type RefusalSeen struct {
	Reason ike.Reason
	Detail string
}

func (RefusalSeen) note() {}

// ChildRefused says that a Child SA that the peer asked for was not made.
type ChildRefused struct {
	Reason ike.Reason
	Detail string
}

func (ChildRefused) note() {}
