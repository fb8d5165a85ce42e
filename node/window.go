package node

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/bailiwick-net/bailiwick/node/datapath/userspace/steering"
	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/localapi"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/node/statistics"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Status answers the local window (localapi.Source).
func (n *Node) Status(ctx context.Context) (localapi.Status, error) {
	known, err := n.agent.Status(ctx)
	if err != nil {
		return localapi.Status{}, err
	}
	negotiated, err := n.driver.Snapshot(ctx)
	if err != nil {
		return localapi.Status{}, err
	}
	moved := n.datapath.Status()
	s := localapi.Status{
		Version: n.version, Identity: known.Identity, NotAfter: known.NotAfter,
		Policy: known.Policy, Container: known.Container, Revision: known.Revision, Digest: known.Digest, Probation: known.Pending,
		Controller: known.Controller, Controllers: known.Controllers, Problem: known.Problem,
		Key:     identity.Where(n.membership.Credentials().Key),
		Backend: moved.Backend, Notes: moved.Notes,
		IKESAs: len(negotiated.SAs), ChildSAs: len(moved.Children), SoftSAs: len(moved.Soft),
		Counters: map[string]uint64{}, Keys: known.Keys,
	}
	if problem := n.membership.keyProblem(); problem != nil {
		s.KeyProblem = problem.Error()
	}
	if own := known.Own; own.Policy != "" {
		s.Local = &localapi.LocalPolicy{Name: own.Policy, File: own.File, Suppressed: own.Suppressed}
	}
	for _, set := range known.Own.Rules {
		s.Rules = append(s.Rules, describeRules(set))
	}
	for _, a := range known.Facts.Addresses {
		s.Addresses = append(s.Addresses, a.String())
	}
	for _, name := range slices.Sorted(maps.Keys(known.Facts.Names)) {
		s.Names = append(s.Names, fmt.Sprintf("%s%s is %s", spd.NamePrefix, name, addressList(known.Facts.Names[name])))
	}
	for _, f := range negotiated.Failures {
		s.Failures = append(s.Failures, localapi.Failure{
			Time: f.Time, Remote: f.Remote.String(), Peer: f.Peer, Rule: f.Rule, Child: f.Child, Reason: string(f.Reason), Fault: f.Fault.String(), Detail: f.Detail,
		})
	}
	for name, value := range moved.Counters {
		s.Counters[name] = value
	}
	for name, value := range negotiated.Counters {
		s.Counters["ike_"+name] = value
	}
	s.Statistics = map[string]uint64{}
	for _, f := range statistics.Figures(statistics.Sources{IKE: negotiated, Datapath: moved, Transport: n.transport()}) {
		s.Statistics[f.Name] = f.Value
	}
	s.KeyLog = n.keyLog
	return s, nil
}

func addressList(addresses []netip.Addr) string {
	out := make([]string, len(addresses))
	for i, a := range addresses {
		out[i] = a.String()
	}
	return strings.Join(out, ", ")
}

// Counters answers the local window (localapi.Source).
func (n *Node) Counters(ctx context.Context) ([]statistics.Figure, error) {
	negotiated, err := n.driver.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	return statistics.Figures(statistics.Sources{IKE: negotiated, Datapath: n.datapath.Status(), Transport: n.transport()}), nil
}

// Associations answers the local window (localapi.Source).
func (n *Node) Associations(ctx context.Context) (localapi.Associations, error) {
	negotiated, err := n.driver.Snapshot(ctx)
	if err != nil {
		return localapi.Associations{}, err
	}
	a := localapi.Associations{IKE: []localapi.IKE{}, Children: []localapi.Child{}, Soft: []localapi.Soft{}}
	for _, s := range negotiated.SAs {
		a.IKE = append(a.IKE, localapi.IKE{
			SPI: fmt.Sprintf("%016x", s.SPI), PeerSPI: fmt.Sprintf("%016x", s.PeerSPI), Initiator: s.Initiator, State: s.State,
			Peer: s.Peer, Auth: s.Auth, Local: s.Local.String(), Remote: s.Remote.String(), Suite: s.Suite.String(), Encap: s.Encap,
			Established: s.Established, Rekey: s.Rekey,
		})
	}
	moved := n.datapath.Status()
	for _, c := range moved.Children {
		a.Children = append(a.Children, localapi.Child{
			In: c.In.String(), Out: c.Out.String(), Current: c.Current, Rule: c.Rule, DefaultResponse: c.DefaultResponse, Peer: c.Peer,
			Mode: c.Mode.String(), Suite: c.Suite, Local: c.Local.String(), Remote: c.Remote.String(),
			LocalTS: selectors(c.LocalTS), RemoteTS: selectors(c.RemoteTS), Installed: c.Installed,
			InPackets: c.InPackets, InOctets: c.InOctets, OutPackets: c.OutPackets, OutOctets: c.OutOctets,
			ReplayDropped: c.ReplayDropped, AuthFailed: c.AuthFailed, PathMTU: c.PathMTU, PathMTUSource: c.PathMTUSource.String(),
		})
	}
	slices.SortFunc(a.Children, func(x, y localapi.Child) int {
		return cmp.Or(cmp.Compare(x.Remote, y.Remote), x.Installed.Compare(y.Installed))
	})
	for _, s := range moved.Soft {
		a.Soft = append(a.Soft, localapi.Soft{Rule: s.Rule, Local: s.Local.String(), Remote: s.Remote.String(), Expires: s.Expires})
	}
	return a, nil
}

func selectors(list []sa.Selector) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = s.String()
	}
	return out
}

// Filters answers the local window (localapi.Source).
func (n *Node) Filters(ctx context.Context) ([]localapi.Filter, error) {
	known, err := n.agent.Status(ctx)
	if err != nil {
		return nil, err
	}
	filters := []localapi.Filter{}
	counters := n.datapath.Status().Counters
	for _, f := range known.Set.Filters() {
		filters = append(filters, localapi.Filter{
			Weight: f.Weight.String(), Direction: f.Direction.String(), Filter: f.String(), Action: f.Action.String(), Rule: f.RuleID, Exempt: f.Exempt,
			Packets: counters["nft/"+steering.Counter(&f)],
		})
	}
	return filters, nil
}

// Rekey carries out a command of the local window (localapi.Source).
func (n *Node) Rekey(ctx context.Context, r localapi.Rekey) error {
	if (r.IKE == "") == (r.Child == "") {
		return fmt.Errorf("rekey names IKE SA %q and ESP SA %q, want exactly one", r.IKE, r.Child)
	}
	negotiated, err := n.driver.Snapshot(ctx)
	if err != nil {
		return err
	}
	text, bits := r.IKE, 64
	if r.Child != "" {
		text, bits = r.Child, 32
	}
	spi, err := strconv.ParseUint(text, 16, bits)
	if err != nil {
		return fmt.Errorf("%q is not an SPI of %d hexadecimal digits", text, bits/4)
	}
	for _, s := range negotiated.SAs {
		if r.IKE != "" && s.SPI == spi {
			return n.driver.Rekey(ctx, ike.IKESPI(spi), 0)
		}
		for _, c := range s.Children {
			if r.Child != "" && uint64(c.In.SPI) == spi {
				return n.driver.Rekey(ctx, ike.IKESPI(s.SPI), c.In.SPI)
			}
		}
	}
	return fmt.Errorf("there is no association with SPI %s", text)
}
