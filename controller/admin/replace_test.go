package admin

import (
	"net/netip"
	"testing"

	"github.com/bailiwick-net/bailiwick/controller/grouppolicy"
	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/policies"
)

// TestPrecedenceOfSources has two sources and a person write a site of one name, in every order: a person has it, then the
// source that comes first in the configuration.
func TestPrecedenceOfSources(t *testing.T) {
	const bank, branch, person = "group-policy:bank", "group-policy:branch", "alice"
	sources := []grouppolicy.Status{{Source: "bank"}, {Source: "branch"}}
	site := policies.Site{Meta: policies.Meta{Name: "Vienna"}, Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}
	docs := policies.Documents{Sites: []policies.Site{site}}
	for _, test := range []struct {
		by, owner string
		taken     bool
	}{
		{branch, bank, true}, {bank, branch, false}, {person, bank, false}, {person, branch, false}, {"group-policy:gone", bank, false},
	} {
		stored := store.Documents{List: []store.Document{{DocumentKey: keyOf(site), Content: policies.AppendYAML(nil, site), By: test.by}}}
		out, put, change := replacement(stored, test.owner, docs, sources)
		if taken := len(put) == 1; taken != test.taken || len(change.Put) != len(put) || len(out.Kept) == len(put) || len(change.Delete) != 0 || change.By != test.owner {
			t.Errorf("%s finds a site of %s: written %v, kept %q, deleted %v", test.owner, test.by, put, out.Kept, change.Delete)
		}
		// What is its own is not written twice, and goes when it is gone.
		stored.List[0].By = test.owner
		if _, put, change := replacement(stored, test.owner, docs, sources); len(put)+len(change.Delete) != 0 {
			t.Errorf("%s writes what it wrote: %v", test.owner, put)
		}
		if _, put, change := replacement(stored, test.owner, policies.Documents{}, sources); len(put) != 0 || len(change.Delete) != 1 {
			t.Errorf("%s deletes %v", test.owner, change.Delete)
		}
	}
}
