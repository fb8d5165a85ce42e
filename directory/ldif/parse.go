package ldif

import (
	"encoding/base64"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/bailiwick-net/bailiwick/directory"
)

// A Record is one entry and the line that it starts in.
type Record struct {
	Line  int // from 1
	Entry directory.Entry
}

// Parse reads a file of content records. The file name is only for errors, which are *SyntaxError. Beyond RFC 2849 it
// accepts UTF-8 in values that are not base64, as every tool does. Parse retains data's text, not data.
func Parse(file string, data []byte) ([]Record, error) {
	if !utf8.Valid(data) {
		return nil, invalidUTF8(file, data)
	}
	p := parser{file: file, rest: string(data)}
	return p.records()
}

func invalidUTF8(file string, data []byte) error {
	line := 1
	for len(data) > 0 {
		r, n := utf8.DecodeRune(data)
		if r == utf8.RuneError && n <= 1 {
			break
		}
		if r == '\n' {
			line++
		}
		data = data[n:]
	}
	return &SyntaxError{File: file, Line: line, Reason: "not UTF-8: other values are written in base64, after \"::\"", Kind: ErrSyntax}
}

// parser walks over the lines; line is the number of the logical line last returned.
type parser struct {
	file string
	rest string
	next int // number of physical lines consumed
	line int
}

func (p *parser) fail(kind error, format string, args ...any) error {
	return &SyntaxError{File: p.file, Line: p.line, Reason: fmt.Sprintf(format, args...), Kind: kind}
}

// physical takes one line off, without its separator (RFC 2849: LF or CR LF).
func (p *parser) physical() (string, error) {
	end := strings.IndexByte(p.rest, '\n')
	p.next++
	if end < 0 {
		p.line = p.next
		return "", p.fail(ErrSyntax, "the last line does not end: the file was cut off, or lacks its final newline")
	}
	s := strings.TrimSuffix(p.rest[:end], "\r")
	p.rest = p.rest[end+1:]
	return s, nil
}

// logical takes one line with its continuations; comments are skipped. At the end of the file ok is false.
func (p *parser) logical() (s string, ok bool, err error) {
	for p.rest != "" {
		p.line = p.next + 1
		s, err := p.physical()
		if err != nil {
			return "", false, err
		}
		if strings.HasPrefix(p.rest, " ") {
			if s == "" {
				return "", false, p.fail(ErrSyntax, "the next line continues this one, which is empty")
			}
			if s, err = p.unfold(s); err != nil {
				return "", false, err
			}
		}
		if strings.HasPrefix(s, "#") {
			continue
		}
		if i := strings.IndexAny(s, "\x00\r"); i >= 0 {
			return "", false, p.fail(ErrSyntax, "%q in a line: write the value in base64, after \"::\"", s[i:i+1])
		}
		return s, true, nil
	}
	p.line = p.next
	return "", false, nil
}

func (p *parser) unfold(s string) (string, error) {
	b := []byte(s)
	for strings.HasPrefix(p.rest, " ") {
		more, err := p.physical()
		if err != nil {
			return "", err
		}
		b = append(b, more[1:]...)
	}
	return string(b), nil
}

func (p *parser) records() ([]Record, error) {
	if strings.HasPrefix(p.rest, "\ufeff") {
		p.line = 1
		return nil, p.fail(ErrSyntax, "the file starts with a byte order mark: save it as plain UTF-8")
	}
	var records []Record
	for first := true; ; first = false {
		s, ok, err := p.skipEmpty()
		if err != nil || !ok {
			return records, err
		}
		if first {
			if name, _, _ := strings.Cut(s, ":"); strings.EqualFold(name, "version") {
				if err := p.version(s); err != nil {
					return nil, err
				}
				if s, ok, err = p.skipEmpty(); err != nil || !ok {
					return nil, err
				}
			}
		}
		r, err := p.record(s)
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
}

func (p *parser) skipEmpty() (s string, ok bool, err error) {
	for {
		s, ok, err = p.logical()
		if s != "" || !ok {
			return s, ok, err
		}
	}
}

func (p *parser) version(s string) error {
	_, v, err := p.attribute(s)
	if err != nil {
		return err
	}
	if v != "1" {
		return p.fail(ErrSyntax, "version %q: RFC 2849 defines version 1 only", shorten(v))
	}
	return nil
}

func (p *parser) record(s string) (Record, error) {
	r := Record{Line: p.line}
	name, value, err := p.attribute(s)
	if err != nil {
		return r, err
	}
	if !strings.EqualFold(name, "dn") {
		return r, p.fail(ErrSyntax, "a record starts with \"dn:\", not with %q (ldapsearch writes plain LDIF with -LLL)", shorten(name))
	}
	r.Entry.DN = value
	for {
		s, ok, err := p.logical()
		if err != nil {
			return r, err
		}
		if !ok || s == "" {
			if len(r.Entry.Attributes) == 0 {
				return r, p.fail(ErrSyntax, "record %q has no attribute", shorten(r.Entry.DN))
			}
			return r, nil
		}
		name, value, err := p.attribute(s)
		if err != nil {
			return r, err
		}
		switch strings.ToLower(name) {
		case "dn":
			return r, p.fail(ErrSyntax, "a second \"dn:\" in record %q: an empty line separates records", shorten(r.Entry.DN))
		case "changetype", "control":
			if strings.EqualFold(name, "changetype") && value == "add" && len(r.Entry.Attributes) == 0 {
				continue // ldifde of Windows marks what it exports so; its content is that of a content record (RFC 2849)
			}
			return r, p.fail(ErrUnsupported, "record %q is a change record (%q): a directory file holds content records only", shorten(r.Entry.DN), name)
		}
		r.Entry.Attributes = add(r.Entry.Attributes, name, value)
	}
}

func add(attributes []directory.Attribute, name, value string) []directory.Attribute {
	for i := range attributes {
		if strings.EqualFold(attributes[i].Name, name) {
			attributes[i].Values = append(attributes[i].Values, value)
			return attributes
		}
	}
	return append(attributes, directory.Attribute{Name: name, Values: []string{value}})
}

// attribute splits "name: value", "name:: base64" and refuses "name:< url".
func (p *parser) attribute(s string) (name, value string, err error) {
	if s[0] == ' ' {
		return "", "", p.fail(ErrSyntax, "a line that starts with a space continues the one before it, and there is none")
	}
	name, value, ok := strings.Cut(s, ":")
	if !ok {
		return "", "", p.fail(ErrSyntax, "\"attribute: value\" is expected, not %q", shorten(s))
	}
	if !validDescription(name) {
		return "", "", p.fail(ErrSyntax, "%q is not an attribute name", shorten(name))
	}
	switch {
	case strings.HasPrefix(value, "<"):
		// Following it would let whoever writes the file read any file or host as the controller.
		return "", "", p.fail(ErrUnsupported, "attribute %s gives its value by URL, which is refused: write the value itself", name)
	case strings.HasPrefix(value, ":"):
		value = strings.TrimLeft(value[1:], " ")
		b, err := base64.StdEncoding.Strict().DecodeString(value)
		if err != nil {
			return "", "", p.fail(ErrSyntax, "the value of %s is not base64: %v", name, err)
		}
		return name, string(b), nil
	}
	return name, strings.TrimLeft(value, " "), nil
}

// validDescription checks an AttributeDescription (RFC 4512 2.5): a type and options, separated by semicolons.
func validDescription(s string) bool {
	for i, part := range strings.Split(s, ";") {
		if part == "" {
			return false
		}
		for j := 0; j < len(part); j++ {
			c := part[j]
			switch {
			case 'a' <= c|0x20 && c|0x20 <= 'z', '0' <= c && c <= '9', c == '-' && j > 0, c == '.' && i == 0 && j > 0:
			default:
				return false
			}
		}
	}
	return true
}

func shorten(s string) string {
	const limit = 120
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "..."
}
