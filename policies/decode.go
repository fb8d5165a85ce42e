package policies

import (
	"bytes"
	"cmp"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits of a file. The parser is recursive and knows none.
const (
	MaxFileSize    = 4 << 20 // octets
	maxLineLength  = 4096    // octets
	maxFlowNesting = 32      // brackets
	maxIndent      = 64      // columns, and dashes in front of a value
)

// Decode reads the documents of one file, which name is used for in errors. If anything is wrong with any of them, it
// returns none and a *DecodeError that holds all of it. It does not look at references between documents: that is
// Validate's.
func Decode(name string, data []byte) (Documents, error) {
	r := &reader{file: name}
	if at, message := scan(data); message != "" {
		at.File = name
		r.report(at, "%s", message)
		return Documents{}, &DecodeError{r.problems}
	}
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	r.lines = strings.Split(string(data), "\n")
	var out Documents
	for _, tokens := range split(lexer.Tokenize(string(data))) {
		file, err := parser.Parse(tokens, 0)
		if err != nil {
			r.syntax(err)
			break
		}
		for _, doc := range file.Docs {
			if doc.Body == nil || doc.Body.Type() == ast.NullType || doc.Body.Type() == ast.CommentType {
				continue
			}
			if d := r.document(doc.Body); d != nil {
				out.Add(d)
			}
		}
	}
	if len(r.problems) > 0 {
		slices.SortStableFunc(r.problems, func(a, b Problem) int {
			return cmp.Or(cmp.Compare(a.At.Line, b.At.Line), cmp.Compare(a.At.Column, b.At.Column))
		})
		return Documents{}, &DecodeError{r.problems}
	}
	return out, nil
}

// split cuts the tokens of a file into those of its documents, leaving out documents without content. The parser is not
// left to do it: at a separator that follows another one, or comments after one, it takes the file to be over, and what
// stands below is lost without an error. Tokens keep their places in the file.
func split(tokens token.Tokens) []token.Tokens {
	var pieces []token.Tokens
	var piece token.Tokens
	content, directive := false, false
	end := func() {
		if content {
			pieces = append(pieces, piece)
		}
		piece, content, directive = nil, false, false
	}
	for _, t := range tokens {
		switch t.Type {
		case token.DocumentHeaderType:
			// The separator belongs to the document that it begins, and so do directives above it (YAML 1.2.2, 9.1.2).
			if !directive {
				end()
			}
			directive = false
		case token.DirectiveType:
			content, directive = true, true
		case token.CommentType, token.DocumentEndType:
		default:
			content = true
		}
		piece = append(piece, t)
		if t.Type == token.DocumentEndType {
			end()
		}
	}
	end()
	return pieces
}

// scan checks what the parser must not see. It returns the message of the first problem.
func scan(data []byte) (Position, string) {
	if len(data) > MaxFileSize {
		return Position{}, "the file is larger than 4 MiB; split it"
	}
	if !utf8.Valid(data) {
		return Position{}, "the file is not UTF-8"
	}
	depth := 0
	for n, line := range bytes.Split(data, []byte("\n")) {
		at := Position{Line: n + 1, Column: 1}
		if len(line) > maxLineLength {
			return at, "the line is longer than 4096 octets"
		}
		if len(line)-len(bytes.TrimLeft(line, " -?:\t")) > maxIndent {
			return at, "the line is nested too deeply"
		}
		if bytes.HasPrefix(line, []byte("---")) {
			depth = 0
		}
		for _, c := range line {
			switch c {
			case '[', '{':
				depth++
			case ']', '}':
				depth = max(0, depth-1)
			case 0:
				return at, "the line contains a NUL octet"
			}
		}
		if depth > maxFlowNesting {
			return at, "brackets are nested too deeply"
		}
	}
	return Position{}, ""
}

// syntax reports the error of the YAML parser.
func (r *reader) syntax(err error) {
	at, message := Position{File: r.file}, err.Error()
	if e, ok := errors.AsType[yaml.Error](err); ok {
		at, message = r.place(e.GetToken()), e.GetMessage()
	}
	r.report(at, "not YAML: %s", message)
}

// document reads one document; nil if it is of no known kind.
func (r *reader) document(n ast.Node) Document {
	kind, ok := r.kind(n)
	if !ok {
		return nil
	}
	switch kind {
	case KindPolicy:
		return r.policy(n)
	case KindFilterList:
		return r.filterList(n)
	case KindFilterAction:
		return r.filterAction(n)
	case KindLink:
		return r.link(n)
	case KindContainer:
		return r.container(n)
	case KindSite:
		return r.site(n)
	case KindSettings:
		return r.settings(n)
	case KindPolicyTest:
		return r.policyTest(n)
	}
	return nil
}

// kind reads what must be known before the fields of the document are.
func (r *reader) kind(n ast.Node) (Kind, bool) {
	m := mapping{r: r, what: "the document", at: r.position(n), fields: map[string]field{}}
	entries, ok := entriesOf(n)
	if !ok {
		r.report(m.at, "the document is %s, not a mapping of fields", describe(n))
		return "", false
	}
	for _, e := range entries {
		if key, ok := e.Key.(*ast.StringNode); ok && !m.has(key.Value) {
			m.fields[key.Value] = field{at: r.position(e.Key), value: e.Value}
		}
	}
	m.required("apiVersion", "kind")
	if version, ok := m.text("apiVersion"); ok && version != APIVersion {
		m.report("apiVersion", "is %q; this version reads %s. Where a newer version wrote the document, upgrade the controller before applying it, else correct the field",
			printable(version), APIVersion)
		return "", false
	}
	kind, ok := m.text("kind")
	if ok && !slices.Contains(Kinds(), Kind(kind)) {
		names := make([]string, 0, len(Kinds()))
		for _, k := range Kinds() {
			names = append(names, string(k))
		}
		m.report("kind", "is %q; known are %s", printable(kind), strings.Join(names, ", "))
		return "", false
	}
	return Kind(kind), ok && m.has("apiVersion")
}
