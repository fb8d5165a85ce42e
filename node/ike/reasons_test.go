package ike_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/ike"
)

var update = flag.Bool("update", false, "write the generated documents")

// declared are the constants of type Reason in the source of the package, by name.
func declared(t *testing.T) map[string]ike.Reason {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]ike.Reason)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			v, ok := n.(*ast.ValueSpec)
			if !ok || len(v.Values) != 1 {
				return true
			}
			if typ, ok := v.Type.(*ast.Ident); !ok || typ.Name != "Reason" {
				return true
			}
			text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			found[v.Names[0].Name] = ike.Reason(text)
			return true
		})
	}
	return found
}

func TestEveryReasonIsExplained(t *testing.T) {
	rows := make(map[ike.Reason]ike.Explanation)
	for _, e := range ike.ReasonTable() {
		if _, twice := rows[e.Reason]; twice {
			t.Errorf("reason %q has two rows", e.Reason)
		}
		rows[e.Reason] = e
		if e.Class.String() == "unknown" || !strings.HasSuffix(e.Meaning, ".") || !strings.HasSuffix(e.Remedy, ".") {
			t.Errorf("the row of %q is not complete: %+v", e.Reason, e)
		}
	}
	constants := declared(t)
	if len(constants) < 40 {
		t.Fatalf("only %d reasons were found in the source", len(constants))
	}
	codes := make(map[ike.Reason]string)
	for name, reason := range constants {
		if reason == ike.ReasonNone {
			continue
		}
		if other, twice := codes[reason]; twice {
			t.Errorf("%s and %s have the same code %q", name, other, reason)
		}
		codes[reason] = name
		if _, ok := rows[reason]; !ok {
			t.Errorf("%s (%q) has no row in ReasonTable: say what it means, whose fault it is and what to do", name, reason)
		}
	}
	for reason := range rows {
		if _, ok := codes[reason]; !ok {
			t.Errorf("the row of %q explains no constant", reason)
		}
	}
}

// TestEveryReasonIsUsed fails for a reason that nothing gives: a row that explains what never happens misleads.
func TestEveryReasonIsUsed(t *testing.T) {
	used := make(map[string]bool)
	err := filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || filepath.Dir(path) == filepath.Join("..", "ike") {
			return err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				used[s.Sel.Name] = true
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, reason := range declared(t) {
		if !used[name] && reason != ike.ReasonNone {
			t.Errorf("nothing gives %s (%q)", name, reason)
		}
	}
}

// TestReasonsDocument keeps REASONS.md: go test ./node/ike -run Document -update writes it.
func TestReasonsDocument(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Why an association failed\n\n")
	b.WriteString("Every failure has a reason, which is stable and meant for scripts, and names the side at fault. `bailiwick-node status`\n")
	b.WriteString("shows the latest failures, `bailiwick-node ike trace PEER --history` the messages before them\n")
	b.WriteString("(see [TROUBLESHOOTING.md](TROUBLESHOOTING.md)). This file is generated from the code.\n")
	for _, part := range []struct {
		class ike.Class
		title string
	}{
		{ike.ClassFailure, "A negotiation failed, or an association was lost"},
		{ike.ClassDrop, "A message was dropped"},
		{ike.ClassEnd, "An association ended in order"},
	} {
		fmt.Fprintf(&b, "\n## %s\n\n| reason | usual fault | meaning | what to do |\n|---|---|---|---|\n", part.title)
		for _, e := range ike.ReasonTable() {
			if e.Class == part.class {
				fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", e.Reason, e.Fault, e.Meaning, e.Remedy)
			}
		}
	}
	if *update {
		if err := os.WriteFile("REASONS.md", []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile("REASONS.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != b.String() {
		t.Error("REASONS.md is not what the code says; run go test ./node/ike -run Document -update")
	}
}
