package controllertest

import (
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// A flow is explained between the addresses that nodes report, and a report with too many of them ends the session.
func TestFlowsBetweenReportedAddresses(t *testing.T) {
	f := Start(t, Bank)
	f.Apply(BankLinks)
	analysis := adminv1.NewAnalysisServiceClient(f.Conn())
	ask := &adminv1.ExplainFlowRequest{From: "ws1", To: "sql1", Protocol: 6, DestinationPort: 1433}
	if _, err := analysis.ExplainFlow(f.Context(), ask); status.Code(err) != codes.FailedPrecondition {
		t.Fatalf("without any address: %v", err)
	}
	var sessions []*Session
	for machine, address := range map[string]string{"ws1": "10.1.0.1", "sql1": "10.2.0.1"} {
		s := f.Node(machine).Connect(&nodev1.Hello{Version: "scripted"})
		s.AcceptAssignment()
		s.Send(&nodev1.ConnectRequest{Message: &nodev1.ConnectRequest_Report{Report: &nodev1.Report{
			Facts: &nodev1.Facts{Addresses: []string{"2001:db8::1", address, "nonsense"}, DnsServers: []string{"10.0.0.53"}},
		}}})
		sessions = append(sessions, s)
	}
	var r *adminv1.ExplainFlowResponse
	f.Eventually("both ends are known by what their nodes report", func() bool {
		var err error
		r, err = analysis.ExplainFlow(f.Context(), ask)
		return err == nil && r.GetFrom().GetAddressSource() == "reported" && r.GetTo().GetAddressSource() == "reported"
	})
	if r.GetFrom().GetAddress() != "10.1.0.1" || r.GetTo().GetAddress() != "10.2.0.1" || len(r.GetFrom().GetAssumed()) > 0 || r.GetResult() != "ipsec" {
		t.Errorf("got %v", r)
	}
	// By its address a host is the machine that has reported it.
	if r, err := analysis.ExplainFlow(f.Context(), &adminv1.ExplainFlowRequest{From: "10.1.0.1", To: "10.2.0.1", Protocol: 1, IcmpType: 8}); err != nil ||
		r.GetFrom().GetName() != "ws1" || r.GetTo().GetName() != "sql1" || r.GetResult() != "clear" {
		t.Errorf("got %v, %v", r, err)
	}
	sessions[0].Send(&nodev1.ConnectRequest{Message: &nodev1.ConnectRequest_Report{Report: &nodev1.Report{
		Facts: &nodev1.Facts{Addresses: slices.Repeat([]string{"10.1.0.1"}, 1000)},
	}}})
	if err := sessions[0].WantEnd(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a report with a thousand addresses: %v", err)
	}
}
