package policies_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
)

// The wrong documents of testdata/errors each stand beside the whole text that an administrator sees.
func TestErrorTexts(t *testing.T) {
	files, err := filepath.Glob("testdata/errors/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("found %d files: %v", len(files), err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			d, err := policies.Decode(name, data)
			if !errors.Is(err, policies.ErrDocument) || len(d.All()) != 0 {
				t.Fatalf("got %d documents and error %v", len(d.All()), err)
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".txt"
			if os.Getenv("UPDATE") != "" {
				if err := os.WriteFile(golden, []byte(err.Error()+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, readErr := os.ReadFile(golden)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if err.Error()+"\n" != string(want) {
				t.Errorf("got\n%s\nwant\n%s", err, want)
			}
		})
	}
}

func TestDecodeRefusesBytes(t *testing.T) {
	for name, data := range map[string][]byte{
		"the file is not UTF-8":                   []byte("a: \xff\n"),
		"the file is larger than 4 MiB; split it": make([]byte, policies.MaxFileSize+1),
		"the line is longer than 4096 octets":     []byte("a: " + strings.Repeat("x", 5000)),
		"the line is nested too deeply":           []byte(strings.Repeat("- ", 200) + "a"),
		"brackets are nested too deeply":          []byte(strings.Repeat("[\n", 200)),
		"the line contains a NUL octet":           []byte("a: \x00"),
	} {
		_, err := policies.Decode("f", data)
		if !errors.Is(err, policies.ErrDocument) || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %s", err, name)
		}
	}
}

func TestDecodeNothing(t *testing.T) {
	for _, text := range []string{"", "\n", "# only a comment\n", "---\n", "---\n---\n"} {
		d, err := policies.Decode("f", []byte(text))
		if err != nil || len(d.All()) != 0 {
			t.Errorf("%q: got %d documents, %v", text, len(d.All()), err)
		}
	}
}

// block is a document of four lines.
func block(name string) string {
	return "apiVersion: bailiwick.net/v1alpha1\nkind: FilterAction\nname: " + name + "\naction: block\n"
}

// betweenDocuments is what may stand between two documents, or before the first, without being one.
var betweenDocuments = map[string]string{
	"a separator":                   "---\n",
	"two separators":                "---\n---\n",
	"four separators":               "---\n---\n---\n---\n",
	"empty lines":                   "---\n\n\n---\n",
	"separators with trailing room": "---  \n---\t\n",
	"a comment":                     "---\n# licence\n---\n",
	"comments at the separators":    "--- # one\n--- # two\n",
	"null":                          "---\nnull\n---\n",
	"null at the separator":         "--- null\n---\n",
	"an end":                        "...\n",
	"an end and a separator":        "...\n---\n",
	"an ended empty document":       "---\n...\n---\n",
	"two ends":                      "...\n...\n---\n---\n",
	"windows line endings":          "---\r\n# licence\r\n---\r\n",
}

// Every document is read at its place, whatever stands before it, between them and after them.
func TestEmptyDocumentsHideNothing(t *testing.T) {
	for name, between := range betweenDocuments {
		t.Run(name, func(t *testing.T) {
			parts := []string{between, block("a"), between, block("b"), between, block("c"), between}
			d, err := policies.Decode("f", []byte(strings.Join(parts, "")))
			if err != nil {
				t.Fatal(err)
			}
			var got, want []string
			for _, doc := range d.All() {
				got = append(got, doc.Metadata().Name+" at "+doc.Metadata().At.String())
			}
			line := 1
			for i, part := range parts {
				if i%2 == 1 {
					want = append(want, fmt.Sprintf("%c at f:%d:1", 'a'+i/2, line))
				}
				line += strings.Count(part, "\n")
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("documents (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMistakesBehindEmptyDocuments(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"field":     {block("a") + "---\n---\n" + block("b") + "inpas: true\n", "f:11:1: unknown field"},
		"value":     {block("a") + "---\n# none\n---\n" + block("b") + "inpass: perhaps\n", "f:12:9: "},
		"no fields": {block("a") + "---\n---\n- text\n", "f:7:1: the document is "},
		"syntax":    {block("a") + "---\n---\na: [\n", "f:7:4: not YAML: "},
		"directive": {block("a") + "---\n---\n...\n%YAML 1.2\n---\n" + block("b"), "f:8:1: "},
		"no header": {block("a") + "...\n%YAML 1.2\n", "f:6:1: "},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := policies.Decode("f", []byte(test.text))
			if err == nil || len(d.All()) != 0 || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got %d documents and %v, want an error that begins with %q", len(d.All()), err, test.want)
			}
		})
	}
}

func TestProblemsHaveTheirPlace(t *testing.T) {
	_, err := policies.Decode("site.yaml", []byte("apiVersion: bailiwick.net/v1alpha1\r\nkind: FilterAction\r\nname: A\r\naction: permit\r\ninpas: true\r\n"))
	var decode *policies.DecodeError
	if !errors.As(err, &decode) || len(decode.Problems) != 1 {
		t.Fatalf("got %v", err)
	}
	p := decode.Problems[0]
	if want := (policies.Position{File: "site.yaml", Line: 5, Column: 1}); p.At != want {
		t.Errorf("got %s, want %s", p.At, want)
	}
	if want := `site.yaml:5:1: unknown field "inpas" in FilterAction; did you mean "inpass"?`; p.String() != want {
		t.Errorf("got %s, want %s", p, want)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(predefined.Text())
	for _, between := range betweenDocuments {
		f.Add([]byte(between + block("a") + between + block("b")))
	}
	for _, pattern := range []string{"testdata/errors/*.yaml", "testdata/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := policies.Decode("f", data)
		if err != nil {
			if !errors.Is(err, policies.ErrDocument) || len(d.All()) != 0 {
				t.Fatalf("%d documents beside %v", len(d.All()), err)
			}
			return
		}
		again, err := policies.Decode("f", d.Export())
		if err != nil {
			t.Fatalf("the export does not decode: %v\n%s", err, d.Export())
		}
		if diff := compare(d, again); diff != "" {
			t.Fatalf("the export is another document:\n%s", diff)
		}
		policies.Validate(d)
	})
}
