package controllertest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

func (f *Fleet) plans() adminv1.PlanServiceClient {
	f.t.Helper()
	return adminv1.NewPlanServiceClient(f.Conn())
}

func (f *Fleet) plan(r *adminv1.PlanRequest) *adminv1.PlanResponse {
	f.t.Helper()
	response, err := f.plans().Plan(f.Context(), r)
	if err != nil {
		f.t.Fatal(err)
	}
	return response
}

func (f *Fleet) applyPlan(id string) (*adminv1.ApplyResponse, error) {
	f.t.Helper()
	r, err := f.plans().ApplyPlan(f.Context(), &adminv1.ApplyPlanRequest{Id: id})
	return r.GetApplied(), err
}

func documentsOf(yaml string, without ...string) *adminv1.PlanRequest {
	change := &adminv1.DocumentsChange{}
	if yaml != "" {
		change.Sources = []*adminv1.Source{source("plan.yaml", yaml)}
	}
	for _, w := range without {
		kind, name, _ := strings.Cut(w, "/")
		change.Delete = append(change.Delete, &adminv1.DocumentName{Kind: kind, Name: name})
	}
	return &adminv1.PlanRequest{Change: &adminv1.PlanRequest_Documents{Documents: change}, Details: true}
}

const secureWorkstations = `apiVersion: bailiwick.net/v1alpha1
kind: Link
name: secured
policy: Secure Server (Require Security)
container: ou=Workstations,dc=bank,dc=example
order: 1
`

// policies is what each machine has.
func (f *Fleet) policies() map[string]string {
	f.t.Helper()
	r, err := f.Machines().ListMachines(f.Context(), &adminv1.ListMachinesRequest{})
	if err != nil {
		f.t.Fatal(err)
	}
	out := map[string]string{}
	for _, m := range r.GetMachines() {
		out[m.GetName()] = m.GetPolicy() + " " + m.GetDigest()
	}
	return out
}

func TestPlanRefusesWhenADocumentMoved(t *testing.T) {
	f := Start(t, Bank)
	f.Apply(BankLinks)
	p := f.plan(documentsOf(secureWorkstations))
	f.Apply(goodAction)
	before := f.policies()
	_, err := f.applyPlan(p.GetId())
	wantRefusal(t, err, codes.FailedPrecondition, `documents were changed: FilterAction "Drop" is new (by `)
	if got := f.policies(); !maps.Equal(got, before) {
		t.Errorf("a plan that was refused changed policies from %v to %v", before, got)
	}
	again := f.plan(documentsOf(secureWorkstations))
	if again.GetId() == p.GetId() {
		t.Error("the plan over other documents has the same ID")
	}
	if _, err := f.applyPlan(again.GetId()); err != nil {
		t.Errorf("planned anew, the change is refused: %v", err)
	}
}

func TestPlanRefusesWhenTheDirectoryMoved(t *testing.T) {
	f := Start(t, Bank)
	f.Apply(BankLinks)
	p := f.plan(documentsOf(secureWorkstations))
	digest := f.directoryDigest()
	f.WriteDirectory(Bank + "\ndn: cn=ws3,ou=Workstations,dc=bank,dc=example\nobjectClass: device\ncn: ws3\n")
	f.Eventually("the directory is read again", func() bool { return f.directoryDigest() != digest })
	revision := f.documents().GetRevision()
	_, err := f.applyPlan(p.GetId())
	wantRefusal(t, err, codes.FailedPrecondition, "ws3: added; it would do something else now: the policies of 3 machines would change instead of 2; plan again")
	if got := f.documents().GetRevision(); got != revision {
		t.Errorf("a plan that was refused wrote documents: revision %d after %d", got, revision)
	}
}

// A directory that moved without a difference for the plan is no reason to refuse it: it does what it says.
func TestPlanOutlivesAnIdleMoveOfTheDirectory(t *testing.T) {
	f := Start(t, Bank)
	f.Apply(BankLinks)
	p := f.plan(documentsOf(secureWorkstations))
	digest := f.directoryDigest()
	f.WriteDirectory(Bank + "\ndn: ou=Empty,dc=bank,dc=example\nobjectClass: organizationalUnit\nou: Empty\n")
	f.Eventually("the directory is read again", func() bool { return f.directoryDigest() != digest })
	r, err := f.applyPlan(p.GetId())
	if err != nil || r.GetMachinesChanged() != 2 {
		t.Errorf("got %v, error %v", r, err)
	}
}

func TestOfTwoPlansAtOnceOneIsApplied(t *testing.T) {
	f := Start(t, Bank)
	f.Apply(BankLinks)
	ids := []string{
		f.plan(documentsOf(secureWorkstations)).GetId(),
		f.plan(documentsOf(strings.Replace(secureWorkstations, "name: secured", "name: also", 1))).GetId(),
	}
	if ids[0] == ids[1] || ids[0] == "" {
		t.Fatalf("plans of different changes have the IDs %q", ids)
	}
	var wait sync.WaitGroup
	errs := make([]error, len(ids))
	client, ctx := f.plans(), f.Context()
	for i, id := range ids {
		wait.Go(func() { _, errs[i] = client.ApplyPlan(ctx, &adminv1.ApplyPlanRequest{Id: id}) })
	}
	wait.Wait()
	lost := slices.IndexFunc(errs, func(err error) bool { return err != nil })
	if lost < 0 || errs[1-lost] != nil {
		t.Fatalf("wanted one plan applied and one refused, got %v", errs)
	}
	if message := status.Convert(errs[lost]).Message(); !strings.Contains(message, "documents were changed: Link ") {
		t.Errorf("the one that lost was told %q", message)
	}
	if _, err := f.applyPlan(ids[1-lost]); status.Code(err) != codes.NotFound {
		t.Errorf("a plan was applied twice: %v", err)
	}
}

func TestPlansDoNotOutliveTheController(t *testing.T) {
	f := Start(t, Bank)
	f.Apply(BankLinks)
	p := f.plan(documentsOf(secureWorkstations))
	f.Restart()
	_, err := f.applyPlan(p.GetId())
	wantRefusal(t, err, codes.NotFound, "the controller was started since; plan again")
	if again := f.plan(documentsOf(secureWorkstations)); again.GetId() != p.GetId() {
		t.Errorf("the same plan over the same world has the ID %s, and had %s", again.GetId(), p.GetId())
	}
}

// What a plan of a move says is what comes to be when somebody makes the move.
func TestMoveDoesWhatWasPlanned(t *testing.T) {
	f := Start(t, large(20))
	f.Apply(BankLinks)
	before := f.policies()
	p := f.plan(&adminv1.PlanRequest{Details: true, Change: &adminv1.PlanRequest_Move{
		Move: &adminv1.DirectoryMove{Dn: "ws1", To: "ou=SecureServers,dc=bank,dc=example"}}})
	if p.GetId() != "" || p.GetHeld() != "" || p.GetMachinesChanged() != 1 {
		t.Errorf("got %v", p)
	}
	f.WriteDirectory(strings.Replace(large(20), "cn=ws1,ou=Workstations", "cn=ws1,ou=SecureServers", 1))
	f.Eventually("ws1 has another policy", func() bool { return f.policies()["ws1"] != before["ws1"] })
	wantPlanned(t, p, before, f.policies())
	held := f.plan(&adminv1.PlanRequest{Change: &adminv1.PlanRequest_Move{
		Move: &adminv1.DirectoryMove{Dn: "ou=Workstations,dc=bank,dc=example", To: "ou=SecureServers,dc=bank,dc=example"}}})
	if !strings.Contains(held.GetHeld(), "21 of 24 machines are affected") {
		t.Errorf("the guard would hold it for %q", held.GetHeld())
	}
}

func TestPlanOfAHeldChange(t *testing.T) {
	f := Start(t, large(20))
	f.Apply(BankLinks)
	f.WriteDirectory(strings.ReplaceAll(large(20), ",ou=Workstations,", ",ou=SecureServers,"))
	f.Eventually("the change is held", func() bool { return f.directoryStatus().GetHeld() != nil })
	p := f.plan(&adminv1.PlanRequest{Details: true, Change: &adminv1.PlanRequest_Held{Held: &adminv1.HeldDirectoryChange{}}})
	if p.GetMachinesChanged() != 22 || p.GetHeld() == "" {
		t.Errorf("%d machines would change, held for %q", p.GetMachinesChanged(), p.GetHeld())
	}
	before := f.policies()
	if _, err := f.Machines().ReleaseChange(f.Context(), &adminv1.ReleaseChangeRequest{Id: f.directoryStatus().GetHeld().GetId()}); err != nil {
		t.Fatal(err)
	}
	f.Eventually("the change is in force", func() bool { return f.policies()["ws1"] != before["ws1"] })
	wantPlanned(t, p, before, f.policies())
}

// wantPlanned compares what machines have with what they had and a plan of the change.
func wantPlanned(t *testing.T, p *adminv1.PlanResponse, before, after map[string]string) {
	t.Helper()
	want := maps.Clone(before)
	for _, a := range p.GetAssignments() {
		for _, name := range a.GetMachines() {
			if got := a.GetBefore().GetPolicy() + " " + a.GetBefore().GetDigest(); got != before[name] {
				t.Errorf("%s has %s, and the plan says %s", name, before[name], got)
			}
			want[name] = a.GetAfter().GetPolicy() + " " + a.GetAfter().GetDigest()
		}
	}
	if !maps.Equal(after, want) {
		t.Errorf("machines have %v, and %v was planned", after, want)
	}
}

// TestAppliedPlansLeaveWhatWasPlanned makes random changes: links of every kind, blocks, other actions, other names.
func TestAppliedPlansLeaveWhatWasPlanned(t *testing.T) {
	f := Start(t, Bank)
	f.Apply(BankLinks)
	f.Apply(goodAction)
	random := rand.New(rand.NewPCG(1, 2))
	name := "Kiosk 0"
	f.Apply(kiosk(name, "Drop") + "---\napiVersion: bailiwick.net/v1alpha1\nkind: Link\nname: step 0\npolicy: " + name +
		"\ncontainer: ou=Workstations,dc=bank,dc=example\norder: 9\nenforced: true\n")
	scopes := []string{"dc=bank,dc=example", "ou=Workstations,dc=bank,dc=example", "ou=Servers,dc=bank,dc=example", "ou=SecureServers,dc=bank,dc=example"}
	planned, changed := 0, 0
	for step := range 25 {
		scope := scopes[random.IntN(len(scopes))]
		var r *adminv1.PlanRequest
		switch random.IntN(4) {
		case 0:
			policy := []string{"Client (Respond Only)", "Server (Request Security)", name}[random.IntN(3)]
			r = documentsOf(fmt.Sprintf("apiVersion: bailiwick.net/v1alpha1\nkind: Link\nname: step %d\npolicy: %s\ncontainer: %s\norder: %d\nenforced: %t\n",
				random.IntN(4), policy, scope, 10+step, random.IntN(2) == 0))
		case 1:
			r = documentsOf(fmt.Sprintf("apiVersion: bailiwick.net/v1alpha1\nkind: Container\ncontainer: %s\nblockInheritance: %t\n", scope, random.IntN(2) == 0))
		case 2:
			r = documentsOf(strings.Replace(goodAction, "action: block", "action: "+[]string{"block", "permit"}[random.IntN(2)], 1))
		case 3: // another name: the policy and what names it, in one step
			next := fmt.Sprintf("Kiosk %d", step+1)
			text := kiosk(next, "Drop")
			for _, d := range f.documents().GetDocuments() {
				if d.GetKind() == "Link" && strings.Contains(d.GetContent(), "policy: "+name+"\n") {
					text += "---\n" + strings.Replace(d.GetContent(), "policy: "+name+"\n", "policy: "+next+"\n", 1)
				}
			}
			r = documentsOf(text, "Policy/"+name)
			name = next
		}
		before := f.policies()
		p := f.plan(r)
		if p.GetId() == "" {
			continue // everything is as it would be
		}
		if got := f.policies(); !maps.Equal(got, before) {
			t.Fatalf("step %d: the plan changed policies", step)
		}
		planned++
		if p.GetMachinesChanged() > 0 {
			changed++
		}
		if _, err := f.applyPlan(p.GetId()); err != nil {
			t.Fatalf("step %d: %v\n%v", step, err, r)
		}
		wantPlanned(t, p, before, f.policies())
	}
	if planned < 15 || changed < 5 {
		t.Errorf("of %d plans %d changed anything: the test shows little", planned, changed)
	}
}

func kiosk(name, action string) string {
	return fmt.Sprintf(`apiVersion: bailiwick.net/v1alpha1
kind: Policy
name: %s
rules:
  - {name: no pings, filterList: All ICMP Traffic, filterAction: %s}
`, name, action)
}
