package policies

import (
	_ "embed"
	"fmt"
	"regexp"
	"strings"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

//go:embed reference_head.md
var referenceHead string

//go:embed reference_tail.md
var referenceTail string

// Reference returns the language reference as Markdown: what stands in reference_head.md, a section for each kind of
// mapping made from the tables that Decode uses, and reference_tail.md.
func Reference() []byte {
	var b strings.Builder
	b.WriteString(referenceHead)
	for _, o := range allObjects() {
		level := "###"
		if isDocument(o) {
			level = "##"
		}
		fmt.Fprintf(&b, "\n%s %s\n\n%s\n\n| Field | Value | Without it | Meaning |\n|---|---|---|---|\n", level, o.name, o.doc)
		for _, f := range o.fields {
			without := f.otherwise
			switch {
			case f.required:
				without = "**required**"
			case without == "":
				without = "-"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.name, f.kind.text, without, f.doc)
		}
	}
	b.WriteString("\n")
	b.WriteString(strings.NewReplacer("{{protocols}}", quotedWords(protocolNames()), "{{levels}}", levels(), "{{legacy}}", quotedWords(proposal.LegacyNames())).Replace(referenceTail))
	return []byte(b.String())
}

// levels is a table of the offers of each level.
func levels() string {
	text := "| Level | Offers, each for an hour |\n|---|---|\n"
	for _, l := range []proposal.Level{proposal.LevelHigh, proposal.LevelMedium, proposal.LevelLow} {
		var names []string
		for _, o := range l.Offers() {
			names = append(names, o.String())
		}
		text += fmt.Sprintf("| `%s` | %s |\n", l, quotedWords(names))
	}
	return text
}

func quotedWords(words []string) string { return "`" + strings.Join(words, "`, `") + "`" }

var markdownLink = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)

// plain takes the Markdown away.
func plain(s string) string {
	return strings.ReplaceAll(markdownLink.ReplaceAllString(s, "$1"), "`", "")
}

// plainDoc is what an editor shows for the field.
func (f fieldRow) plainDoc() string {
	doc := plain(f.doc)
	if f.otherwise != "" {
		doc += " Default: " + plain(f.otherwise) + "."
	}
	return doc
}
