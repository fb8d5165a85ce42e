package agent

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/bailiwick-net/bailiwick/node/datapath"
	"github.com/bailiwick-net/bailiwick/node/ike/engine"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// maxReported bounds the associations, failures and counters of one report: with more the controller would refuse it and
// end the session.
const maxReported = 1000

// reporter remembers what was last reported.
type reporter struct {
	interval time.Duration
	sent     time.Time
	shape    []byte // of the last report, without what changes all the time
}

// sendReport sends the state of the node when it changed or when the interval is over.
func (a *Agent) sendReport(ctx context.Context, now bool) {
	if a.config.Session == nil || a.connected == "" {
		return
	}
	snapshot, err := a.config.Engine.Snapshot(ctx)
	if err != nil {
		return
	}
	report := makeReport(a.config.Now(), a.config.Datapath.Status(), snapshot)
	if leaf := a.config.Identity.Credentials(); len(leaf.Chain) > 0 {
		report.CertificateNotAfter = timestamppb.New(leaf.Leaf().NotAfter)
	}
	report.Notes = append(append(report.Notes, a.problems()...), append(a.keyNotes(), a.localNotes()...)...)
	report.Facts = describeFacts(a.facts)
	shape := reportShape(report)
	if !now && slices.Equal(shape, a.report.shape) && a.config.Now().Sub(a.report.sent) < a.report.interval {
		return
	}
	if a.config.Session.Send(&nodev1.ConnectRequest{Message: &nodev1.ConnectRequest_Report{Report: report}}) {
		a.report.shape, a.report.sent = shape, a.config.Now()
	}
}

// reportShape is a report without times and counters.
func reportShape(r *nodev1.Report) []byte {
	c := proto.CloneOf(r)
	c.Time, c.Counters = nil, nil
	for _, s := range c.GetAssociations() {
		s.InOctets, s.OutOctets = 0, 0
	}
	shape, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	if err != nil {
		return nil
	}
	return shape
}

func makeReport(now time.Time, status datapath.Status, snapshot engine.Snapshot) *nodev1.Report {
	r := &nodev1.Report{Time: timestamppb.New(now), Counters: map[string]uint64{}, Notes: slices.Clone(status.Notes)}
	for name, value := range status.Counters {
		r.Counters[name] = value
	}
	for name, value := range snapshot.Counters {
		r.Counters["ike_"+name] = value
	}
	for _, c := range status.Children {
		r.Associations = append(r.Associations, &nodev1.Association{
			Kind: nodev1.Association_KIND_CHILD, Peer: c.Peer, LocalAddress: c.Local.Addr().String(), RemoteAddress: c.Remote.Addr().String(),
			Rule: c.Rule, DefaultResponse: c.DefaultResponse, Mode: c.Mode.String(), Suite: c.Suite,
			SpiIn: c.In.String(), SpiOut: c.Out.String(), InOctets: c.InOctets, OutOctets: c.OutOctets, Established: timestamppb.New(c.Installed),
		})
	}
	for _, s := range status.Soft {
		r.Associations = append(r.Associations, &nodev1.Association{
			Kind: nodev1.Association_KIND_SOFT, LocalAddress: s.Local.String(), RemoteAddress: s.Remote.String(), Rule: s.Rule,
		})
	}
	if len(r.Associations) > maxReported {
		r.Associations, r.Truncated = r.Associations[:maxReported], true
	}
	for _, f := range snapshot.Failures {
		r.Failures = append(r.Failures, &nodev1.Failure{
			Time: timestamppb.New(f.Time), RemoteAddress: f.Remote.String(), Peer: f.Peer, Rule: f.Rule,
			Reason: string(f.Reason), Fault: f.Fault.String(), Detail: f.Detail, Count: 1,
		})
	}
	if len(r.Failures) > maxReported {
		r.Failures, r.Truncated = r.Failures[len(r.Failures)-maxReported:], true
	}
	if len(r.Counters) > maxReported {
		leaveOut(r.Counters, len(r.Counters)-maxReported)
		r.Truncated = true
	}
	return r
}

// leaveOut deletes some counters, those of single rules first, of which a policy may have thousands.
func leaveOut(counters map[string]uint64, n int) {
	ofRules := func(name string) int {
		if strings.HasPrefix(name, "nft/") {
			return 1
		}
		return 0
	}
	names := slices.SortedFunc(maps.Keys(counters), func(a, b string) int {
		return cmp.Or(cmp.Compare(ofRules(a), ofRules(b)), strings.Compare(a, b))
	})
	for _, name := range names[len(names)-n:] {
		delete(counters, name)
	}
}
