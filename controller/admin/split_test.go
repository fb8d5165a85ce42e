package admin

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
)

const action = "apiVersion: bailiwick.net/v1alpha1\nkind: FilterAction\nname: NAME\naction: block\n"

func named(name string) string { return strings.Replace(action, "NAME", name, 1) }

func TestSplitKeepsEveryDocumentAsWritten(t *testing.T) {
	for name, test := range map[string]struct {
		file string
		want []string
	}{
		"one":                  {named("a"), []string{named("a")}},
		"two":                  {named("a") + "---\n" + named("b"), []string{named("a"), named("b")}},
		"leading separator":    {"---\n" + named("a") + "--- # next\n" + named("b"), []string{named("a"), named("b")}},
		"comments":             {"# top\n" + named("a") + "---\n# on b\n" + named("b") + "# end\n", []string{"# top\n" + named("a"), "# on b\n" + named("b") + "# end\n"}},
		"comment first":        {"# licence\n---\n" + named("b"), []string{"# licence\n" + named("b")}},
		"windows line endings": {strings.ReplaceAll(named("a")+"---\n"+named("b"), "\n", "\r\n"), []string{named("a"), named("b")}},
		"no final line feed":   {named("a") + "---\n" + strings.TrimSuffix(named("b"), "\n"), []string{named("a"), strings.TrimSuffix(named("b"), "\n")}},
		"empty document":       {named("a") + "---\n---\n" + named("b"), []string{named("a"), named("b")}},
		"null document":        {named("a") + "---\nnull\n---\n# on b\n" + named("b"), []string{named("a"), "# on b\n" + named("b")}},
		"comments between":     {named("a") + "---\n# licence\n---\n# more\n---\n" + named("b"), []string{named("a"), "# licence\n# more\n" + named("b")}},
		"dashes in a text":     {named("a") + "description: |\n  ---\n", []string{named("a") + "description: |\n  ---\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			decoded, err := policies.Decode("test.yaml", []byte(test.file))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, text := range split([]byte(test.file), decoded.All()) {
				got = append(got, string(text))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("texts (-want +got):\n%s", diff)
			}
		})
	}
}

// What follows an empty document is applied as it was written.
func TestNothingIsDroppedInSilence(t *testing.T) {
	for name, file := range map[string]string{
		"empty document":  named("a") + "---\n---\n" + named("b"),
		"comment between": named("a") + "---\n# licence\n---\n" + named("b"),
		"null between":    named("a") + "---\nnull\n---\n" + named("b"),
		"end between":     named("a") + "...\n" + named("b"),
	} {
		change, err := Documents("test.yaml", []byte(file))
		if err != nil || len(change.Put) != 2 {
			t.Fatalf("%s: %d of 2 documents were taken: %v", name, len(change.Put), err)
		}
		for i, want := range []string{"a", "b"} {
			if got := change.Put[i].Name; got != want {
				t.Errorf("%s: document %d is %q, want %q", name, i, got, want)
			}
		}
	}
}

func TestPredefinedDocumentsAreKeptAsWritten(t *testing.T) {
	change, err := Documents("predefined.yaml", predefined.Text())
	if err != nil {
		t.Fatal(err)
	}
	all := predefined.Documents().All()
	if len(change.Put) != len(all) {
		t.Fatalf("%d documents, wanted %d", len(change.Put), len(all))
	}
	for i, d := range change.Put {
		if !strings.Contains(string(predefined.Text()), string(d.Content)) {
			t.Errorf("%v is not a piece of the file:\n%s", d.DocumentKey, d.Content)
		}
		if d.DocumentKey != keyOf(all[i]) {
			t.Errorf("document %d is %v, wanted %v", i, d.DocumentKey, keyOf(all[i]))
		}
	}
}

func TestDocumentsTellEveryMistake(t *testing.T) {
	_, err := Documents("bad.yaml", []byte(named("a")+"---\nkind: Nothing\n"))
	if err == nil {
		t.Error("a file with a mistake was taken")
	}
}
