package policies_test

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/policies"
)

func TestRename(t *testing.T) {
	const head = "apiVersion: bailiwick.net/v1alpha1\n"
	for _, test := range []struct {
		name, text string
		kind       policies.Kind
		from, to   string
		want       string // empty: the name is not in the text
	}{
		{"the document itself, with comments", head + "kind: FilterAction   # what\nname: Drop # not Drop\ndescription: Drop\naction: block\n", policies.KindFilterAction, "Drop", "Lose",
			head + "kind: FilterAction   # what\nname: Lose # not Drop\ndescription: Drop\naction: block\n"},
		{"one of another kind", head + "kind: FilterAction\nname: Drop\naction: block\n", policies.KindFilterList, "Drop", "Lose", ""},
		{"references in rules, in three spellings", head + "kind: Policy\nname: P\nrules:\n  - {name: L, filterList: \"L\", filterAction: L}\n  - name: 'b'\n    filterAction: A\n    filterList:   'L'   # here\n", policies.KindFilterList, "L", "Müller & Söhne: x",
			head + "kind: Policy\nname: P\nrules:\n  - {name: L, filterList: \"Müller & Söhne: x\", filterAction: L}\n  - name: 'b'\n    filterAction: A\n    filterList:   \"Müller & Söhne: x\"   # here\n"},
		{"behind letters beyond ASCII", head + "kind: Policy\nname: P\nrules:\n  - {name: \"日本 é\", filterList: L, filterAction: L}\n", policies.KindFilterAction, "L", "M",
			head + "kind: Policy\nname: P\nrules:\n  - {name: \"日本 é\", filterList: L, filterAction: M}\n"},
		{"a quote in the name", head + "kind: Link\npolicy: 'it''s'\ncontainer: DC=a\norder: 1\n", policies.KindPolicy, "it's", "its",
			head + "kind: Link\npolicy: its\ncontainer: DC=a\norder: 1\n"},
		{"a test", head + "kind: PolicyTest\nname: P\nassertions:\n  - {from: {policy: P}, to: {machine: P}, is: clear}\n", policies.KindPolicy, "P", "Q",
			head + "kind: PolicyTest\nname: P\nassertions:\n  - {from: {policy: Q}, to: {machine: P}, is: clear}\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, changed, err := policies.Rename([]byte(test.text), test.kind, test.from, test.to)
			if err != nil {
				t.Fatal(err)
			}
			if want := test.want; changed != (want != "") || changed && string(got) != want || !changed && string(got) != test.text {
				t.Errorf("changed %t, got\n%s\nwant\n%s", changed, got, want)
			}
		})
	}
}

func TestRenameRefuses(t *testing.T) {
	const text = "apiVersion: bailiwick.net/v1alpha1\nkind: FilterAction\nname: >-\n  two\n  words\naction: block\n"
	if _, _, err := policies.Rename([]byte(text), policies.KindFilterAction, "two words", "one"); !errors.Is(err, policies.ErrRename) || !strings.Contains(err.Error(), "edit and apply") {
		t.Errorf("a name over several lines: %v", err)
	}
	for _, name := range []string{"", " a", "a\nb", strings.Repeat("a", 256)} {
		if _, _, err := policies.Rename([]byte(text), policies.KindFilterAction, "x", name); err == nil {
			t.Errorf("%q is taken for a name", name)
		}
	}
	if policies.KindContainer.Renames() || policies.KindSettings.Renames() || !policies.KindPolicy.Renames() || policies.Kind("Nonsense").Renames() {
		t.Error("the wrong kinds have names")
	}
}

// There and back again, whatever the names are: the documents are the same, and between the two nobody has the old name.
func TestRenameThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		docs := documents().Draw(t, "documents")
		all := docs.All()
		d := all[rapid.IntRange(0, len(all)-1).Draw(t, "which")]
		kind, from := d.Kind(), d.Metadata().Name
		if !kind.Renames() || from == "" {
			return
		}
		const fresh = "nobody: has \"this\" name"
		for _, d := range all {
			text := policies.AppendYAML(nil, d)
			there, changed, err := policies.Rename(text, kind, from, fresh)
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			back, again, err := policies.Rename(there, kind, fresh, from)
			if err != nil || changed != again {
				t.Fatalf("changed %t there and %t back: %v\n%s", changed, again, err, there)
			}
			if _, still, err := policies.Rename(there, kind, from, "x"); still || err != nil {
				t.Fatalf("%q is still there: %v\n%s", from, err, there)
			}
			want, err := policies.Decode("want", text)
			if err != nil {
				t.Fatal(err)
			}
			got, err := policies.Decode("got", back)
			if err != nil {
				t.Fatal(err)
			}
			if diff := compare(want, got); diff != "" {
				t.Fatalf("it came back as another document:\n%s", diff)
			}
		}
	})
}
