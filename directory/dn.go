package directory

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// MaxDNLength is the longest accepted DN in bytes. Directories stop far below it; a limit keeps hostile input cheap.
const MaxDNLength = 8192

// A DN is a distinguished name (RFC 4514). The zero DN is the empty name, above every other.
//
// A DN keeps the spelling it was read with and compares without regard to case and to insignificant space
// (caseIgnoreMatch, RFC 4517 4.2.11, without the Unicode normalisation of RFC 4518). Use Equal or Key, never ==.
type DN struct {
	text string // canonical escapes, original case
	key  string // the same with types and values folded; separators are its only unescaped commas
}

// An AVA is one attribute type and value of an RDN.
type AVA struct {
	Type  string
	Value string // unescaped; for the "#" form of RFC 4514 2.4 the text "#" with lower-case hex digits
	// Hex says that Value is the "#" form: a BER encoding that is not interpreted.
	Hex bool
}

// An RDN is one level of a DN; nearly always a single AVA.
type RDN []AVA

// ParseDN reads the string form of RFC 4514 section 3, strictly: no space around separators, no quoted values, no
// semicolons. The errors are *SyntaxError.
func ParseDN(s string) (DN, error) {
	p := dnParser{in: s}
	rdns, err := p.parse()
	if err != nil {
		return DN{}, err
	}
	dn := makeDN(rdns)
	if len(dn.text) > MaxDNLength {
		return DN{}, p.fail(MaxDNLength, "longer than %d bytes when control characters are escaped", MaxDNLength)
	}
	return dn, nil
}

// MustParseDN is ParseDN for names written in source code; it panics on a malformed one.
func MustParseDN(s string) DN {
	dn, err := ParseDN(s)
	if err != nil {
		panic(err)
	}
	return dn
}

// Child returns the name of the entry typ=value below d. It is an error when typ is not an attribute type or the
// result would exceed MaxDNLength.
func (d DN) Child(typ, value string) (DN, error) {
	if n := attributeTypeLength(typ); n == 0 || n != len(typ) {
		return DN{}, &SyntaxError{What: "distinguished name", Input: shorten(typ), Reason: "not an attribute type"}
	}
	if !utf8.ValidString(value) {
		return DN{}, &SyntaxError{What: "distinguished name", Input: shorten(value), Reason: "value is not UTF-8"}
	}
	c := makeDN([]RDN{{{Type: typ, Value: value}}})
	if len(c.text)+1+len(d.text) > MaxDNLength {
		return DN{}, &SyntaxError{What: "distinguished name", Input: shorten(c.text), Reason: "longer than 8192 bytes"}
	}
	if !d.IsZero() {
		c.text += "," + d.text
		c.key += "," + d.key
	}
	return c, nil
}

// String returns the RFC 4514 form with canonical escapes; ParseDN reads it back to an equal DN.
func (d DN) String() string { return d.text }

// Key returns a form that is equal for equal DNs: a map key, not something to show.
func (d DN) Key() string { return d.key }

// IsZero tells the empty DN.
func (d DN) IsZero() bool { return d.key == "" }

// Equal compares as the directory does.
func (d DN) Equal(o DN) bool { return d.key == o.key }

// Compare orders by Key.
func (d DN) Compare(o DN) int { return strings.Compare(d.key, o.key) }

// Parent returns the name one level up; the parent of a single RDN, and of the empty DN, is the empty DN.
func (d DN) Parent() DN {
	t, k := separator(d.text), separator(d.key)
	if t < 0 || k < 0 {
		return DN{}
	}
	return DN{text: d.text[t+1:], key: d.key[k+1:]}
}

// IsDescendantOf says whether d is strictly below o.
func (d DN) IsDescendantOf(o DN) bool {
	if o.IsZero() {
		return !d.IsZero()
	}
	at := len(d.key) - len(o.key) - 1
	if at < 0 || d.key[at] != ',' || d.key[at+1:] != o.key {
		return false
	}
	// In "cn=a\,dc=x" the comma belongs to the value: an odd number of backslashes before it escapes it.
	n := 0
	for at-n > 0 && d.key[at-n-1] == '\\' {
		n++
	}
	return n%2 == 0
}

// Depth counts the RDNs; 0 for the empty DN.
func (d DN) Depth() int {
	if d.IsZero() {
		return 0
	}
	n := 1
	for k := d.key; ; n++ {
		i := separator(k)
		if i < 0 {
			return n
		}
		k = k[i+1:]
	}
}

// RDN returns the leftmost level, nil for the empty DN.
func (d DN) RDN() RDN {
	if d.IsZero() {
		return nil
	}
	t := d.text
	if i := separator(t); i >= 0 {
		t = t[:i]
	}
	p := dnParser{in: t}
	rdns, err := p.parse()
	if err != nil {
		// d.text was written by makeDN, whose output always parses (FuzzParseDN holds it to that).
		panic(err)
	}
	return rdns[0]
}

// Name returns the value of the leftmost RDN, unescaped: "Servers" for "OU=Servers,DC=bank,DC=example".
func (d DN) Name() string {
	r := d.RDN()
	if r == nil {
		return ""
	}
	return r[0].Value
}

// RDNType returns the folded attribute type of the leftmost RDN ("ou", "dc", "cn"); "" for the empty DN.
func (d DN) RDNType() string {
	typ, _, _ := strings.Cut(d.key, "=")
	return typ
}

// Domain returns the DNS domain that the trailing DC components spell ("bank.example"), "" when there are none.
func (d DN) Domain() string {
	var labels []string
	for ; !d.IsZero(); d = d.Parent() {
		if d.RDNType() == "dc" {
			labels = append(labels, fold(d.Name()))
		} else {
			labels = labels[:0]
		}
	}
	return strings.Join(labels, ".")
}

// MarshalText returns String.
func (d DN) MarshalText() ([]byte, error) { return []byte(d.text), nil }

// UnmarshalText is ParseDN.
func (d *DN) UnmarshalText(text []byte) error {
	dn, err := ParseDN(string(text))
	if err != nil {
		return err
	}
	*d = dn
	return nil
}

// separator finds the first comma that is not escaped, -1 when there is none.
func separator(s string) int {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case ',':
			return i
		}
	}
	return -1
}

// shortTypes maps other spellings of the attribute types of RFC 4514 section 3 to one, so that they compare equal.
var shortTypes = map[string]string{
	"2.5.4.3": "cn", "commonname": "cn",
	"2.5.4.7": "l", "localityname": "l",
	"2.5.4.8": "st", "stateorprovincename": "st",
	"2.5.4.10": "o", "organizationname": "o",
	"2.5.4.11": "ou", "organizationalunitname": "ou",
	"2.5.4.6": "c", "countryname": "c",
	"2.5.4.9": "street", "streetaddress": "street",
	"0.9.2342.19200300.100.1.25": "dc", "domaincomponent": "dc",
	"0.9.2342.19200300.100.1.1": "uid", "userid": "uid",
}

func makeDN(rdns []RDN) DN {
	var textSpace, keySpace [192]byte // enough for nearly all
	text, key := textSpace[:0], keySpace[:0]
	for i, rdn := range rdns {
		if i > 0 {
			text = append(text, ',')
			key = append(key, ',')
		}
		for j, ava := range rdn {
			if j > 0 {
				text = append(text, '+')
			}
			text = append(append(text, ava.Type...), '=')
			text = appendValue(text, ava.Value, ava.Hex)
		}
		if len(rdn) == 1 {
			key = appendKey(key, rdn[0])
			continue
		}
		// The AVAs of an RDN are a set (X.501 9.3): their order says nothing.
		parts := make([]string, len(rdn))
		for j, ava := range rdn {
			parts[j] = string(appendKey(nil, ava))
		}
		slices.Sort(parts)
		key = append(key, strings.Join(parts, "+")...)
	}
	n := len(text)
	both := string(append(text, key...)) // one piece of memory
	return DN{text: both[:n], key: both[n:]}
}

// part returns a text that keeps nothing alive but the name, of which it often is a part.
func (d DN) part(s string) string {
	if i := strings.Index(d.text, s); i >= 0 {
		return d.text[i : i+len(s)]
	}
	return strings.Clone(s)
}

func appendKey(dst []byte, a AVA) []byte {
	typ := fold(a.Type)
	if short, ok := shortTypes[typ]; ok {
		typ = short
	}
	dst = append(append(dst, typ...), '=')
	if a.Hex {
		return append(dst, a.Value...)
	}
	return appendValue(dst, fold(squeeze(a.Value)), false)
}

const hexDigits = "0123456789abcdef"

// appendValue escapes as RFC 4514 2.4 demands, and control characters besides, so that a name never breaks a log line.
func appendValue(dst []byte, v string, hex bool) []byte {
	if hex {
		return append(dst, v...)
	}
	for i := 0; i < len(v); i++ {
		c := v[i]
		switch {
		case c < 0x20 || c == 0x7f:
			dst = append(dst, '\\', hexDigits[c>>4], hexDigits[c&15])
		case strings.IndexByte(`"+,;<>\`, c) >= 0,
			c == ' ' && (i == 0 || i == len(v)-1),
			c == '#' && i == 0:
			dst = append(dst, '\\', c)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}
