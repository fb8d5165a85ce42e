package spd

import (
	"os"
	"strings"
	"testing"
)

// The table of the settings in the README names every value there is, and the first one, which is the default.
func TestReadmeNamesEveryValue(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for field, names := range map[string][]string{
		"mobility": mobilityNames[:], "revocation": revocationNames[:], "childless": childlessNames[:], "transcript": transcriptNames[:],
	} {
		row := "| `keyExchange." + field + "` | `" + strings.Join(names, "`, `") + "` | `" + names[0] + "` |"
		if !strings.Contains(string(text), row) {
			t.Errorf("the README has no row that begins with %s", row)
		}
	}
}
