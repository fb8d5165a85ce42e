package policies

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// reader collects the problems of one file.
type reader struct {
	file     string
	lines    []string
	problems []Problem
}

// maxProblems bounds how many problems of one file are told.
const maxProblems = 100

func (r *reader) report(at Position, format string, args ...any) {
	if len(r.problems) < maxProblems {
		r.problems = append(r.problems, Problem{At: at, Message: fmt.Sprintf(format, args...), Excerpt: r.excerpt(at)})
	}
}

// excerpt shows the line with the one before it, and marks the column.
func (r *reader) excerpt(at Position) string {
	if at.Line < 1 || at.Line > len(r.lines) {
		return ""
	}
	var b strings.Builder
	for n := max(1, at.Line-1); n <= at.Line; n++ {
		mark := " "
		if n == at.Line {
			mark = ">"
		}
		line := []rune(inlineSecret.ReplaceAllString(r.lines[n-1], "$1 [redacted]"))
		fmt.Fprintf(&b, "%s %4d | %s\n", mark, n, strings.ReplaceAll(string(line[:min(len(line), 160)]), "\t", " "))
	}
	if at.Column >= 1 && at.Column <= 160 {
		fmt.Fprintf(&b, "       | %s^\n", strings.Repeat(" ", at.Column-1))
	}
	return b.String()
}

func (r *reader) place(t *token.Token) Position {
	if t == nil || t.Position == nil {
		return Position{File: r.file}
	}
	return Position{File: r.file, Line: t.Position.Line, Column: t.Position.Column}
}

// position is where a node begins; that of a mapping is its first key, not its first colon.
func (r *reader) position(n ast.Node) Position {
	switch v := n.(type) {
	case *ast.MappingNode:
		if !v.IsFlowStyle && len(v.Values) > 0 {
			return r.position(v.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return r.position(v.Key)
	case nil:
		return Position{File: r.file}
	}
	return r.place(n.GetToken())
}

// entriesOf lists the fields of a mapping, and tells whether the node is one.
func entriesOf(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch v := n.(type) {
	case *ast.MappingNode:
		return v.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{v}, true
	}
	return nil, false
}

// field is one entry of a mapping.
type field struct {
	at    Position
	value ast.Node
}

// mapping is a node whose fields are read by name.
type mapping struct {
	r      *reader
	what   string
	at     Position
	fields map[string]field
}

// mapping reads a node as a mapping of the fields of an object. A field that is unknown, stands twice or is missing is
// reported; the others can still be read.
func (r *reader) mapping(n ast.Node, o *object) (mapping, bool) {
	what, known := o.name, o.names()
	if isDocument(o) {
		known = append([]string{"apiVersion", "kind"}, known...)
	}
	m := mapping{r: r, what: what, at: r.position(n), fields: map[string]field{}}
	entries, ok := entriesOf(n)
	if !ok {
		r.report(m.at, "%s is %s, not a mapping of fields", what, describe(n))
		return m, false
	}
	for _, e := range entries {
		at := r.position(e.Key)
		key, ok := e.Key.(*ast.StringNode)
		if !ok {
			r.report(at, "a field name of %s is %s, not plain text", what, describe(e.Key))
			continue
		}
		if _, again := m.fields[key.Value]; again {
			r.report(at, "field %q of %s stands twice", key.Value, what)
			continue
		}
		if !slices.Contains(known, key.Value) {
			r.report(at, "%s", unknownField(key.Value, what, known))
			continue
		}
		m.fields[key.Value] = field{at: at, value: e.Value}
	}
	m.required(o.requiredNames()...)
	return m, true
}

// inlineSecrets are the names under which somebody may try to write a key into a document.
var inlineSecrets = []string{"psk", "key", "secret", "presharedkey", "password", "passphrase", "sharedsecret"}

// inlineSecret finds what somebody wrote behind one of those names: an error must not repeat it.
var inlineSecret = regexp.MustCompile(`(?i)(\b(?:` + strings.Join(inlineSecrets, "|") + `)["']?\s*:).*`)

func unknownField(name, what string, known []string) string {
	text := fmt.Sprintf("unknown field %q in %s", printable(name), what)
	if slices.Contains(inlineSecrets, strings.ToLower(name)) {
		return text + "; a key never stands in a document: store it as a secret and name it with secretRef"
	}
	if near := nearest(name, known); near != "" {
		return text + fmt.Sprintf("; did you mean %q?", near)
	}
	return text + "; known are " + strings.Join(known, ", ") + ". Nothing is skipped: a field of a newer version needs a newer controller"
}

// nearest finds the name that somebody probably meant, if one is close.
func nearest(name string, known []string) string {
	best, distance := "", 3
	for _, k := range known {
		if d := editDistance(strings.ToLower(name), strings.ToLower(k)); d < distance {
			best, distance = k, d
		}
	}
	return best
}

func editDistance(a, b string) int {
	if len(a) > 40 || len(b) > 40 {
		return 40
	}
	previous := make([]int, len(b)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := range len(a) {
		current := make([]int, len(b)+1)
		current[0] = i + 1
		for j := range len(b) {
			substitution := previous[j]
			if a[i] != b[j] {
				substitution++
			}
			current[j+1] = min(previous[j+1]+1, current[j]+1, substitution)
		}
		previous = current
	}
	return previous[len(b)]
}

// describe says what a node is, for somebody who expected something else.
func describe(n ast.Node) string {
	switch v := n.(type) {
	case nil, *ast.NullNode:
		return "empty"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode:
		return fmt.Sprintf("the text %q", printable(v.Value))
	case *ast.LiteralNode:
		return "a block of text"
	case *ast.BoolNode:
		return fmt.Sprintf("the truth value %t", v.Value)
	case *ast.IntegerNode, *ast.FloatNode:
		return "the number " + printable(n.GetToken().Value)
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		return "an anchor or alias, which documents do not use"
	case *ast.TagNode:
		return "tagged, which documents do not use"
	}
	return "of an unknown form"
}

// printable shortens a text that comes from a file for use in a message.
func printable(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if utf8.RuneCountInString(s) > 60 {
		return string([]rune(s)[:60]) + "..."
	}
	return s
}

func (m mapping) has(name string) bool { _, ok := m.fields[name]; return ok }

// where is the place of a field, or of the mapping if the field is missing.
func (m mapping) where(name string) Position {
	f, ok := m.fields[name]
	if !ok {
		return m.at
	}
	if f.value == nil || f.value.Type() == ast.NullType {
		return f.at
	}
	return m.r.position(f.value)
}

// report reports a problem with the value of a field.
func (m mapping) report(name, format string, args ...any) {
	m.r.report(m.where(name), "field %q of %s %s", name, m.what, fmt.Sprintf(format, args...))
}

// text reads a field of text; numbers count as text where it is allowed to leave the quotes away.
func (m mapping) text(name string) (string, bool) {
	f, ok := m.fields[name]
	if !ok {
		return "", false
	}
	switch v := f.value.(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.LiteralNode:
		return v.Value.Value, true
	case *ast.NullNode:
		m.report(name, "is empty; leave it away instead")
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		m.report(name, "is %s, not text; write it in quotes", describe(f.value))
	default:
		m.report(name, "is %s, not text", describe(f.value))
	}
	return "", false
}

// scalar reads a field that may be written as text or as a whole number.
func (m mapping) scalar(name string) (string, bool) {
	if n, ok := m.fields[name].value.(*ast.IntegerNode); ok {
		return n.Token.Value, true
	}
	return m.text(name)
}

// flag reads a field of true or false.
func (m mapping) flag(name string, otherwise bool) bool {
	f, ok := m.fields[name]
	if !ok {
		return otherwise
	}
	b, ok := f.value.(*ast.BoolNode)
	if !ok {
		m.report(name, "is %s; write true or false", describe(f.value))
		return otherwise
	}
	return b.Value
}

// list reads a field that is a list and calls each with its elements.
func (m mapping) list(name string, each func(n ast.Node)) {
	f, ok := m.fields[name]
	if !ok {
		return
	}
	s, ok := f.value.(*ast.SequenceNode)
	if !ok {
		m.report(name, "is %s, not a list", describe(f.value))
		return
	}
	for _, n := range s.Values {
		each(n)
	}
}

// required reports a field that is missing.
func (m mapping) required(names ...string) {
	for _, name := range names {
		if !m.has(name) {
			m.r.report(m.at, "%s has no field %q", m.what, name)
		}
	}
}
