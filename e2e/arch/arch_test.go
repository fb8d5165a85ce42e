package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/bailiwick-net/bailiwick"

// pure lists packages without network or file I/O, logging, goroutines, wall clock and system randomness. A trailing
// "/..." covers everything below.
var pure = []string{
	"directory", "directory/descriptor", "directory/guard", "directory/ldap/contentsync", "directory/ldap/replication",
	"policies", "policies/predefined", "policies/preshared", "policies/proposal", "policies/resolve", "policies/spd/...", "policies/compile", "policies/analyze", "policies/plan", "policies/gpipsec", "policies/foreign",
	"pki", "pki/certlint", "pki/enroll", "pki/expiry", "pki/journal", "pki/revocation", "pki/slots", "pki/trust",
	"node/sa", "node/ike", "node/ike/wire", "node/ike/suite", "node/ike/ikev2", "node/ike/engine", "node/ike/impair",
	"node/packet", "node/esp/...",
}

// layers says what a package may import of this module: the first row that covers the importer decides. Imports inside
// the same row's subtree are always allowed.
var layers = []struct {
	importer string
	allowed  []string
}{
	{"e2e/leak/judge", nil}, // it shares no code with what it judges
	{"e2e/leak/proof", nil},
	{"e2e/leak/wiretap", []string{"e2e/leak/judge"}},
	{"e2e/...", []string{"..."}},
	{"cmd/bailiwick", []string{"proto/...", "policies/...", "directory/...", "pki/...", "e2e/lab/...", "e2e/bank", "controller/controllertest"}},
	{"cmd/bailiwick-controller", []string{"controller"}},
	{"cmd/bailiwick-node", []string{"node/..."}},
	{"controller/...", []string{"controller/...", "proto/...", "policies/...", "directory/...", "pki/..."}},
	{"node/sa", []string{"policies/proposal", "policies/spd"}},
	{"node/packet", []string{"policies/spd"}},
	{"node/ike/...", []string{"node/ike/...", "node/vectortest", "node/sa", "policies/proposal", "policies/spd", "pki/..."}},
	{"node/esp/aesgcm", []string{"node/vectortest"}},
	{"node/esp", []string{"node/esp/aesgcm", "node/vectortest", "node/sa", "node/packet", "policies/proposal", "policies/spd"}},
	{"node/datapath/...", []string{"node/datapath/...", "node/sa", "node/ike", "node/packet", "node/esp/...", "node/tun/...", "node/transport", "policies/proposal", "policies/spd", "e2e/lab", "e2e/lab/labtest"}},
	{"node/facts", []string{"policies/spd", "e2e/lab/labtest"}},
	{"node/...", []string{"node/...", "proto/...", "policies/...", "pki/..."}},
	{"policies/...", []string{"policies/...", "directory", "directory/descriptor", "proto/bailiwick/policy/..."}},
	{"directory/...", []string{"directory/...", "e2e/lab/..."}},
	{"pki/...", []string{"pki/..."}},
	{"proto/...", []string{"proto/..."}},
}

// forbidden says which binaries must not link which modules, and why.
var forbidden = []struct{ binary, dependency, reason string }{
	{"cmd/bailiwick-node", "go.etcd.io/etcd/...", "a node has no use for the controller's store"},
	{"cmd/bailiwick-node", "github.com/go-ldap/...", "only the controller reads the directory"},
	{"cmd/bailiwick-node", module + "/controller/...", "node and controller meet in proto"},
	{"cmd/bailiwick-controller", module + "/node/...", "node and controller meet in proto"},
}

type pkg struct {
	ImportPath  string
	Dir         string
	Name        string
	GoFiles     []string
	TestGoFiles []string
	Imports     []string
	Deps        []string
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Name,GoFiles,TestGoFiles,Imports,Deps"}, args...)...)
	cmd.Dir = root(t)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var pkgs []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatalf("decode go list: %v", err)
		}
		pkgs = append(pkgs, p)
	}
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// covers reports whether pattern, which may end in "/...", covers path.
func covers(pattern, path string) bool {
	if pattern == "..." {
		return true
	}
	if prefix, ok := strings.CutSuffix(pattern, "/..."); ok {
		return path == prefix || strings.HasPrefix(path, prefix+"/")
	}
	return pattern == path
}

func anyCovers(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return covers(p, path) })
}

func relative(importPath string) (string, bool) {
	return strings.CutPrefix(importPath, module+"/")
}

func TestImportsPointDownwards(t *testing.T) {
	for _, p := range list(t, "./...") {
		importer, ok := relative(p.ImportPath)
		if !ok {
			t.Errorf("package %s lies at the top of the module: it needs a room", p.ImportPath)
			continue
		}
		row := slices.IndexFunc(layers, func(l struct {
			importer string
			allowed  []string
		}) bool {
			return covers(l.importer, importer)
		})
		if row < 0 {
			t.Errorf("package %s is in no row of the import table", importer)
			continue
		}
		for _, imp := range p.Imports {
			target, internal := relative(imp)
			if !internal || anyCovers(layers[row].allowed, target) {
				continue
			}
			t.Errorf("%s imports %s, which row %q does not allow", importer, target, layers[row].importer)
		}
	}
}

func TestNobodyButTestsImportsTestRooms(t *testing.T) {
	for _, p := range list(t, "./...") {
		importer, _ := relative(p.ImportPath)
		if strings.HasPrefix(importer, "e2e/") || strings.HasSuffix(importer, "test") || importer == "node/ike/ikesim" || importer == "cmd/bailiwick" {
			continue
		}
		for _, imp := range p.Imports {
			target, _ := relative(imp)
			if strings.HasPrefix(target, "e2e/") || strings.HasSuffix(target, "test") || target == "node/ike/ikesim" {
				t.Errorf("%s imports %s, which is for tests only", importer, target)
			}
		}
	}
}

func TestPurePackagesTouchNothingOutside(t *testing.T) {
	// crypto/x509 speaks of addresses as net.IP; log/slog is needed for secrets that redact themselves.
	except := map[string]string{"pki": "net", "pki/certlint": "net", "pki/trust": "net", "pki/enroll": "net"}
	banned := []string{"os", "os/exec", "net", "net/http", "log", "syscall", "golang.org/x/sys/unix", "github.com/hashicorp/go-hclog"}
	bannedCalls := map[string][]string{
		"time": {"Now", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Since", "Until"},
	}
	for _, p := range list(t, "./...") {
		name, _ := relative(p.ImportPath)
		if !anyCovers(pure, name) || strings.HasSuffix(name, "pb") {
			continue
		}
		for _, imp := range p.Imports {
			if slices.Contains(banned, imp) && except[name] != imp {
				t.Errorf("%s is pure but imports %s", name, imp)
			}
		}
		for _, file := range p.GoFiles {
			parsed, fset := parse(t, filepath.Join(p.Dir, file))
			ast.Inspect(parsed, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					t.Errorf("%s: pure package starts a goroutine", fset.Position(n.Pos()))
				case *ast.SelectorExpr:
					if x, ok := n.X.(*ast.Ident); ok && slices.Contains(bannedCalls[x.Name], n.Sel.Name) {
						t.Errorf("%s: pure package uses %s.%s", fset.Position(n.Pos()), x.Name, n.Sel.Name)
					}
				}
				return true
			})
		}
	}
}

func parse(t *testing.T, path string) (*ast.File, *token.FileSet) {
	t.Helper()
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return parsed, fset
}

func TestEveryPackageHasOneComment(t *testing.T) {
	for _, p := range list(t, "./...") {
		name, _ := relative(p.ImportPath)
		if strings.HasPrefix(name, "proto/") {
			continue
		}
		var with []string
		for _, file := range p.GoFiles {
			parsed, _ := parse(t, filepath.Join(p.Dir, file))
			if parsed.Doc == nil {
				continue
			}
			with = append(with, file)
			want := "Package " + p.Name + " "
			if p.Name == "main" {
				want = filepath.Base(name) + " "
			}
			if got := parsed.Doc.Text(); !strings.HasPrefix(got, want) && !strings.HasPrefix(got, "Command "+want) {
				t.Errorf("%s/%s: package comment starts %.30q, want %q", name, file, got, want)
			}
		}
		if len(p.GoFiles) > 0 && len(with) != 1 {
			t.Errorf("%s has %d package comments %v, want exactly one", name, len(with), with)
		}
	}
}

func TestFilesStaySmall(t *testing.T) {
	const hard = 800
	for _, p := range list(t, "./...") {
		for _, file := range append(p.GoFiles, p.TestGoFiles...) {
			if strings.HasSuffix(file, ".pb.go") {
				continue
			}
			content, err := os.ReadFile(filepath.Join(p.Dir, file))
			if err != nil {
				t.Fatal(err)
			}
			if lines := bytes.Count(content, []byte("\n")); lines > hard {
				t.Errorf("%s/%s has %d lines, more than %d", p.Dir, file, lines, hard)
			}
		}
	}
}

func TestBinariesDoNotLink(t *testing.T) {
	for _, f := range forbidden {
		for _, p := range list(t, "./"+f.binary) {
			for _, dep := range p.Deps {
				if covers(f.dependency, dep) {
					t.Errorf("%s links %s: %s", f.binary, dep, f.reason)
				}
			}
		}
	}
}

func TestTopLevelIsFixed(t *testing.T) {
	allowed := strings.Fields("controller node proto directory pki policies charts e2e cmd go.mod go.sum buf.yaml README.md ARCHITECTURE.md LICENSE Makefile .ci .git bin")
	entries, err := os.ReadDir(root(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(allowed, e.Name()) {
			t.Errorf("%s does not belong at the top of the repository", e.Name())
		}
	}
}
