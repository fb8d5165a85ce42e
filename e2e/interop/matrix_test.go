package interop_test

import (
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/interop"
)

var update = flag.Bool("update", false, "write MATRIX.md")

// TestMatrix holds the table to the tests: every row says what it is, every test that it lists exists and registers for
// it, and every test that registers is listed. The printed form is current.
func TestMatrix(t *testing.T) {
	registered := registrations(t, "..")
	for i, r := range interop.Rows() {
		if r.Number != i+1 {
			t.Errorf("row %d stands at place %d", r.Number, i+1)
		}
		proven := r.Status == interop.Shown || r.Status == interop.Refused
		switch {
		case !proven && r.Status != interop.OutOfScope:
			t.Errorf("row %d (%s) is %s: every row is shown, refused or out of scope", r.Number, r.Name, r.Status)
		case r.Name == "", proven && r.Proves == "", !proven && r.Note == "":
			t.Errorf("row %d does not say what it is: name %q, proves %q, note %q", r.Number, r.Name, r.Proves, r.Note)
		case proven && len(r.Tests) == 0:
			t.Errorf("row %d (%s) is %s but has no test", r.Number, r.Name, r.Status)
		case !proven && len(r.Tests) > 0:
			t.Errorf("row %d (%s) is %s but has tests", r.Number, r.Name, r.Status)
		case r.Status == interop.Refused && r.Note == "":
			t.Errorf("row %d (%s) does not say why it is refused", r.Number, r.Name)
		}
		if strings.ContainsAny(r.Name+r.Proves+r.Note, "|\n") {
			t.Errorf("row %d holds characters that break the printed table", r.Number)
		}
		for _, test := range r.Tests {
			if !slices.Contains(registered[test], r.Number) {
				t.Errorf("row %d lists %s, which does not exist or registers for %v", r.Number, test, registered[test])
			}
		}
	}
	for test, numbers := range registered {
		for _, n := range numbers {
			i := slices.IndexFunc(interop.Rows(), func(r interop.Row) bool { return r.Number == n })
			if i < 0 || !slices.Contains(interop.Rows()[i].Tests, test) {
				t.Errorf("%s registers for row %d, which does not list it", test, n)
			}
		}
	}
	if *update {
		if err := os.WriteFile("MATRIX.md", []byte(interop.Markdown()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	printed, err := os.ReadFile("MATRIX.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(printed) != interop.Markdown() {
		t.Error("MATRIX.md is not what the table prints: run this test with -update")
	}
}

// registrations finds the calls of interop.Shows in the test functions below a folder: row numbers by "folder.Test".
func registrations(t *testing.T, root string) map[string][]int {
	t.Helper()
	found := map[string][]int{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		folder, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Test") {
				continue
			}
			name := filepath.ToSlash(folder) + "." + f.Name.Name
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok || !named(call.Fun, "Shows") && !named(call.Fun, "shows") {
					return true
				}
				for _, a := range call.Args {
					if l, ok := a.(*ast.BasicLit); ok && l.Kind == token.INT {
						row, err := strconv.Atoi(l.Value)
						if err != nil {
							t.Errorf("%s: %v", name, err)
						}
						found[name] = append(found[name], row)
					}
				}
				return true
			})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// named reports whether the called function is interop.Shows, or a folder's own short form of it.
func named(called ast.Expr, name string) bool {
	switch f := called.(type) {
	case *ast.SelectorExpr:
		return f.Sel.Name == name
	case *ast.Ident:
		return f.Name == name
	}
	return false
}
