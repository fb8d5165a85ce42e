package policies

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
)

// ErrRename is wrapped when a name stands in a text in a form that cannot be replaced.
var ErrRename = errors.New("cannot be renamed")

// Renames reports whether documents of a kind have names of their own.
func (k Kind) Renames() bool {
	o := objects[k]
	return o != nil && slices.Contains(o.names(), "name")
}

// Rename replaces the name of a document of a kind, and every reference to it, in a text that Decode accepts, and leaves
// all else as it is, comments and spelling included. It reports whether the text had the name.
func Rename(text []byte, kind Kind, from, to string) ([]byte, bool, error) {
	if err := checkName(to); err != nil {
		return nil, false, fmt.Errorf("the name %q %w", printable(to), err)
	}
	places, err := namesIn(text, kind, from)
	if err != nil || len(places) == 0 {
		return text, false, err
	}
	lines := strings.Split(string(text), "\n")
	slices.SortFunc(places, func(a, b Position) int { // from the end, so that places stay true
		return cmp.Or(cmp.Compare(b.Line, a.Line), cmp.Compare(b.Column, a.Column))
	})
	for _, at := range places {
		line := []rune(lines[at.Line-1])
		rest := string(line[min(at.Column-1, len(line)):])
		n, ok := scalarLength(rest, from)
		if !ok {
			return nil, false, fmt.Errorf("%q in line %d is written over several lines: %w; edit and apply the document", printable(from), at.Line, ErrRename)
		}
		lines[at.Line-1] = string(line[:at.Column-1]) + quoted(to) + rest[n:]
	}
	out := []byte(strings.Join(lines, "\n"))
	// Whatever the text was, it must now say the same with the other name.
	left, err := namesIn(out, kind, from)
	if err != nil {
		return nil, false, err
	}
	now, err := namesIn(out, kind, to)
	if err == nil {
		_, err = Decode("renamed document", out)
	}
	if err != nil {
		return nil, false, fmt.Errorf("%q as %q: %w; edit and apply the document: %w", printable(from), printable(to), ErrRename, err)
	}
	if len(left) > 0 && from != to || len(now) < len(places) {
		return nil, false, fmt.Errorf("%q as %q: %w; edit and apply the document", printable(from), printable(to), ErrRename)
	}
	return out, true, nil
}

// scalarLength is how many octets of a line the scalar takes that begins it.
func scalarLength(rest, value string) (int, bool) {
	switch {
	case strings.HasPrefix(rest, `"`):
		for i := 1; i < len(rest); i++ {
			switch rest[i] {
			case '\\':
				i++
			case '"':
				return i + 1, true
			}
		}
		return 0, false
	case strings.HasPrefix(rest, "'"):
		for i := 1; i < len(rest); i++ {
			if rest[i] == '\'' {
				if i+1 < len(rest) && rest[i+1] == '\'' {
					i++
					continue
				}
				return i + 1, true
			}
		}
		return 0, false
	}
	return len(value), strings.HasPrefix(rest, value)
}

// namesIn finds where the name of a document of a kind stands as a value: as its own, and where the tables of the language
// say that a field refers to one.
func namesIn(text []byte, kind Kind, name string) ([]Position, error) {
	if at, message := scan(text); message != "" {
		return nil, fmt.Errorf("%s: %s: %w", at, message, ErrDocument)
	}
	r := &reader{}
	var out []Position
	for _, tokens := range split(lexer.Tokenize(string(text))) {
		file, err := parser.Parse(tokens, 0)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDocument, err)
		}
		for _, doc := range file.Docs {
			entries, _ := entriesOf(doc.Body)
			for _, e := range entries {
				if key, value := entry(e); key == "kind" {
					if o := objects[Kind(value)]; o != nil {
						out = r.names(out, doc.Body, o, kind, name)
					}
				}
			}
		}
	}
	return out, nil
}

func (r *reader) names(out []Position, n ast.Node, o *object, kind Kind, name string) []Position {
	entries, _ := entriesOf(n)
	for _, e := range entries {
		key, value := entry(e)
		i := slices.IndexFunc(o.fields, func(f fieldRow) bool { return f.name == key })
		if i < 0 {
			continue
		}
		f := o.fields[i]
		if value == name && (f.kind.refers == kind || key == "name" && isDocument(o) && Kind(o.name) == kind) {
			out = append(out, r.position(e.Value))
		}
		if f.kind.of == nil {
			continue
		}
		if list, ok := e.Value.(*ast.SequenceNode); ok {
			for _, element := range list.Values {
				out = r.names(out, element, f.kind.of, kind, name)
			}
			continue
		}
		out = r.names(out, e.Value, f.kind.of, kind, name)
	}
	return out
}

// entry is a field and its value where that is a text.
func entry(e *ast.MappingValueNode) (key, value string) {
	if k, ok := e.Key.(*ast.StringNode); ok {
		key = k.Value
	}
	switch v := e.Value.(type) {
	case *ast.StringNode:
		value = v.Value
	case *ast.LiteralNode:
		value = v.Value.Value
	}
	return key, value
}
