package directory

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// dnParser reads RFC 4514 section 3 left to right; pos is the offset of the next byte.
type dnParser struct {
	in  string
	pos int
}

func (p *dnParser) fail(at int, format string, args ...any) error {
	return &SyntaxError{What: "distinguished name", Input: shorten(p.in), Offset: at, Reason: fmt.Sprintf(format, args...)}
}

func (p *dnParser) parse() ([]RDN, error) {
	if len(p.in) > MaxDNLength {
		return nil, p.fail(MaxDNLength, "longer than %d bytes", MaxDNLength)
	}
	if !utf8.ValidString(p.in) {
		return nil, p.fail(0, "not UTF-8")
	}
	if p.in == "" {
		return nil, nil
	}
	rdns := make([]RDN, 0, 1+strings.Count(p.in, ","))
	var rdn RDN
	for {
		ava, err := p.ava()
		if err != nil {
			return nil, err
		}
		rdn = append(rdn, ava)
		if p.pos < len(p.in) && p.in[p.pos] == '+' {
			p.pos++
			continue
		}
		rdns = append(rdns, rdn)
		rdn = nil
		if p.pos == len(p.in) {
			return rdns, nil
		}
		p.pos++ // value stops at nothing but "+", "," and the end
	}
}

func (p *dnParser) ava() (AVA, error) {
	rest := p.in[p.pos:]
	n := attributeTypeLength(rest)
	switch {
	case n == 0 && strings.HasPrefix(rest, " "):
		return AVA{}, p.fail(p.pos, "space before an attribute type; RFC 4514 has none around separators")
	case n == 0:
		return AVA{}, p.fail(p.pos, "an attribute type such as OU, DC or CN is expected")
	case n == len(rest) || rest[n] != '=':
		return AVA{}, p.fail(p.pos+n, "\"=\" is expected after attribute type %q", shorten(rest[:n]))
	}
	p.pos += n + 1
	a := AVA{Type: rest[:n]}
	var err error
	if strings.HasPrefix(p.in[p.pos:], "#") {
		a.Hex = true
		a.Value, err = p.hexString()
	} else {
		a.Value, err = p.value()
	}
	return a, err
}

// attributeTypeLength returns the length of the descr or numericoid (RFC 4512 1.4) that s starts with, 0 for none.
func attributeTypeLength(s string) int {
	if s == "" {
		return 0
	}
	if isAlpha(s[0]) {
		n := 1
		for n < len(s) && (isAlpha(s[n]) || isDigit(s[n]) || s[n] == '-') {
			n++
		}
		return n
	}
	n, dots := 0, 0
	for {
		start := n
		for n < len(s) && isDigit(s[n]) {
			n++
		}
		if n == start || n-start > 1 && s[start] == '0' {
			return 0
		}
		if n == len(s) || s[n] != '.' {
			break
		}
		n++
		dots++
	}
	if dots == 0 {
		return 0
	}
	return n
}

func (p *dnParser) hexString() (string, error) {
	start := p.pos
	p.pos++
	digits := p.pos
	for p.pos < len(p.in) && p.in[p.pos] != ',' && p.in[p.pos] != '+' {
		if unhex(p.in[p.pos]) < 0 {
			return "", p.fail(p.pos, "a value that starts with \"#\" holds hex digits only; write \"\\#\" for a literal one")
		}
		p.pos++
	}
	if n := p.pos - digits; n == 0 || n%2 != 0 {
		return "", p.fail(start, "a value that starts with \"#\" holds whole octets of two hex digits")
	}
	return strings.ToLower(p.in[start:p.pos]), nil
}

func (p *dnParser) value() (string, error) {
	start := p.pos
	plain := true // no escape seen: the value is a slice of the input
	var b []byte
	trailing := -1 // offset of an unescaped space that ends the value
	for p.pos < len(p.in) {
		c := p.in[p.pos]
		if c == ',' || c == '+' {
			break
		}
		trailing = -1
		switch c {
		case '"', ';', '<', '>', 0:
			return "", p.fail(p.pos, "%q has to be escaped as %q", string(c), fmt.Sprintf(`\%02x`, c))
		case ' ':
			if p.pos == start {
				return "", p.fail(p.pos, "space at the start of a value has to be escaped")
			}
			trailing = p.pos
		case '\\':
			if plain {
				plain = false
				b = append(b, p.in[start:p.pos]...)
			}
			e, n := unescape(p.in[p.pos:])
			if n == 0 {
				return "", p.fail(p.pos, "not an escape: a backslash goes before a special character or two hex digits")
			}
			b = append(b, e)
			p.pos += n
			continue
		}
		if !plain {
			b = append(b, c)
		}
		p.pos++
	}
	if trailing >= 0 {
		return "", p.fail(trailing, "space at the end of a value has to be escaped")
	}
	if plain {
		return p.in[start:p.pos], nil
	}
	if !utf8.Valid(b) {
		return "", p.fail(start, "escaped octets are not UTF-8")
	}
	return string(b), nil
}

// unescape reads the pair rule of RFC 4514 section 3; n is 0 when s does not start with one.
func unescape(s string) (c byte, n int) {
	if len(s) >= 3 && unhex(s[1]) >= 0 && unhex(s[2]) >= 0 {
		return byte(unhex(s[1])<<4 | unhex(s[2])), 3
	}
	if len(s) >= 2 && strings.IndexByte("\\\"+,;<>= #", s[1]) >= 0 {
		return s[1], 2
	}
	return 0, 0
}

func isAlpha(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func unhex(c byte) int {
	switch {
	case isDigit(c):
		return int(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// fold maps every letter to one member of its case orbit: two strings have equal folds exactly when strings.EqualFold
// holds. Lower-case ASCII is returned as it is, without allocation.
func fold(s string) string {
	simple := true
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			simple = false
			break
		}
	}
	if simple {
		return s
	}
	return strings.Map(foldRune, s)
}

func foldRune(r rune) rune {
	if r < utf8.RuneSelf {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}
	least := r
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		least = min(least, f)
	}
	if least < utf8.RuneSelf {
		return foldRune(least) // U+212A KELVIN SIGN folds with "k"
	}
	return least
}

// squeeze removes insignificant space (RFC 4518 2.6.1): at the ends, and all but one between words. A value of nothing
// but spaces stays one space, which an empty value is not.
func squeeze(s string) string {
	if !strings.HasPrefix(s, " ") && !strings.HasSuffix(s, " ") && !strings.Contains(s, "  ") {
		return s
	}
	words := strings.FieldsFunc(s, func(r rune) bool { return r == ' ' })
	if len(words) == 0 {
		return " "
	}
	return strings.Join(words, " ")
}
