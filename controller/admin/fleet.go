package admin

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/controller/distribute"
	"github.com/bailiwick-net/bailiwick/controller/mirror"
	"github.com/bailiwick-net/bailiwick/controller/resolver"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies/resolve"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// fleet is everything that describing machines takes, read once per request.
type fleet struct {
	table *resolver.Table
	nodes map[directory.UUID]distribute.Node
}

func (s *Server) fleet() (fleet, error) {
	table, err := s.table()
	if err != nil {
		return fleet{}, err
	}
	f := fleet{table: table, nodes: map[directory.UUID]distribute.Node{}}
	for _, n := range s.config.Sessions.Nodes() {
		f.nodes[n.Record.Machine] = n
	}
	return f, nil
}

func (f fleet) state(a resolver.Assignment) adminv1.NodeState {
	n, ok := f.nodes[a.Machine]
	switch {
	case !ok:
		return adminv1.NodeState_NODE_STATE_NEVER
	case !n.Connected:
		return adminv1.NodeState_NODE_STATE_OFFLINE
	case n.Record.Error != "":
		return adminv1.NodeState_NODE_STATE_FAILED
	case n.Record.Digest != a.Digest.String() || n.Record.Revision != a.Revision:
		return adminv1.NodeState_NODE_STATE_PENDING
	}
	return adminv1.NodeState_NODE_STATE_CURRENT
}

func (f fleet) machine(m directory.Machine) *adminv1.Machine {
	a := f.table.Assignment(m.UUID)
	out := &adminv1.Machine{
		Name: m.Name, Dn: m.DN.String(), Uuid: m.UUID.String(), DnsName: m.DNSName, Disabled: m.Disabled,
		Policy: a.Policy, Container: a.Container, Revision: a.Revision, Error: a.Problem, Node: f.state(a),
	}
	if a.Revision != 0 {
		out.Digest = a.Digest.String()
	}
	return out
}

func (f fleet) vanished(v mirror.Vanished) *adminv1.Machine {
	out := f.machine(v.Machine)
	out.Vanished = stamp(v.Since)
	return out
}

// GetTree implements adminv1.FleetServiceServer.
func (s *Server) GetTree(context.Context, *adminv1.GetTreeRequest) (*adminv1.GetTreeResponse, error) {
	f, err := s.fleet()
	if err != nil {
		return nil, err
	}
	docs, snapshot := f.table.Documents(), f.table.View().Snapshot
	links := slices.Clone(docs.Links)
	slices.SortFunc(links, compareLinks)
	byContainer := map[string][]*adminv1.PolicyLink{}
	for _, l := range links {
		byContainer[l.Container.Key()] = append(byContainer[l.Container.Key()], describeLink(l))
	}
	blocks := map[string]bool{}
	for _, c := range docs.Containers {
		blocks[c.DN.Key()] = c.BlockInheritance
	}
	response := &adminv1.GetTreeResponse{ReadAt: stamp(f.table.View().Accepted)}
	for c := range snapshot.Containers() {
		if c.DN.IsZero() {
			continue // what joins several directories has no name to show: they stand beside each other
		}
		out := &adminv1.Container{
			Dn: c.DN.String(), Uuid: c.UUID.String(), Name: c.Name(), Kind: c.Kind.String(),
			BlocksInheritance: blocks[c.DN.Key()], Links: byContainer[c.DN.Key()],
		}
		if !c.DN.Equal(snapshot.Base()) {
			if parent, ok := snapshot.ContainerByDN(c.DN.Parent()); ok {
				out.Parent = parent.DN.String()
			}
		}
		for m := range snapshot.ChildMachines(c.DN) {
			out.Machines = append(out.Machines, f.machine(m))
		}
		response.Containers = append(response.Containers, out)
	}
	return response, nil
}

// ListMachines implements adminv1.FleetServiceServer.
func (s *Server) ListMachines(_ context.Context, r *adminv1.ListMachinesRequest) (*adminv1.ListMachinesResponse, error) {
	f, err := s.fleet()
	if err != nil {
		return nil, err
	}
	var within directory.DN
	if r.GetContainer() != "" {
		if within, err = s.parseContainer(r.GetContainer()); err != nil {
			return nil, err
		}
	}
	response := &adminv1.ListMachinesResponse{}
	add := func(m *adminv1.Machine, dn directory.DN) {
		if r.GetPolicy() != "" && m.GetPolicy() != r.GetPolicy() || !within.IsZero() && !dn.IsDescendantOf(within) {
			return
		}
		response.Machines = append(response.Machines, m)
	}
	for m := range f.table.View().Snapshot.Machines() {
		add(f.machine(m), m.DN)
	}
	for _, v := range sortedVanished(f.table.View()) {
		add(f.vanished(v), v.Machine.DN)
	}
	return response, nil
}

func sortedVanished(view *mirror.View) []mirror.Vanished {
	var all []mirror.Vanished
	for _, v := range view.Vanished {
		all = append(all, v)
	}
	slices.SortFunc(all, func(a, b mirror.Vanished) int {
		return cmp.Or(cmp.Compare(a.Machine.Name, b.Machine.Name), a.Machine.DN.Compare(b.Machine.DN))
	})
	return all
}

// find looks a machine up by short name, DNS name, DN or UUID.
func find(view *mirror.View, text string) (directory.Machine, error) {
	if view == nil {
		return directory.Machine{}, refuse(resolver.ErrNotReady)
	}
	if text == "" {
		return directory.Machine{}, status.Error(codes.InvalidArgument, "which machine? name it by its short name, DNS name, DN or UUID")
	}
	if m, ok := view.Snapshot.MachineByName(text); ok {
		return m, nil
	}
	if u, err := directory.ParseUUID(text); err == nil {
		if m, _, ok := view.Machine(u); ok {
			return m, nil
		}
	}
	if strings.Contains(text, "=") {
		dn, err := directory.ParseDN(text)
		if err != nil {
			return directory.Machine{}, status.Error(codes.InvalidArgument, err.Error())
		}
		if m, ok := view.Snapshot.MachineByDN(dn); ok {
			return m, nil
		}
		if _, ok := view.Snapshot.ObjectByDN(dn); ok {
			return directory.Machine{}, status.Errorf(codes.InvalidArgument, "%q is in the directory, but is no machine", text)
		}
	}
	for _, v := range sortedVanished(view) {
		if strings.EqualFold(v.Machine.Name, text) || strings.EqualFold(v.Machine.DNSName, text) {
			return v.Machine, nil
		}
	}
	return directory.Machine{}, status.Errorf(codes.NotFound, "there is no machine %q in the directory; look at: bailiwick get machines", text)
}

// ExplainMachine implements adminv1.FleetServiceServer.
func (s *Server) ExplainMachine(_ context.Context, r *adminv1.ExplainMachineRequest) (*adminv1.ExplainMachineResponse, error) {
	f, err := s.fleet()
	if err != nil {
		return nil, err
	}
	view := f.table.View()
	m, err := find(view, r.GetMachine())
	if err != nil {
		return nil, err
	}
	if gone, vanished := view.Vanished[m.UUID]; vanished {
		return &adminv1.ExplainMachineResponse{Machine: f.vanished(gone)}, nil
	}
	outcome, err := f.table.Explain(m.UUID)
	if err != nil {
		return nil, refuse(err)
	}
	site := f.table.Siting(m)
	response := &adminv1.ExplainMachineResponse{Machine: f.machine(m), Site: site.Site, SiteReason: site.Sentence}
	for _, e := range outcome.Entries {
		response.Candidates = append(response.Candidates, &adminv1.Candidate{
			Link: describeLink(e.Link), Winner: e.Reason == resolve.Won, Reason: e.Reason.String(), Explanation: e.Sentence, Precedence: uint32(max(e.Precedence, 0)),
			SomOrder: uint32(max(e.SOMOrder, 0)), AppliedOrder: uint32(max(e.AppliedOrder, 0)),
		})
	}
	for _, g := range view.Snapshot.MemberOf(m.DN) {
		response.Groups = append(response.Groups, g.DN.String())
	}
	for _, c := range view.Snapshot.Path(m.DN) {
		response.Path = append(response.Path, c.DN.String())
	}
	return response, nil
}
