package ldif

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/directory"
)

const bankFile = "../../e2e/bank/bank.ldif"

func readBank(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile(bankFile)
	if err != nil {
		t.Fatalf("read the Bank: %v", err)
	}
	return b
}

func entry(dn string, pairs ...string) directory.Entry {
	e := directory.Entry{DN: dn}
	for i := 0; i < len(pairs); i += 2 {
		e.Attributes = add(e.Attributes, pairs[i], pairs[i+1])
	}
	return e
}

func TestParse(t *testing.T) {
	for name, tc := range map[string]struct {
		in   string
		want []Record
	}{
		"nothing":           {"", nil},
		"only a version":    {"version: 1\n", nil},
		"only comments":     {"# a\n#b\n\n", nil},
		"one":               {"dn: dc=x\nobjectClass: domain\n", []Record{{1, entry("dc=x", "objectClass", "domain")}}},
		"CR LF and version": {"version: 1\r\n\r\ndn: dc=x\r\ndc: x\r\n\r\n", []Record{{3, entry("dc=x", "dc", "x")}}},
		"continuation":      {"dn: dc=\n  x\ndescription: a\n  b\n c\n", []Record{{1, entry("dc= x", "description", "a bc")}}},
		"folded comment":    {"# a comment\n dn: of two lines\ndn: dc=x\ndc: x\n", []Record{{3, entry("dc=x", "dc", "x")}}},
		"comment in record": {"dn: dc=x\n# why\ndc: x\n", []Record{{1, entry("dc=x", "dc", "x")}}},
		"base64":            {"dn:: ZGM9eA==\ncn:: ICBhCg==\n", []Record{{1, entry("dc=x", "cn", "  a\n")}}},
		"folded base64":     {"dn: dc=x\ncn:: ICB\n hCg==\n", []Record{{1, entry("dc=x", "cn", "  a\n")}}},
		"empty value":       {"dn: dc=x\nmember:\ncn:  a\n", []Record{{1, entry("dc=x", "member", "", "cn", "a")}}},
		"several values":    {"dn: dc=x\ncn: a\nCN: b\ncn;lang-de: c\n", []Record{{1, entry("dc=x", "cn", "a", "cn", "b", "cn;lang-de", "c")}}},
		"two, wide apart":   {"dn: dc=x\ndc: x\n\n\n\ndn: dc=y\ndc: y\n", []Record{{1, entry("dc=x", "dc", "x")}, {6, entry("dc=y", "dc", "y")}}},
		"plain UTF-8":       {"dn: ou=Zürich\nou: Zürich\n", []Record{{1, entry("ou=Zürich", "ou", "Zürich")}}},
		"colons in a value": {"dn: dc=x\ncn: a:b::c\n", []Record{{1, entry("dc=x", "cn", "a:b::c")}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse("f.ldif", []byte(tc.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("records (-want +got):\n%s", diff)
			}
		})
	}
}

// TestParseAdditions reads what ldifde of Windows writes: content, marked as additions.
func TestParseAdditions(t *testing.T) {
	got, err := Parse("export.ldf", []byte("dn: dc=x\nchangetype: add\nobjectClass: domain\n"))
	if want := []Record{{Line: 1, Entry: entry("dc=x", "objectClass", "domain")}}; err != nil || !cmp.Equal(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if _, err := Parse("export.ldf", []byte("dn: dc=x\nobjectClass: domain\nchangetype: add\n")); !errors.Is(err, ErrUnsupported) {
		t.Errorf("an addition in the middle of a record: %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		in   string
		line int
		kind error
		text string
	}{
		"cut in a line":     {"dn: dc=x\ndc: x", 2, ErrSyntax, "cut off"},
		"cut in a fold":     {"dn: dc=x\ndc: x\n ", 3, ErrSyntax, "cut off"},
		"cut after the dn":  {"\ndn: dc=x\n", 2, ErrSyntax, "no attribute"},
		"no dn":             {"cn: a\n", 1, ErrSyntax, "starts with"},
		"ldapsearch result": {"dn: dc=x\ndc: x\n\nsearch: 2\nresult: 0 Success\n", 4, ErrSyntax, "-LLL"},
		"second dn":         {"dn: dc=x\ndc: x\ndn: dc=y\n", 3, ErrSyntax, "empty line"},
		"change record":     {"dn: dc=x\nchangetype: delete\n", 2, ErrUnsupported, "change record"},
		"control":           {"dn: dc=x\ncontrol: 1.2.3 true\nchangetype: add\n", 2, ErrUnsupported, "change record"},
		"URL":               {"dn: dc=x\njpegPhoto:< file:///etc/shadow\n", 2, ErrUnsupported, "URL"},
		"URL as dn":         {"dn:< file:///x\n", 1, ErrUnsupported, "URL"},
		"no colon":          {"dn: dc=x\nnonsense\n", 2, ErrSyntax, "is expected"},
		"bad name":          {"dn: dc=x\nc n: a\n", 2, ErrSyntax, "not an attribute name"},
		"no name":           {"dn: dc=x\n: a\n", 2, ErrSyntax, "not an attribute name"},
		"bad base64":        {"dn: dc=x\ncn:: ***\n", 2, ErrSyntax, "base64"},
		"loose base64":      {"dn: dc=x\ncn:: YR==\n", 2, ErrSyntax, "base64"},
		"version 2":         {"version: 2\ndn: dc=x\ndc: x\n", 1, ErrSyntax, "version"},
		"late version":      {"dn: dc=x\ndc: x\n\nversion: 1\n", 4, ErrSyntax, "starts with"},
		"leading space":     {" dn: dc=x\n", 1, ErrSyntax, "continues"},
		"space after empty": {"dn: dc=x\ndc: x\n\n dn: dc=y\n", 3, ErrSyntax, "which is empty"},
		"NUL":               {"dn: dc=x\ndc: x\x00\n", 2, ErrSyntax, "base64"},
		"lone CR":           {"dn: dc=x\rdc: x\n", 1, ErrSyntax, "base64"},
		"Latin-1":           {"dn: dc=x\ndc: x\nou: Z\xfcrich\n", 3, ErrSyntax, "UTF-8"},
		"UTF-16":            {"\xff\xfed\x00n\x00", 1, ErrSyntax, "UTF-8"},
		"byte order mark":   {"\xef\xbb\xbfdn: dc=x\ndc: x\n", 1, ErrSyntax, "byte order mark"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse("f.ldif", []byte(tc.in))
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || !errors.Is(err, tc.kind) || got != nil {
				t.Fatalf("Parse = %v, %v; want %v and no record", got, err, tc.kind)
			}
			if syntax.File != "f.ldif" || syntax.Line != tc.line || !strings.Contains(syntax.Reason, tc.text) {
				t.Errorf("error %q; want line %d and %q", err, tc.line, tc.text)
			}
		})
	}
}

// TestNoStrictPrefixParsesInsideARecord: cut anywhere but between two records, the file is refused or holds a record
// less, never a shortened value.
func TestNoStrictPrefixParsesInsideARecord(t *testing.T) {
	data := readBank(t)
	all, err := Parse("bank.ldif", data)
	if err != nil {
		t.Fatal(err)
	}
	for n := range data {
		got, err := Parse("bank.ldif", data[:n])
		if data[max(n-1, 0)] != '\n' && n > 0 && err == nil {
			t.Fatalf("the first %d bytes end inside a line and were read", n)
		}
		for i, r := range got {
			for _, a := range r.Entry.Attributes {
				for j, v := range a.Values {
					if v != all[i].Entry.Values(a.Name)[j] {
						t.Fatalf("the first %d bytes hold %s: %q", n, a.Name, v)
					}
				}
			}
		}
	}
}

func TestRoundTrip(t *testing.T) {
	name := rapid.StringMatching(`[a-z][a-z0-9-]{0,10}(;[a-z]{1,4})?`).Filter(func(s string) bool {
		return s != "dn" && s != "control" && s != "changetype"
	})
	value := rapid.OneOf(rapid.String(), rapid.StringMatching(`[ :<a-z\n\r]{0,200}`), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
	rapid.Check(t, func(t *rapid.T) {
		var file []byte
		var want []directory.Entry
		for range rapid.IntRange(0, 4).Draw(t, "records") {
			e := directory.Entry{DN: value.Draw(t, "dn")}
			for range rapid.IntRange(1, 5).Draw(t, "values") {
				e.Attributes = add(e.Attributes, name.Draw(t, "name"), value.Draw(t, "value"))
			}
			want = append(want, e)
			file = Append(file, e)
		}
		records, err := Parse("f", file)
		if err != nil {
			t.Fatalf("%v in\n%s", err, file)
		}
		var got []directory.Entry
		for _, r := range records {
			got = append(got, r.Entry)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("entries (-want +got):\n%s", diff)
		}
	})
}

func FuzzLDIF(f *testing.F) {
	f.Add(readBank(f))
	f.Add([]byte("version: 1\r\ndn:: ZGM9eA==\r\ncn;lang-de: a\r\n  b\r\n"))
	// As slapcat writes an entry.
	f.Add([]byte("dn: cn=sql1,OU=SecureServers,dc=bank,dc=example\nobjectClass: device\nobjectClass: computer\ncn: sql1\nstructuralObjectClass: device\n" +
		"entryUUID: 6ba7b810-9dad-11d1-80b4-00c04fd430c8\ncreatorsName: cn=admin,dc=bank,dc=example\nentryCSN: 20261121010101.000000Z#000000#000#000000\n\n"))
	f.Add([]byte("dn: dc=x\nchangetype: modify\nreplace: cn\ncn:< file:///x\n-\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		records, err := Parse("f", data)
		if err != nil {
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || syntax.Line < 1 || syntax.Line > 1+bytes.Count(data, []byte("\n")) {
				t.Fatalf("error %v names no line of the file", err)
			}
			return
		}
		var out []byte
		for _, r := range records {
			out = Append(out, r.Entry)
		}
		again, err := Parse("f", out)
		if err != nil {
			t.Fatalf("%v in %q", err, out)
		}
		for i := range records {
			if diff := cmp.Diff(records[i].Entry, again[i].Entry); diff != "" {
				t.Fatalf("record %d (-parsed +written and parsed):\n%s", i, diff)
			}
		}
		_, _ = Snapshot("f", data, Options{})
	})
}
