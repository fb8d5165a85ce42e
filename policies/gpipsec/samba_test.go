package gpipsec_test

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/ldif"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/gpipsec"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// load reads the entries of a file.
func load(t testing.TB, file string) []directory.Entry {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	records, err := ldif.Parse(file, data)
	if err != nil {
		t.Fatal(err)
	}
	var entries []directory.Entry
	for _, r := range records {
		entries = append(entries, r.Entry)
	}
	return entries
}

// convert converts entries and wants documents that mean what they say: YAML and back, and no error of Validate.
func convert(t testing.TB, entries []directory.Entry, o gpipsec.Options) gpipsec.Result {
	t.Helper()
	r, err := gpipsec.Convert(entries, o)
	if err != nil {
		t.Fatal(err)
	}
	check(t, r)
	return r
}

type fataler interface{ Fatalf(string, ...any) }

func check(t fataler, r gpipsec.Result) {
	text := r.YAML()
	back, err := policies.Decode("imported.yaml", text)
	if err != nil {
		t.Fatalf("the documents do not read back: %v\n%s", err, text)
	}
	if got, want := string(back.Export()), string(r.Documents.Export()); got != want {
		t.Fatalf("the documents read back as others:\n%s", cmp.Diff(want, got))
	}
	if err := policies.Check(policies.Validate(r.Documents)); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
}

// shape leaves of a policy what the predefined ones have in common with those of Windows: everything but names, comments
// and the algorithms with their lifetimes.
func shape(t *testing.T, d policies.Documents, name string) spd.Policy {
	t.Helper()
	p, err := d.Effective(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := range p.Rules {
		r := &p.Rules[i]
		r.ID, r.Name, r.Action.Lifetime = "", "", spd.Lifetime{}
		for j := range r.Filters {
			r.Filters[j].ID, r.Filters[j].Description = "", ""
		}
	}
	slices.SortFunc(p.Rules, func(a, b spd.Rule) int { return strings.Compare(a.Action.Name, b.Action.Name) })
	p.DefaultResponse.Lifetime = spd.Lifetime{}
	p.KeyExchange.Offers = nil
	return p
}

func TestPredefinedPoliciesOfAFreshDomain(t *testing.T) {
	r := convert(t, load(t, "testdata/samba.ldif"), gpipsec.Options{})
	ours := predefined.Documents()
	for _, p := range ours.Policies {
		if diff := cmp.Diff(shape(t, ours, p.Name), shape(t, r.Documents, p.Name), cmpopts.EquateComparable(spd.Address{}, netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s is of another shape (-ours +imported):\n%s", p.Name, diff)
		}
	}
	if n := len(r.Documents.Policies); n != 3 {
		t.Errorf("%d policies, want 3", n)
	}
	golden(t, "testdata/samba.yaml", r.YAML())
}

// golden compares with a file, or writes it when UPDATE_GOLDEN is set.
func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is stale (UPDATE_GOLDEN=1 renews it):\n%s", file, diff)
	}
}
