package admin

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/controller/distribute"
	"github.com/bailiwick-net/bailiwick/controller/mirror"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/analyze"
	"github.com/bailiwick-net/bailiwick/policies/preshared"
	"github.com/bailiwick-net/bailiwick/policies/resolve"
	"github.com/bailiwick-net/bailiwick/policies/spd"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// survey is what an analysis takes: documents, those that are not applied yet among them, and the fleet.
type survey struct {
	docs        policies.Documents
	view        *mirror.View
	nodes       map[directory.UUID]distribute.Node
	plan        *resolve.Plan
	effective   map[string]*spd.Policy
	authorities []string
}

// survey reads the stored documents, with those of sources in their place.
func (s *Server) survey(ctx context.Context, sources []*adminv1.Source) (*survey, error) {
	c, view, err := s.present(ctx)
	if err != nil {
		return nil, refuse(err)
	}
	docs := c.with(nil)
	if len(sources) > 0 {
		in, err := decodeIntent(sources, nil)
		if err != nil {
			return nil, err
		}
		docs = c.with(in.documents())
	}
	v := &survey{docs: docs, view: view, nodes: map[directory.UUID]distribute.Node{}, effective: map[string]*spd.Policy{}}
	v.plan = resolve.Prepare(docs).At(s.config.Resolver.Locations())
	for _, n := range s.config.Sessions.Nodes() {
		v.nodes[n.Record.Machine] = n
	}
	for _, a := range s.authorities() {
		v.authorities = append(v.authorities, a.Subject)
	}
	return v, nil
}

// authorities are the CAs that machines believe.
func (s *Server) authorities() []analyze.Authority {
	var out []analyze.Authority
	bundle := s.config.Trust()
	for _, cert := range slices.Concat(bundle.Roots(), bundle.Intermediates()) {
		out = append(out, analyze.Authority{Subject: cert.Subject.String(), NotAfter: cert.NotAfter})
	}
	return out
}

// policy is the effective policy of a name, expanded once.
func (v *survey) policy(name string) (*spd.Policy, error) {
	if p, ok := v.effective[name]; ok {
		return p, nil
	}
	p := &spd.Policy{Name: policies.NoneName}
	if name != policies.NoneName {
		effective, err := v.docs.Effective(name)
		if err != nil {
			return nil, err
		}
		p = &effective
	}
	v.effective[name] = p
	return p, nil
}

// machine is what is known of one machine, and where its addresses are from.
func (v *survey) machine(m directory.Machine) (out analyze.Machine, source string, err error) {
	outcome, err := v.plan.Machine(v.view.Snapshot, m.UUID)
	if err != nil {
		return out, "", err
	}
	if outcome.Err != nil {
		return out, "", outcome.Err
	}
	out = analyze.Machine{Name: m.Name, Policy: outcome.Policy, End: analyze.End{Name: m.Name, Node: true, Authorities: v.authorities}}
	if m.DNSName != "" {
		out.End.Identity = "fqdn:" + strings.ToLower(m.DNSName)
	}
	if out.Rules, err = v.policy(outcome.Policy); err != nil {
		return out, "", err
	}
	out.Facts, source = v.facts(m)
	return out, source, nil
}

// admit adds the groups of which a machine is a member, of those that policies name.
func (v *survey) admit(m directory.Machine, e *analyze.End, named ...*spd.Policy) {
	for _, p := range named {
		for _, r := range p.Rules {
			for _, name := range r.PeerGroups {
				dn, err := directory.ParseDN(name)
				if err == nil && !slices.Contains(e.Groups, name) && v.view.Snapshot.IsMember(m.DN, dn) {
					e.Groups = append(e.Groups, name)
				}
			}
		}
	}
	slices.Sort(e.Groups)
}

// facts are those that the node reported or, without a report, what the directory and the node's connection tell.
func (v *survey) facts(m directory.Machine) (spd.Facts, string) {
	n, ok := v.nodes[m.UUID]
	if f := factsOf(n.Report.GetFacts()); ok && len(f.Addresses) > 0 {
		return f, "reported"
	}
	var f spd.Facts
	for _, a := range m.Addresses {
		if a = a.Unmap(); a.IsGlobalUnicast() || a.IsLinkLocalUnicast() {
			f.Addresses = append(f.Addresses, a)
		}
	}
	if len(f.Addresses) > 0 {
		return f, "directory"
	}
	if a, err := netip.ParseAddrPort(n.Address); ok && err == nil && !a.Addr().Unmap().IsLoopback() {
		f.Addresses = []netip.Addr{a.Addr().Unmap()}
		return f, "connection"
	}
	return f, ""
}

// factsOf reads a report. What cannot be read is left out: a node is not believed to be of this version.
func factsOf(r *nodev1.Facts) spd.Facts {
	list := func(texts []string) (out []netip.Addr) {
		for _, t := range texts {
			if a, err := netip.ParseAddr(t); err == nil {
				out = append(out, a)
			}
		}
		return out
	}
	f := spd.Facts{
		Addresses: list(r.GetAddresses()), DNSServers: list(r.GetDnsServers()), DHCPServers: list(r.GetDhcpServers()),
		DefaultGateways: list(r.GetDefaultGateways()), Broadcasts: list(r.GetBroadcasts()),
		RemoteAddresses: list(r.GetRemoteAddresses()),
	}
	f.RemoteAddresses = slices.DeleteFunc(f.RemoteAddresses, func(a netip.Addr) bool { return !slices.Contains(f.Addresses, a) })
	for _, t := range r.GetControllers() {
		if a, err := netip.ParseAddrPort(t); err == nil {
			f.Controllers = append(f.Controllers, a)
		}
	}
	for _, n := range r.GetNames() {
		if f.Names == nil {
			f.Names = map[string][]netip.Addr{}
		}
		f.Names[n.GetName()] = list(n.GetAddresses())
	}
	return f
}

// ListPairs implements adminv1.AnalysisServiceServer.
func (s *Server) ListPairs(ctx context.Context, r *adminv1.ListPairsRequest) (*adminv1.ListPairsResponse, error) {
	v, err := s.survey(ctx, r.GetSources())
	if err != nil {
		return nil, err
	}
	response := &adminv1.ListPairsResponse{}
	var machines []analyze.Machine
	var entries []directory.Machine
	for m := range v.view.Snapshot.Machines() {
		known, _, err := v.machine(m)
		if err != nil {
			response.LeftOut = append(response.LeftOut, fmt.Sprintf("%s: %v", m.Name, err))
			continue
		}
		machines, entries = append(machines, known), append(entries, m)
	}
	var all []*spd.Policy
	for _, p := range v.effective {
		if slices.ContainsFunc(p.Rules, func(r spd.Rule) bool { return len(r.PeerGroups) > 0 }) {
			all = append(all, p)
		}
	}
	for i := range machines {
		v.admit(entries[i], &machines[i].End, all...)
	}
	fleet, err := analyze.Pairs(machines)
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	response.Bundles, response.Kinds, response.Examined = uint32(fleet.Bundles), uint32(fleet.Classes), uint32(fleet.Examined)
	response.Incomplete = fleet.Incomplete
	for _, p := range fleet.Pairs {
		response.Pairs = append(response.Pairs, &adminv1.PairTrouble{
			InitiatorPolicy: p.Policies[0], ResponderPolicy: p.Policies[1], Initiator: p.Machines[0], Responder: p.Machines[1],
			InitiatorRule: p.Rules[0], ResponderRule: p.Rules[1], MachinePairs: uint64(p.Pairs), Packet: describePacket(p.Packet),
			Mismatch: describeMismatch(p.Mismatch), Later: p.Later, Result: p.Outcome.Result.String(), Assumed: p.Assumed,
		})
	}
	return response, nil
}

// Verify implements adminv1.AnalysisServiceServer.
func (s *Server) Verify(ctx context.Context, r *adminv1.VerifyRequest) (*adminv1.VerifyResponse, error) {
	v, err := s.survey(ctx, r.GetSources())
	if err != nil {
		return nil, err
	}
	situation := s.situation(v.docs)
	if situation.Certificates, err = s.latest(ctx); err != nil {
		return nil, err
	}
	situation.RootLists = s.rootLists()
	response := &adminv1.VerifyResponse{}
	for _, f := range analyze.Verify(situation) {
		response.Findings = append(response.Findings, &adminv1.Finding{
			Severity: f.Severity.String(), Code: string(f.Code), Document: f.Object, Source: f.At.File,
			Line: uint32(max(f.At.Line, 0)), Column: uint32(max(f.At.Column, 0)), Sentence: f.Message, Hint: f.Hint,
		})
		switch f.Severity {
		case policies.Error:
			response.Errors++
		case policies.Warning:
			response.Warnings++
		case policies.Info:
			response.Infos++
		}
	}
	return response, nil
}

// situation is everything that documents are verified against.
func (s *Server) situation(docs policies.Documents) analyze.Situation {
	out := analyze.Situation{Documents: docs, Authorities: s.authorities(), Now: s.config.Now(), Locations: s.config.Resolver.Locations()}
	if view := s.config.Mirror.View(); view != nil {
		out.Directory = view.Snapshot
	}
	for _, service := range s.config.Services {
		if service.Traffic.Ports.Any() {
			continue
		}
		out.Services = append(out.Services, analyze.Service{
			Name: service.Name, Protocol: service.Traffic.Protocol, Port: service.Traffic.Ports.From, Host: service.Host, Address: service.Address, Exempt: service.Exempt,
		})
	}
	return out
}

// blocked refuses documents that bring a finding as grave as their settings do not allow. What was there before is no
// reason: it could not be put right one document after the other.
func (s *Server) blocked(before, after policies.Documents) error {
	problems := s.blocking(before, after)
	if len(problems) == 0 {
		return nil
	}
	return refused(codes.FailedPrecondition,
		fmt.Sprintf("nothing was changed: the settings of the fleet block changes that bring a finding of severity %s (blockApply)", after.BlockApply()), problems)
}

// blocking lists the findings for which documents would be refused.
func (s *Server) blocking(before, after policies.Documents) []*adminv1.Problem {
	setting := after.BlockApply()
	if setting == policies.BlockNever {
		return nil
	}
	type key struct{ code, object, message string }
	old := map[key]bool{}
	for _, f := range analyze.Verify(s.situation(before)) {
		old[key{string(f.Code), f.Object, f.Message}] = true
	}
	var problems []*adminv1.Problem
	for _, f := range analyze.Verify(s.situation(after)) {
		if setting.Blocks(f.Severity) && !old[key{string(f.Code), f.Object, f.Message}] {
			problems = append(problems, &adminv1.Problem{
				Source: f.At.File, Line: uint32(max(f.At.Line, 0)), Column: uint32(max(f.At.Column, 0)), Document: f.Object, Message: f.Message, Hint: f.Hint,
			})
		}
	}
	return problems
}

// lacking names the secrets that a policy uses and the controller does not have.
func (s *Server) lacking(p *spd.Policy) []string {
	var out []string
	for _, u := range preshared.Uses(*p) {
		if _, ok := s.config.Secrets.Get(u.Name); !ok {
			out = append(out, u.Name)
		}
	}
	return out
}
