package admin

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/policies"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

const references = `apiVersion: bailiwick.net/v1alpha1
kind: FilterList
name: list
filters: [{source: me, destination: any}]
---
apiVersion: bailiwick.net/v1alpha1
kind: FilterAction
name: drop
action: block
---
apiVersion: bailiwick.net/v1alpha1
kind: Policy
name: policy
rules: [{name: off, active: false, filterList: list, filterAction: drop}]
---
apiVersion: bailiwick.net/v1alpha1
kind: Policy
name: spare
rules: [{name: r, filterList: list, filterAction: drop}]
---
apiVersion: bailiwick.net/v1alpha1
kind: Site
name: Main
subnets: [192.0.2.0/24]
---
apiVersion: bailiwick.net/v1alpha1
kind: Link
name: link
policy: policy
container: cn=Main,cn=Sites
order: 1
disabled: true
---
apiVersion: bailiwick.net/v1alpha1
kind: Container
container: ou=a,dc=x
blockInheritance: true
---
apiVersion: bailiwick.net/v1alpha1
kind: PolicyTest
name: test
assertions: [{from: {policy: policy}, to: {group: "cn=g,dc=x"}, is: clear}]
`

func catalogueOf(t *testing.T, text string) catalogue {
	t.Helper()
	d, err := policies.Decode("stored", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	c := catalogue{docs: map[store.DocumentKey]policies.Document{}}
	for _, doc := range d.All() {
		c.docs[keyOf(doc)] = doc
		c.stored.List = append(c.stored.List, store.Document{DocumentKey: keyOf(doc), Content: policies.AppendYAML(nil, doc)})
	}
	return c
}

func names(texts ...string) []*adminv1.DocumentName {
	var out []*adminv1.DocumentName
	for _, text := range texts {
		kind, name, _ := strings.Cut(text, "/")
		out = append(out, &adminv1.DocumentName{Kind: kind, Name: name})
	}
	return out
}

// TestWhatIsNamedStays goes through every way in which one document names another (MS-GPIPSEC 3.1.5.7: what is referenced
// cannot be deleted). Rules that are off and links that are disabled name what they name all the same.
func TestWhatIsNamedStays(t *testing.T) {
	for what, test := range map[string]struct {
		write  string
		delete []*adminv1.DocumentName
		code   codes.Code
		want   string // of the refusal
	}{
		"a list of rules":                  {"", names("FilterList/list"), codes.FailedPrecondition, `FilterList "list" is used by Policy "policy", Policy "spare"; change that first`},
		"an action of rules":               {"", names("FilterAction/drop"), codes.FailedPrecondition, `FilterAction "drop" is used by Policy "policy", Policy "spare"; change that first`},
		"a policy of a link and of a test": {"", names("Policy/policy"), codes.FailedPrecondition, `Policy "policy" is used by Link "link", PolicyTest "test"; change that first`},
		"a policy of a test":               {"", names("Policy/policy", "Link/link"), codes.FailedPrecondition, `Policy "policy" is used by PolicyTest "test"; change that first`},
		"a site of a link":                 {"", names("Site/Main"), codes.FailedPrecondition, `Site "Main" is used by Link "link"; change that first`},
		"what is not there":                {"", names("Policy/ghost"), codes.NotFound, `there is no Policy "ghost"`},
		"a kind that is none":              {"", names("Polcy/policy"), codes.InvalidArgument, `kind "Polcy"`},
		"written and deleted":              {strings.Split(references, "---\n")[1], names("FilterAction/drop"), codes.InvalidArgument, "is to be written and deleted at once"},
		"nothing":                          {"", nil, codes.InvalidArgument, "there is no document"},
		"a link":                           {"", names("link/link"), codes.OK, ""},
		"a test":                           {"", names("PolicyTest/test"), codes.OK, ""},
		"container settings":               {"", names("Container/ou=a,dc=x"), codes.OK, ""},
		"a policy that nothing names":      {"", names("Policy/spare"), codes.OK, ""},
		"in the order that works":          {"", names("PolicyTest/test", "Link/link", "Site/Main", "Policy/policy", "Policy/spare", "FilterList/list", "FilterAction/drop"), codes.OK, ""},
		"in any order, at once":            {"", names("FilterAction/drop", "FilterList/list", "Policy/spare", "Policy/policy", "Site/Main", "Link/link", "PolicyTest/test"), codes.OK, ""},
		"a policy by another name, alone": {"apiVersion: bailiwick.net/v1alpha1\nkind: Policy\nname: other\nrules: [{name: r, filterList: list, filterAction: drop}]\n",
			names("Policy/policy"), codes.FailedPrecondition, `Policy "policy" is used by Link "link", PolicyTest "test"`},
		"a policy by another name, with what names it": {`apiVersion: bailiwick.net/v1alpha1
kind: Policy
name: other
rules: [{name: r, filterList: list, filterAction: drop}]
---
apiVersion: bailiwick.net/v1alpha1
kind: Link
name: link
policy: other
container: cn=Main,cn=Sites
order: 1
---
apiVersion: bailiwick.net/v1alpha1
kind: PolicyTest
name: test
assertions: [{from: {policy: other}, to: {group: "cn=g,dc=x"}, is: clear}]
`, names("Policy/policy"), codes.OK, ""},
	} {
		t.Run(what, func(t *testing.T) {
			c := catalogueOf(t, references)
			if err := policies.Check(policies.Validate(c.with(nil))); err != nil {
				t.Fatal(err)
			}
			var sources []*adminv1.Source
			if test.write != "" {
				sources = []*adminv1.Source{{Name: "f", Content: []byte(test.write)}}
			}
			next, err := func() (policies.Documents, error) {
				in, err := decodeIntent(sources, test.delete)
				if err != nil {
					return policies.Documents{}, err
				}
				return in.over(c)
			}()
			if status.Code(err) != test.code || test.want != "" && !strings.Contains(status.Convert(err).Message(), test.want) {
				t.Fatalf("got %v, wanted %v with %q", err, test.code, test.want)
			}
			if err != nil {
				return
			}
			if err := policies.Check(policies.Validate(next)); err != nil {
				t.Errorf("what is left does not validate: %v", err)
			}
			for _, n := range test.delete {
				for _, d := range next.All() {
					if strings.EqualFold(string(d.Kind()), n.GetKind()) && d.Key() == n.GetName() {
						t.Errorf("%s %q is still there", n.GetKind(), n.GetName())
					}
				}
			}
		})
	}
}

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestOldestPlansGoFirst(t *testing.T) {
	var p plans
	var first keptPlan
	for i := range maxPlans + 1 {
		k := keptPlan{until: start.Add(planLife)}
		k.id[0] = byte(i + 1)
		if i == 0 {
			first = k
		}
		p.keep(k, start)
	}
	if _, ok := p.get(first.id, start); ok || len(p.list) != maxPlans {
		t.Errorf("%d plans are kept, the first among them: %t", len(p.list), ok)
	}
	last := p.list[len(p.list)-1]
	if _, ok := p.get(last.id, start.Add(planLife-1)); !ok {
		t.Error("a plan is gone before its time")
	}
	if _, ok := p.get(last.id, start.Add(planLife)); ok {
		t.Error("a plan is there after its time")
	}
	p.drop(last.id)
	if _, ok := p.get(last.id, start); ok {
		t.Error("a plan that was dropped is there")
	}
}
