package admin

import (
	"context"

	"google.golang.org/grpc/codes"

	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/plan"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// What a plan lists without details, so that it fits a screen.
const (
	maxPlannedRows  = 8
	maxPlannedNames = 4
)

// test runs the policy tests over the present directory; a failing one refuses the documents. Before the directory was
// read there is no machine that a test could be about.
func (s *Server) test(docs policies.Documents) error {
	view := s.config.Mirror.View()
	if view == nil {
		return nil
	}
	results, err := plan.Test(s.world(docs, view.Snapshot))
	if err != nil {
		return err
	}
	var problems []*adminv1.Problem
	for _, r := range results {
		if r.State == plan.TestFails {
			problems = append(problems, &adminv1.Problem{
				Source: r.At.File, Line: uint32(max(r.At.Line, 0)), Column: uint32(max(r.At.Column, 0)), Document: testName(r.Test), Message: r.String(),
			})
		}
	}
	if len(problems) > 0 {
		return refused(codes.FailedPrecondition, "nothing was changed: policy tests would fail", problems)
	}
	return nil
}

func testName(name string) string {
	return object(policies.PolicyTest{Meta: policies.Meta{Name: name}})
}

// RunTests implements adminv1.PlanServiceServer.
func (s *Server) RunTests(ctx context.Context, r *adminv1.RunTestsRequest) (*adminv1.RunTestsResponse, error) {
	c, view, err := s.present(ctx)
	if err != nil {
		return nil, refuse(err)
	}
	docs := c.with(nil)
	if len(r.GetSources()) > 0 {
		in, err := decodeIntent(r.GetSources(), nil)
		if err != nil {
			return nil, err
		}
		docs = c.with(in.documents())
		if _, err := s.validate(docs, in.documents()); err != nil {
			return nil, err
		}
	}
	results, err := plan.Test(s.world(docs, view.Snapshot))
	if err != nil {
		return nil, refuse(err)
	}
	response := &adminv1.RunTestsResponse{}
	for _, r := range results {
		response.Results = append(response.Results, describeTest(r))
		if r.State == plan.TestFails {
			response.Failed++
		}
	}
	return response, nil
}

func describeTest(r plan.TestResult) *adminv1.TestResult {
	out := &adminv1.TestResult{
		Test: r.Test, Number: uint32(r.Number), Name: r.Assertion.Name, State: r.State.String(), Assertion: r.Assertion.String(),
		Client: r.Client, Server: r.Server, Traffic: r.Traffic, Pairs: uint64(r.Pairs), Because: r.Why,
		Source: r.At.File, Line: uint32(max(r.At.Line, 0)),
	}
	for _, o := range r.Assertion.Is {
		out.Expected = append(out.Expected, o.String())
	}
	if r.Found != 0 {
		out.Found = r.Found.String()
	}
	if r.Offer != (proposal.ESP{}) {
		out.Offer = r.Offer.String()
	}
	return out
}

func describePlan(p plan.Plan, details bool) *adminv1.PlanResponse {
	rows, names := maxPlannedRows, maxPlannedNames
	if details {
		rows, names = len(p.Machines)+len(p.Pairs), p.ChangedMachines()
	}
	out := &adminv1.PlanResponse{
		MachinesChanged: uint32(p.ChangedMachines()), PairsUnjudged: uint64(p.Unjudged), MachinesUnaddressed: uint32(p.Unaddressed),
		TestsRun: uint32(len(p.Tests)), TestsFailed: uint32(len(p.FailedTests())),
	}
	groups := p.Machines
	if !details {
		groups = p.ByPolicy()
	}
	for i, c := range groups {
		if i == rows {
			out.AssignmentsOmitted = uint32(len(groups) - rows)
			break
		}
		row := &adminv1.PlannedAssignments{Before: describeAssignment(c.From), After: describeAssignment(c.To), Count: uint32(len(c.Machines))}
		for _, m := range c.Machines[:min(len(c.Machines), names)] {
			row.Machines = append(row.Machines, m.Name)
		}
		out.Assignments = append(out.Assignments, row)
	}
	for i, c := range p.Pairs {
		out.MachinePairs += uint64(c.Pairs)
		if c.CutOff() {
			out.MachinePairsCutOff += uint64(c.Pairs)
		}
		if i >= rows {
			out.PairsOmitted++
			continue
		}
		row := &adminv1.PlannedPairs{Client: describeSide(c.Client, c.WitnessClient), Server: describeSide(c.Server, c.WitnessServer), Count: uint64(c.Pairs), CutOff: c.CutOff()}
		for _, t := range c.Traffic {
			row.Traffic = append(row.Traffic, &adminv1.PlannedTraffic{Before: t.Before.String(), After: t.After.String(), Traffic: t.Traffic, Because: t.Why})
		}
		out.Pairs = append(out.Pairs, row)
	}
	for _, c := range p.Services {
		out.Services = append(out.Services, &adminv1.PlannedService{
			Service: c.Service, PolicyBefore: c.Bundles.Before, PolicyAfter: c.Bundles.After, Count: uint32(c.Machines), Witness: c.Witness,
			Before: c.Before.String(), After: c.After.String(), Because: c.Why, CutOff: c.CutOff(),
		})
	}
	for _, r := range p.Refused {
		out.Refused = append(out.Refused, &adminv1.PlannedRefusal{Machine: r.Machine.Name, Reason: r.Reason})
	}
	for _, r := range p.Tests {
		if details || r.State != plan.TestHolds {
			out.Tests = append(out.Tests, describeTest(r))
		}
	}
	return out
}

func describeAssignment(a plan.Assignment) *adminv1.PlannedAssignment {
	if !a.Present() {
		return &adminv1.PlannedAssignment{}
	}
	return &adminv1.PlannedAssignment{Policy: a.Policy, Digest: a.Digest.String(), Container: a.Container, Link: a.Link, Because: a.Why}
}

func describeSide(b plan.Bundles, witness string) *adminv1.PlannedSide {
	return &adminv1.PlannedSide{
		Before: b.Before, After: b.After, DigestBefore: b.DigestBefore.String(), DigestAfter: b.DigestAfter.String(), Witness: witness,
	}
}
