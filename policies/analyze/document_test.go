package analyze_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// The documentation names every code.
func TestEveryCodeIsDocumented(t *testing.T) {
	document, err := os.ReadFile("../ANALYSIS.md")
	if err != nil {
		t.Fatal(err)
	}
	codes := 0
	for _, file := range []string{"outcome.go", "verify.go", "../validate.go", "../resolve/check.go"} {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)Code = "([a-z-]+)"`).FindAllStringSubmatch(string(source), -1) {
			codes++
			if !strings.Contains(string(document), "`"+m[1]+"`") {
				t.Errorf("ANALYSIS.md does not name %q of %s", m[1], file)
			}
		}
	}
	if codes < 40 {
		t.Errorf("found %d codes", codes)
	}
}
