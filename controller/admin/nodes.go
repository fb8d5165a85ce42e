package admin

import (
	"cmp"
	"context"
	"slices"

	"github.com/bailiwick-net/bailiwick/controller/distribute"
	"github.com/bailiwick-net/bailiwick/directory"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// sortedNodes lists the nodes by name.
func (f fleet) sortedNodes() []distribute.Node {
	var nodes []distribute.Node
	for _, n := range f.nodes {
		nodes = append(nodes, n)
	}
	slices.SortFunc(nodes, func(a, b distribute.Node) int {
		return cmp.Or(cmp.Compare(f.name(a), f.name(b)), slices.Compare(a.Record.Machine[:], b.Record.Machine[:]))
	})
	return nodes
}

// name is what the directory calls the machine of a node or, when it does not know it any more, what the node was
// called.
func (f fleet) name(n distribute.Node) string {
	if m, _, ok := f.table.View().Machine(n.Record.Machine); ok {
		return m.Name
	}
	return n.Record.Name
}

// ListNodes implements adminv1.FleetServiceServer.
func (s *Server) ListNodes(context.Context, *adminv1.ListNodesRequest) (*adminv1.ListNodesResponse, error) {
	f, err := s.fleet()
	if err != nil {
		return nil, err
	}
	response := &adminv1.ListNodesResponse{}
	for _, n := range f.sortedNodes() {
		a := f.table.Assignment(n.Record.Machine)
		out := &adminv1.Node{
			Name: f.name(n), Uuid: n.Record.Machine.String(), State: f.state(a), Version: n.Record.Version,
			ConnectedSince: stamp(n.Since), LastSeen: stamp(n.Record.LastSeen), Revision: n.Record.Revision, Digest: n.Record.Digest,
			AssignedRevision: a.Revision, Policy: n.Record.Policy, Error: n.Record.Error,
			Acknowledged: stamp(n.Record.Acknowledged), Reported: stamp(n.Reported),
		}
		if n.Connected {
			out.Address = n.Address
		}
		if a.Revision != 0 {
			out.AssignedDigest = a.Digest.String()
		}
		if r := n.Report; r != nil {
			out.CertificateNotAfter = r.GetCertificateNotAfter()
			out.Associations, out.Failures = uint32(len(r.GetAssociations())), uint32(len(r.GetFailures()))
			out.Counters, out.Notes = r.GetCounters(), r.GetNotes()
		}
		response.Nodes = append(response.Nodes, out)
	}
	return response, nil
}

// ListAssociations implements adminv1.FleetServiceServer.
func (s *Server) ListAssociations(_ context.Context, r *adminv1.ListAssociationsRequest) (*adminv1.ListAssociationsResponse, error) {
	f, err := s.fleet()
	if err != nil {
		return nil, err
	}
	var only directory.UUID
	if r.GetMachine() != "" {
		m, err := find(f.table.View(), r.GetMachine())
		if err != nil {
			return nil, err
		}
		only = m.UUID
	}
	response := &adminv1.ListAssociationsResponse{}
	for _, n := range f.sortedNodes() {
		if n.Report == nil || !only.IsZero() && n.Record.Machine != only {
			continue
		}
		name := f.name(n)
		for _, a := range n.Report.GetAssociations() {
			out := describeAssociation(a)
			out.Machine, out.Reported = name, stamp(n.Reported)
			response.Associations = append(response.Associations, out)
		}
		for _, x := range n.Report.GetFailures() {
			response.Failures = append(response.Failures, &adminv1.Failure{
				Machine: name, Time: x.GetTime(), RemoteAddress: x.GetRemoteAddress(), Peer: x.GetPeer(), Rule: x.GetRule(),
				Reason: x.GetReason(), Fault: x.GetFault(), Detail: x.GetDetail(), Count: x.GetCount(),
			})
		}
	}
	return response, nil
}

func describeAssociation(a *nodev1.Association) *adminv1.Association {
	kind := "esp"
	if a.GetKind() == nodev1.Association_KIND_SOFT {
		kind = "soft"
	}
	return &adminv1.Association{
		Kind: kind, Peer: a.GetPeer(), LocalAddress: a.GetLocalAddress(), RemoteAddress: a.GetRemoteAddress(), Rule: a.GetRule(),
		DefaultResponse: a.GetDefaultResponse(), Mode: a.GetMode(), Suite: a.GetSuite(), SpiIn: a.GetSpiIn(), SpiOut: a.GetSpiOut(),
		InOctets: a.GetInOctets(), OutOctets: a.GetOutOctets(), Established: a.GetEstablished(),
	}
}
