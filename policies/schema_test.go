package policies_test

import (
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
)

func TestSchemaAcceptsWhatDecodes(t *testing.T) {
	bank, err := os.ReadFile("testdata/bank.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"predefined": predefined.Text(), "bank": bank} {
		if err := policies.SchemaAccepts(t, text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		text := documents().Draw(rt, "documents").Export()
		if err := policies.SchemaAccepts(t, text); err != nil {
			rt.Fatalf("%v\n%s", err, text)
		}
	})
}

func TestSchemaRefuses(t *testing.T) {
	good := "apiVersion: bailiwick.net/v1alpha1\nkind: FilterAction\nname: a\naction: negotiate\nfallback: {mode: wait, delay: 1s}\nassociations: 4\n"
	if err := policies.SchemaAccepts(t, []byte(good)); err != nil {
		t.Fatal(err)
	}
	for change, want := range map[string]string{
		"v1alpha1=>v9":                      "is not bailiwick.net/v1alpha1",
		"kind: FilterAction=>kind: Act":     "is not one of",
		"name: a\n=>":                       "no name",
		"action:=>act1on:":                  "act",
		"negotiate=>reject":                 "is not one of",
		"delay: 1s=>delay: 1":               "none of the choices",
		"mode: wait, =>":                    "none of the choices",
		"associations: 4=>associations: 65": "none of the choices",
		"name: a=>name: ' a'":               "pattern",
	} {
		old, replacement, _ := strings.Cut(change, "=>")
		text := strings.Replace(good, old, replacement, 1)
		if text == good {
			t.Fatalf("%q changes nothing", change)
		}
		if err := policies.SchemaAccepts(t, []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", change, err, want)
		}
	}
}
