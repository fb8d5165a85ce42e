package controllertest

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/policies/predefined"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

func (f *Fleet) tryApply(dryRun bool, sources ...*adminv1.Source) (*adminv1.ApplyResponse, error) {
	f.t.Helper()
	return f.Documents().Apply(f.Context(), &adminv1.ApplyRequest{Sources: sources, DryRun: dryRun})
}

func (f *Fleet) documents() *adminv1.ListDocumentsResponse {
	f.t.Helper()
	r, err := f.Documents().ListDocuments(f.Context(), &adminv1.ListDocumentsRequest{})
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

// problems takes the details out of a refusal.
func problems(t *testing.T, err error) []*adminv1.Problem {
	t.Helper()
	for _, d := range status.Convert(err).Details() {
		if p, ok := d.(*adminv1.Problems); ok {
			return p.GetProblems()
		}
	}
	t.Fatalf("the refusal has no problems in its details: %v", err)
	return nil
}

func source(name, content string) *adminv1.Source {
	return &adminv1.Source{Name: name, Content: []byte(content)}
}

const goodAction = `# Kept with its comment.
apiVersion: bailiwick.net/v1alpha1
kind: FilterAction
name: Drop
action: block   # and this one
`

func TestHalfBadFileChangesNothing(t *testing.T) {
	f := Start(t, Bank)
	before := f.documents()
	_, err := f.tryApply(false, source("good.yaml", goodAction), source("bad.yaml", `apiVersion: bailiwick.net/v1alpha1
kind: FilterAction
name: Other
action: permit
colour: red
`))
	wantRefusal(t, err, codes.InvalidArgument, "nothing was applied")
	got := problems(t, err)
	if len(got) != 1 || got[0].GetSource() != "bad.yaml" || got[0].GetLine() != 5 || got[0].GetColumn() != 1 || !strings.Contains(got[0].GetMessage(), "colour") {
		t.Errorf("problems are %v, wanted the unknown field at bad.yaml:5:1", got)
	}
	if !strings.Contains(got[0].GetExcerpt(), "colour: red") {
		t.Errorf("excerpt is %q", got[0].GetExcerpt())
	}
	if after := f.documents(); after.GetRevision() != before.GetRevision() {
		t.Errorf("the revision went from %d to %d", before.GetRevision(), after.GetRevision())
	}
}

func TestDanglingReferenceIsRefused(t *testing.T) {
	f := Start(t, Bank)
	before := f.documents().GetRevision()
	_, err := f.tryApply(false, source("links.yaml", goodAction+"---\n"+`apiVersion: bailiwick.net/v1alpha1
kind: Link
policy: No Such Policy
container: dc=bank,dc=example
order: 1
`))
	wantRefusal(t, err, codes.FailedPrecondition, "nothing was changed")
	if got := problems(t, err); len(got) != 1 || got[0].GetLine() != 7 || !strings.Contains(got[0].GetMessage(), "No Such Policy") {
		t.Errorf("problems are %v", got)
	}
	// Taking away what another document names is the same thing from the other side.
	_, err = f.Documents().Delete(f.Context(), &adminv1.DeleteRequest{Kind: "filterlist", Name: "All ICMP Traffic"})
	wantRefusal(t, err, codes.FailedPrecondition, predefined.SecureServer)
	_, err = f.Documents().Delete(f.Context(), &adminv1.DeleteRequest{Kind: "Policy", Name: "none such"})
	wantRefusal(t, err, codes.NotFound, "none such")
	_, err = f.Documents().Delete(f.Context(), &adminv1.DeleteRequest{Kind: "Colour", Name: "red"})
	wantRefusal(t, err, codes.InvalidArgument, "FilterList")
	if after := f.documents().GetRevision(); after != before {
		t.Errorf("the revision went from %d to %d", before, after)
	}
}

func TestDocumentsAreKeptAsWritten(t *testing.T) {
	f := Start(t, Bank)
	response := f.Apply("\n---\n" + goodAction + "--- # second\n" + strings.Replace(BankLinks, "order: 1", "order:   1", 1))
	if len(response.GetChanges()) != 4 || response.GetMachinesChanged() != 4 {
		t.Errorf("applied %d documents, %d machines change; wanted 4 and 4", len(response.GetChanges()), response.GetMachinesChanged())
	}
	var kept string
	for _, d := range f.documents().GetDocuments() {
		if d.GetName() == "Drop" {
			kept = d.GetContent()
		}
	}
	if kept != goodAction {
		t.Errorf("kept is %q, wanted %q", kept, goodAction)
	}
	again := f.Apply(goodAction)
	if c := again.GetChanges(); len(c) != 1 || c[0].GetAction() != adminv1.Change_ACTION_UNCHANGED || again.GetRevision() != response.GetRevision() {
		t.Errorf("applying the same again: %v at revision %d, was %d", c, again.GetRevision(), response.GetRevision())
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	f := Start(t, Bank)
	before := f.documents().GetRevision()
	r, err := f.tryApply(true, source("links.yaml", BankLinks))
	if err != nil {
		t.Fatal(err)
	}
	if r.GetMachinesChanged() != 4 || len(r.GetChanges()) != 3 || r.GetChanges()[0].GetAction() != adminv1.Change_ACTION_CREATED {
		t.Errorf("the dry run says %v", r)
	}
	if after := f.documents().GetRevision(); after != before {
		t.Errorf("the dry run moved the revision from %d to %d", before, after)
	}
	if m := f.machine("sql1"); m.GetPolicy() != "none" {
		t.Errorf("after the dry run sql1 has %q", m.GetPolicy())
	}
}

func TestLinksAndWhoWins(t *testing.T) {
	f := Start(t, Bank)
	link := func(policy, container string, enforced bool) {
		t.Helper()
		if _, err := f.Documents().Link(f.Context(), &adminv1.LinkRequest{Link: &adminv1.PolicyLink{Policy: policy, Container: container, Enforced: enforced}}); err != nil {
			t.Fatal(err)
		}
	}
	link(predefined.Client, "DC=Bank,DC=Example", false)
	link(predefined.SecureServer, "OU=SecureServers,dc=bank,dc=example", false)
	if m := f.machine("sql1"); m.GetPolicy() != predefined.SecureServer || m.GetContainer() != "ou=SecureServers,dc=bank,dc=example" {
		t.Errorf("sql1 has %q from %q", m.GetPolicy(), m.GetContainer())
	}
	link(predefined.Server, "dc=bank,dc=example", true)
	r, err := f.Machines().ExplainMachine(f.Context(), &adminv1.ExplainMachineRequest{Machine: "sql1.bank.example"})
	if status.Code(err) == codes.NotFound {
		r, err = f.Machines().ExplainMachine(f.Context(), &adminv1.ExplainMachineRequest{Machine: "cn=SQL1,ou=secureservers,dc=bank,dc=example"})
	}
	if err != nil {
		t.Fatal(err)
	}
	if c := r.GetCandidates(); len(c) != 3 || !c[0].GetWinner() || c[0].GetLink().GetPolicy() != predefined.Server || c[0].GetLink().GetOrder() != 2 {
		t.Errorf("candidates are %v, wanted the enforced link to win", c)
	}
	again := &adminv1.LinkRequest{Link: &adminv1.PolicyLink{Policy: predefined.Server, Container: "dc=bank,dc=example", Disabled: true}}
	_, err = f.Documents().Link(f.Context(), again)
	wantRefusal(t, err, codes.AlreadyExists, "--replace")
	again.Replace = true
	if _, err := f.Documents().Link(f.Context(), again); err != nil {
		t.Fatal(err)
	}
	if m := f.machine("sql1"); m.GetPolicy() != predefined.SecureServer {
		t.Errorf("with the enforced link disabled sql1 has %q", m.GetPolicy())
	}
	for policy, code := range map[string]codes.Code{predefined.Server: codes.OK, predefined.SecureServer: codes.NotFound} {
		_, err := f.Documents().Unlink(f.Context(), &adminv1.UnlinkRequest{Policy: policy, Container: "dc=bank,dc=example"})
		if status.Code(err) != code {
			t.Errorf("unlinking %q gave %v, wanted %v", policy, err, code)
		}
	}
	for _, bad := range []*adminv1.PolicyLink{
		{Policy: "No Such", Container: "dc=bank,dc=example"}, {Policy: predefined.Server, Container: "ou=Nowhere,dc=bank,dc=example"},
		{Policy: predefined.Server, Container: "dc=bank,dc=example", Groups: []string{"cn=nobody,dc=bank,dc=example"}},
		{Policy: predefined.Server, Container: "dc=bank,dc=example", DeniedGroups: []string{"cn=nobody,dc=bank,dc=example"}},
	} {
		_, err := f.Documents().Link(f.Context(), &adminv1.LinkRequest{Link: bad})
		wantRefusal(t, err, codes.NotFound, "there is no")
	}
}

func TestSeedOnlyOnce(t *testing.T) {
	f := Start(t, Bank)
	if n := len(f.documents().GetDocuments()); n == 0 {
		t.Fatal("the predefined policies are not there")
	}
	if _, err := f.Documents().Delete(f.Context(), &adminv1.DeleteRequest{Kind: "Policy", Name: predefined.SecureServer}); err != nil {
		t.Fatal(err)
	}
	n := len(f.documents().GetDocuments())
	f.Restart()
	if after := len(f.documents().GetDocuments()); after != n {
		t.Errorf("after a restart there are %d documents, wanted the %d that were left", after, n)
	}
}
