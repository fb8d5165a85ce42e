package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// runbooks have a table of alarms each.
var runbooks = []string{"pki/RUNBOOK.md", "pki/REVOCATION.md"}

var quotedText = regexp.MustCompile("`([^`]+)`")

// alarms are the texts in the first column of the tables below the headings that begin with "Alarms".
func alarms(t *testing.T, root string) []string {
	t.Helper()
	var out []string
	for _, book := range runbooks {
		content, err := os.ReadFile(filepath.Join(root, book))
		if err != nil {
			t.Fatal(err)
		}
		within := false
		for line := range strings.Lines(string(content)) {
			if heading := strings.TrimLeft(line, "#"); heading != line {
				within = strings.HasPrefix(heading, " Alarms")
			}
			cells := strings.Split(line, "|")
			if !within || len(cells) < 4 {
				continue
			}
			for _, found := range quotedText.FindAllStringSubmatch(cells[1], -1) {
				if strings.Contains(found[1], " ") { // others are names of fields and figures
					out = append(out, found[1])
				}
			}
		}
	}
	return out
}

// texts are the string literals of the files that count, and of these the messages of calls of a method Error.
func texts(t *testing.T, root string, counts func(path string) bool) (all, alarms map[string]string) {
	t.Helper()
	all, alarms = map[string]string{}, map[string]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil || entry.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || !counts(name) {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BasicLit:
				if text, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
					all[text] = name
				}
			case *ast.CallExpr:
				method, ok := n.Fun.(*ast.SelectorExpr)
				if !ok || method.Sel.Name != "Error" || len(n.Args) == 0 {
					break
				}
				if text, ok := n.Args[0].(*ast.BasicLit); ok && text.Kind == token.STRING {
					message, err := strconv.Unquote(text.Value)
					if err != nil {
						t.Errorf("%s: the literal %s: %v", name, text.Value, err)
					}
					alarms[message] = name
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all, alarms
}

// TestEveryAlarmIsInARunbook holds what the controller logs as an error, and a node of its certificate, against the runbooks of
// the operator: each message is there, and what is there is said somewhere.
func TestEveryAlarmIsInARunbook(t *testing.T) {
	root := filepath.Join("..", "..")
	known := alarms(t, root)
	certificates := []string{"node/machinekey.go", "node/membership.go", "node/agent/denials.go"}
	_, errors := texts(t, root, func(name string) bool {
		return strings.HasPrefix(name, "controller/") && !strings.HasPrefix(name, "controller/controllertest/") && !strings.HasPrefix(name, "controller/store/storetest/") ||
			slices.Contains(certificates, name)
	})
	if len(known) < 40 || len(errors) < 40 {
		t.Fatalf("%d alarms and %d messages were found, which cannot be all", len(known), len(errors))
	}
	for message, where := range errors {
		if !slices.ContainsFunc(known, func(alarm string) bool { return strings.Contains(message, alarm) }) {
			t.Errorf("%s logs the error %q, which is in none of %q", where, message, runbooks)
		}
	}
	said, _ := texts(t, root, func(name string) bool {
		return strings.HasPrefix(name, "controller/") || strings.HasPrefix(name, "pki/") || strings.HasPrefix(name, "node/")
	})
	for _, alarm := range known {
		// Commands, figures and single fields are no messages.
		if strings.HasPrefix(alarm, "ca ") || strings.HasPrefix(alarm, "bailiwick") || len(strings.Fields(alarm)) < 3 {
			continue
		}
		if !isSaid(alarm, said) {
			t.Errorf("%q is in a runbook, and nobody says it", alarm)
		}
	}
}

// isSaid looks for a text, parts of which may be left out as "...".
func isSaid(alarm string, said map[string]string) bool {
	for text := range said {
		rest, all := text, true
		for part := range strings.SplitSeq(alarm, "...") {
			_, after, ok := strings.Cut(rest, strings.TrimSpace(part))
			rest, all = after, all && ok
		}
		if all {
			return true
		}
	}
	return false
}
