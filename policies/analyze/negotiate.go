package analyze

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// negotiate plays IKE between the sender of a packet and the other end, and keeps the association if they agree.
func (x *exchange) negotiate(sender int, m spd.Match, p spd.Packet) *Negotiation {
	t := newTalk(x.ends[sender], x.ends[1-sender], m, p)
	if t.n.Elsewhere == "" {
		t.run()
		t.grants(p)
	}
	if t.n.Made() {
		made := &association{made: t.n}
		made.rules[sender], made.rules[1-sender] = m.Rule.ID, t.n.ResponderRule
		made.local[sender], made.local[1-sender] = t.n.InitiatorSelectors, t.n.ResponderSelectors
		x.sas = append(x.sas, made)
	}
	return t.n
}

// newTalk prepares a negotiation for a packet that an end wants to send.
func newTalk(from, to *End, m spd.Match, p spd.Packet) *talk {
	local, remote := m.Selectors(p)
	t := &talk{
		initiator: party{End: from, address: p.Source}, responder: party{End: to, address: p.Destination},
		rule: m.Rule, local: local, remote: remote,
		n: &Negotiation{
			Initiator: from.Name, Responder: to.Name, InitiatorRule: m.Rule.ID, Tunnel: m.Filter.Tunnel,
			InitiatorSelectors: local, ResponderSelectors: remote,
		},
	}
	if m.Filter.Tunnel {
		if m.Rule.TunnelLocal.IsValid() {
			t.initiator.address = m.Rule.TunnelLocal
		}
		t.responder.address = m.Rule.Tunnel
		if own, _ := to.Set.Addresses(); !slices.Contains(own, m.Rule.Tunnel) && m.Rule.Tunnel != p.Destination {
			t.n.Elsewhere = m.Rule.Tunnel.String()
		}
	}
	return t
}

// party is an end in a negotiation.
type party struct {
	*End
	address netip.Addr
}

// talk is one negotiation between two ends, in the order in which IKE comes to the questions.
type talk struct {
	initiator, responder party
	rule                 *spd.Rule // of the initiator
	local, remote        []spd.Selector
	n                    *Negotiation
}

// answering is the rule of the responder that decides about the traffic.
type answering struct {
	id        string
	isDefault bool
	offers    []proposal.ESP
	auth      []spd.Auth
	pfs       bool
	groups    []string
	narrowed  spd.Narrowed
}

func (t *talk) run() {
	if !slices.ContainsFunc(t.rule.Auth, t.initiator.holds) {
		t.differ(CodeNoCredential, authTexts(t.rule.Auth), nil, "%s has no credential that its rule %q allows (%s)",
			t.initiator.Name, t.rule.ID, strings.Join(authTexts(t.rule.Auth), ", "))
		return
	}
	if !t.responder.Node {
		t.n.Silent = true
		return
	}
	if len(t.responder.Set.KeyExchange().Offers) == 0 {
		// It does not answer either: to its peers it is what a machine without IPsec is.
		t.n.Silent = true
		t.differ(CodeSilent, texts(t.initiator.Set.KeyExchange().Offers), nil, "%s answers no IKE, because its policy negotiates nothing", t.responder.Name)
		return
	}
	if !t.ikeSA() {
		return
	}
	a, ok := t.narrow()
	if !ok || !t.authenticate(a) || !t.groups(a.groups) || !t.child(a) || !t.mode(a) {
		return
	}
	if !spd.AdmitsPeer(t.rule.PeerGroups, t.responder.membership(t.n.ResponderAuth)) {
		t.differ(CodeGroups, t.rule.PeerGroups, t.responder.Groups, "%s is in none of the groups that rule %q of %s accepts",
			t.responder.Name, t.rule.ID, t.initiator.Name)
		return
	}
	t.n.InitiatorSelectors, t.n.ResponderSelectors = a.narrowed.Remote, a.narrowed.Local
}

// granted reports whether the association is for a packet that the initiator sends.
func (n *Negotiation) granted(p spd.Packet) bool {
	return contains(n.InitiatorSelectors, p.Protocol, spd.HostSelector(p.Source), p.SourcePort) &&
		contains(n.ResponderSelectors, p.Protocol, spd.HostSelector(p.Destination), p.DestinationPort)
}

// grants looks whether the association that was agreed is for the packet.
func (t *talk) grants(p spd.Packet) {
	if t.n.Made() && !t.n.granted(p) {
		t.differ(CodeSelectors, selectorTexts(t.local, t.remote), selectorTexts(t.n.InitiatorSelectors, t.n.ResponderSelectors),
			"rule %q of %s grants only a part of what rule %q of %s asks for, without this packet",
			t.n.ResponderRule, t.responder.Name, t.rule.ID, t.initiator.Name)
	}
}

// differ notes the first thing that the two do not agree about, and returns false.
func (t *talk) differ(c Code, initiator, responder []string, format string, args ...any) bool {
	t.n.Mismatch = &Mismatch{Code: c, Sentence: fmt.Sprintf(format, args...), Initiator: initiator, Responder: responder}
	return false
}

// ikeSA is IKE_SA_INIT.
func (t *talk) ikeSA() bool {
	here, there := t.initiator.Set.KeyExchange(), t.responder.Set.KeyExchange()
	chosen, ok := proposal.ChooseIKE(there.Offers, here.Offers)
	if !ok {
		return t.differ(CodeIKEOffers, texts(here.Offers), texts(there.Offers), "%s and %s have no offer for the IKE SA in common",
			t.initiator.Name, t.responder.Name)
	}
	t.n.IKE = chosen
	for _, s := range []struct {
		requires, refuses party
		differ            bool
	}{
		{t.responder, t.initiator, there.Transcript == spd.TranscriptRequire && here.Transcript == spd.TranscriptNever},
		{t.initiator, t.responder, here.Transcript == spd.TranscriptRequire && there.Transcript == spd.TranscriptNever},
	} {
		if s.differ {
			return t.differ(CodeTranscript, []string{here.Transcript.String()}, []string{there.Transcript.String()},
				"%s requires that both messages of IKE_SA_INIT are authenticated, and %s never does so", s.requires.Name, s.refuses.Name)
		}
	}
	return true
}

// narrow finds the rule of the responder.
func (t *talk) narrow() (answering, bool) {
	rules := t.responder.Set.Negotiables()
	request := spd.Request{
		Transport: !t.n.Tunnel, Local: t.remote, Remote: t.local, Here: t.responder.address, There: t.initiator.address,
	}
	candidate := func(i int) spd.Candidate { return t.candidate(&rules[i]) }
	if n, ok := spd.Narrow(request, len(rules), candidate); ok {
		r := rules[n.Index].Rule
		t.n.ResponderRule = r.ID
		return answering{id: r.ID, offers: r.Action.Offers, auth: r.Auth, pfs: r.Action.PFS, groups: r.PeerGroups, narrowed: n}, true
	}
	if d := t.responder.Set.DefaultResponse(); d.Active {
		if n, ok := spd.NarrowDefault(request); ok {
			t.n.DefaultResponse = true
			return answering{isDefault: true, offers: d.Offers, auth: d.Auth, pfs: d.PFS, narrowed: n}, true
		}
	}
	wanted := selectorTexts(t.local, t.remote)
	if t.n.Tunnel {
		request.Transport = true
		if n, ok := spd.Narrow(request, len(rules), candidate); ok && n.Transport {
			return answering{}, t.differ(CodeMode, []string{"tunnel"}, []string{"transport"},
				"rule %q of %s is a tunnel, and rule %q of %s is for transport mode", t.rule.ID, t.initiator.Name, rules[n.Index].Rule.ID, t.responder.Name)
		}
	}
	var have []string
	for _, r := range rules {
		for _, p := range r.Pairs {
			have = append(have, fmt.Sprintf("%s to %s (rule %q)", p.Remote, p.Local, r.Rule.ID))
		}
	}
	why := "has no rule that negotiates this traffic, and no default response"
	if t.n.Tunnel {
		why = "has no tunnel rule for this traffic that leads back"
	}
	return answering{}, t.differ(CodeSelectors, wanted, have, "%s wants it protected (rule %q), and %s %s", t.initiator.Name, t.rule.ID, t.responder.Name, why)
}

// candidate is a rule of the responder as it answers the initiator.
func (t *talk) candidate(n *spd.Negotiable) spd.Candidate {
	r := n.Rule
	return spd.Candidate{
		Transport: !r.Tunnel.IsValid(), Tunnel: r.Tunnel, Pairs: n.Pairs, Auth: r.Auth,
		Unexpected: r.Tunnel.IsValid() && r.Tunnel != t.initiator.address,
	}
}

// entries are those by which the responder believes anybody in IKE_AUTH: those of the rule about the traffic, or of every
// rule about the initiator where the traffic is asked for later.
func (t *talk) entries(a answering) []spd.Auth {
	if !separate(t.initiator.Set.KeyExchange(), t.responder.Set.KeyExchange()) {
		return a.auth
	}
	rules := t.responder.Set.Negotiables()
	return spd.PeerAuth(t.initiator.address, len(rules), func(i int) spd.Candidate { return t.candidate(&rules[i]) }, t.responder.Set.DefaultResponse().Auth)
}

// authenticate is IKE_AUTH: the entries of the initiator in their order, each against those of the responder.
func (t *talk) authenticate(a answering) bool {
	entries := t.entries(a)
	var why Code
	sentence := fmt.Sprintf("%s and %s have no way to authenticate in common", t.initiator.Name, t.responder.Name)
	for _, e := range t.rule.Auth {
		if !t.initiator.holds(e) {
			continue
		}
		f, code, problem := t.accepts(e, entries, a.name())
		if code == "" {
			t.n.InitiatorAuth, t.n.ResponderAuth = e, f
			if slices.Contains(a.auth, f) {
				return true
			}
			// The rule that covers the traffic must allow the way in which the initiator was authenticated before.
			return t.differ(CodeAuth, authTexts(t.rule.Auth), authTexts(a.auth), "%s believes %s by %s, which rule %q does not allow",
				t.responder.Name, t.initiator.Name, authTexts([]spd.Auth{f})[0], a.name())
		}
		if problem != "" {
			why, sentence = code, problem
		}
	}
	if why == "" {
		why = CodeAuth
	}
	return t.differ(why, authTexts(t.rule.Auth), authTexts(a.auth), "%s", sentence)
}

// accepts finds the entry of the responder by which it believes the initiator, and asks the initiator whether it believes
// the responder by its own.
func (t *talk) accepts(e spd.Auth, entries []spd.Auth, rule string) (f spd.Auth, code Code, problem string) {
	here, there := t.initiator, t.responder
	known := there.usesPPK()
	if e.WantsPPK() && !known {
		return f, CodePPK, fmt.Sprintf("%s wants the postquantum preshared key %q, and %s uses none", here.Name, e.PPK, there.Name)
	}
	named := e.PPK != "" && known && !slices.Contains(here.Missing, e.PPK)
	for _, f := range entries {
		if f.Method != e.Method {
			continue
		}
		mixed := named && f.PPK == e.PPK && !slices.Contains(there.Missing, f.PPK)
		switch {
		case !f.IsFor(here.claims(e)):
			code, problem = CodeAuth, fmt.Sprintf("%s is %s, and rule %q of %s accepts only %s", here.Name, here.claims(e), rule, there.Name, f.RemoteID)
		case !mixed && (f.WantsPPK() || named && e.WantsPPK()):
			code, problem = CodePPK, fmt.Sprintf("%s and %s do not use the same postquantum preshared key: %q and %q", here.Name, there.Name, e.PPK, f.PPK)
		case f.Method == spd.AuthPSK && slices.Contains(there.Missing, f.Secret):
			code, problem = CodeAuth, fmt.Sprintf("%s does not have the preshared key %q", there.Name, f.Secret)
		case f.Method == spd.AuthPSK && f.Secret != e.Secret:
			code, problem = CodeAuth, fmt.Sprintf("%s uses the preshared key %q, and %s %q", here.Name, e.Secret, there.Name, f.Secret)
		case f.Method == spd.AuthCertificate && here.Authorities != nil && !f.AcceptsIssuer(here.Authorities):
			code, problem = CodeAuth, fmt.Sprintf("the certificate of %s is not of %s, which rule %q of %s wants", here.Name, f.CA, rule, there.Name)
		default:
			// The responder authenticates by this entry; the initiator judges it by its own.
			switch {
			case !there.holds(f):
				return f, CodeAuth, fmt.Sprintf("%s has no certificate", there.Name)
			case !e.IsFor(there.claims(f)):
				return f, CodeAuth, fmt.Sprintf("%s is %s, and rule %q of %s accepts only %s", there.Name, there.claims(f), t.rule.ID, here.Name, e.RemoteID)
			case e.Method == spd.AuthCertificate && there.Authorities != nil && !e.AcceptsIssuer(there.Authorities):
				return f, CodeAuth, fmt.Sprintf("the certificate of %s is not of %s, which rule %q of %s wants", there.Name, e.CA, t.rule.ID, here.Name)
			}
			return f, "", ""
		}
	}
	if code == "" {
		code = CodeAuth
	}
	return f, code, problem
}

func (a answering) name() string {
	if a.isDefault {
		return "default response"
	}
	return a.id
}

// groups asks whether the responder's rule accepts the initiator.
func (t *talk) groups(wanted []string) bool {
	if spd.AdmitsPeer(wanted, t.initiator.membership(t.n.ResponderAuth)) {
		return true
	}
	return t.differ(CodeGroups, t.initiator.Groups, wanted, "%s is in none of the groups that rule %q of %s accepts",
		t.initiator.Name, t.n.ResponderRule, t.responder.Name)
}

// child chooses the offer of the Child SA. Without a key exchange of its own, as in IKE_AUTH, the groups do not matter
// yet: they do when it is rekeyed.
func (t *talk) child(a answering) bool {
	here, there := t.initiator.Set.KeyExchange(), t.responder.Set.KeyExchange()
	offered := proposal.ForRule(t.rule.Action.Offers, t.rule.Action.PFS, t.n.IKE.KeyExchange())
	own := proposal.ForRule(a.offers, a.pfs, t.n.IKE.KeyExchange())
	chosen, ok := proposal.ChooseESP(own, offered, false)
	if !ok {
		return t.differ(CodeESPOffers, texts(offered), texts(own), "%s and %s have no offer for the Child SA in common", t.initiator.Name, t.responder.Name)
	}
	t.n.ESP = chosen
	fresh, agreed := freshly(own, offered, a.pfs, there.Offers)
	_, back := freshly(offered, own, t.rule.Action.PFS, here.Offers)
	if agreed && separate(here, there) {
		t.n.ESP = fresh
	}
	if agreed && back {
		return true
	}
	m := &Mismatch{
		Code: CodePFS, Initiator: texts(offered), Responder: texts(own),
		Sentence: fmt.Sprintf("%s and %s do not want the same key exchange for Child SAs", t.initiator.Name, t.responder.Name),
	}
	if !agreed && separate(here, there) {
		t.n.Mismatch = m
		return false
	}
	m.Sentence += "; the first one needs none, but it cannot be rekeyed"
	t.n.Later = m
	return true
}

// freshly chooses for a Child SA with a key exchange of its own, as CREATE_CHILD_SA makes it.
func freshly(own, offered []proposal.ESP, pfs bool, ike []proposal.IKE) (proposal.ESP, bool) {
	chosen, ok := proposal.ChooseESP(own, offered, true)
	if !ok && !pfs {
		chosen, ok = proposal.ChooseESP(proposal.WithGroups(own, ike), offered, true)
	}
	return chosen, ok
}

// separate reports whether the first Child SA has an exchange of its own (RFC 6023).
func separate(initiator, responder spd.KeyExchange) bool {
	return initiator.Childless == spd.ChildlessPrefer && responder.Childless != spd.ChildlessNever
}

// mode compares what the responder took with what the initiator wants.
func (t *talk) mode(a answering) bool {
	if a.narrowed.Transport != t.n.Tunnel {
		return true
	}
	modes := map[bool]string{true: "tunnel", false: "transport"}
	return t.differ(CodeMode, []string{modes[t.n.Tunnel]}, []string{modes[!a.narrowed.Transport]},
		"rule %q of %s is for %s mode, and rule %q of %s for %s mode",
		t.rule.ID, t.initiator.Name, modes[t.n.Tunnel], t.n.ResponderRule, t.responder.Name, modes[!a.narrowed.Transport])
}

// holds reports whether the machine can authenticate by an entry.
func (e *End) holds(a spd.Auth) bool {
	if a.WantsPPK() && slices.Contains(e.Missing, a.PPK) {
		return false
	}
	if a.Method == spd.AuthPSK {
		return !slices.Contains(e.Missing, a.Secret)
	}
	return !e.NoCertificate
}

// claims is the identity that the machine claims under an entry.
func (p party) claims(a spd.Auth) string {
	switch {
	case a.LocalID != "":
		return a.LocalID
	case p.Identity != "":
		return p.Identity
	}
	return "ip:" + p.address.String()
}

// membership are the groups that the peer believes of the machine: a preshared key says nothing of the directory.
func (e *End) membership(by spd.Auth) []string {
	if by.Method != spd.AuthCertificate {
		return nil
	}
	return e.Groups
}

// usesPPK reports whether the machine has a postquantum preshared key for anybody.
func (e *End) usesPPK() bool {
	has := func(a spd.Auth) bool { return a.PPK != "" && !slices.Contains(e.Missing, a.PPK) }
	p := e.Set.Policy()
	return slices.ContainsFunc(p.Rules, func(r spd.Rule) bool { return slices.ContainsFunc(r.Auth, has) }) ||
		slices.ContainsFunc(p.DefaultResponse.Auth, has)
}

func texts[T fmt.Stringer](list []T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = v.String()
	}
	return out
}

func authTexts(list []spd.Auth) []string {
	var out []string
	for _, a := range list {
		out = append(out, AuthText(a))
	}
	return out
}

// AuthText writes an entry of an authentication list in one line.
func AuthText(a spd.Auth) string {
	text := a.Method.String()
	if a.Secret != "" {
		text += fmt.Sprintf(" secret %q", a.Secret)
	}
	if a.CA != "" {
		text += fmt.Sprintf(" of CA %q", a.CA)
	}
	if a.LocalID != "" {
		text += " as " + a.LocalID
	}
	if a.RemoteID != "" {
		text += " with " + a.RemoteID
	}
	if a.PPK != "" {
		text += fmt.Sprintf(" with postquantum key %q", a.PPK)
		if a.PPKOptional {
			text += " if the peer has it"
		}
	}
	return text
}

func selectorTexts(local, remote []spd.Selector) []string {
	var out []string
	for i := range local {
		out = append(out, fmt.Sprintf("%s to %s", local[i], remote[i]))
	}
	return out
}
