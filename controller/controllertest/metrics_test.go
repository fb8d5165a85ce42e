package controllertest

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Each figure that the controller shows is explained to whoever is alarmed by it, and each that a document of the CA or of the
// directories tells of is shown.
func TestFiguresAreExplained(t *testing.T) {
	f := New(t, Bank)
	f.Config.Metrics.Listen = "127.0.0.1:0"
	f.Config.Revocation.Listen = "127.0.0.1:0"
	f.Start()
	f.Node("sql1")
	name := regexp.MustCompile(`bailiwick_[a-z_]+[a-z]`)
	var shown []string
	f.Eventually("there is a revocation list", func() bool {
		response, err := http.Get("http://" + f.running.controller.MetricsAddress().String() + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		shown = shown[:0]
		for line := range strings.Lines(string(body)) {
			if strings.HasPrefix(line, "# TYPE ") {
				shown = append(shown, name.FindString(line))
			}
		}
		return slices.Contains(shown, "bailiwick_revocation_list_end_timestamp_seconds")
	})
	var told []string
	for _, document := range []string{"pki/RUNBOOK.md", "pki/REVOCATION.md", "pki/ENROLLMENT.md", "directory/DIRECTORIES.md"} {
		content, err := os.ReadFile(filepath.Join("..", "..", document))
		if err != nil {
			t.Fatal(err)
		}
		told = append(told, name.FindAllString(string(content), -1)...)
	}
	for _, figure := range shown {
		if !slices.Contains(told, figure) {
			t.Errorf("%s is shown, and no document tells what it means", figure)
		}
	}
	for _, figure := range told {
		// The runbook names those of the directories together.
		if figure != "bailiwick_directory" && !slices.Contains(shown, figure) {
			t.Errorf("%s is in a document, and is not shown", figure)
		}
	}
}
