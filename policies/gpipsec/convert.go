package gpipsec

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
)

// ErrUnknown says that the entries do not tell what applies to which machine.
var ErrUnknown = errors.New("what Group Policy assigns cannot be told")

// ErrNothing says that the entries hold no IPsec policy.
var ErrNothing = errors.New("no IPsec policy")

// Note tells what a document cannot say, or says otherwise than Windows did.
type Note struct {
	// Document is kind and key of the document that it is about, as `Policy "Server"`; empty for all of them.
	Document string
	Message  string
}

// String prints the note in one line.
func (n Note) String() string {
	if n.Document == "" {
		return n.Message
	}
	return n.Document + ": " + n.Message
}

// Secret is a preshared key that was in the directory and is in no document.
type Secret struct {
	Name string   // as the documents name it
	Used []string // the rules, as "policy/rule"
}

// Options say how documents are made.
type Options struct {
	// Prefix is put before the name of every policy, filter list and filter action, so that they do not replace those of
	// the same name.
	Prefix string
	// Native says that the documents are assignments as Windows would make them, nobody looking at the notes: the error wraps
	// ErrUnknown where it cannot be told what applies to which machine.
	Native bool
}

// Result is what the entries say.
type Result struct {
	Documents policies.Documents
	Notes     []Note
	Secrets   []Secret
}

// Convert makes documents of the objects among entries; entries of other kinds are passed over. The documents pass
// policies.Validate without an error. The error wraps ErrNothing or ErrUnknown.
func Convert(entries []directory.Entry, o Options) (Result, error) {
	c := newConverter(o)
	c.sort(entries)
	if len(c.policies) == 0 {
		return Result{}, fmt.Errorf("%w among %d entries: it would be an object of class ipsecPolicy below CN=IP Security,CN=System", ErrNothing, len(entries))
	}
	for _, p := range sorted(c.policies) {
		c.policy(p)
	}
	for _, set := range []struct {
		objects map[string]object
		used    func(key string) bool
		kind    policies.Kind
	}{
		{c.filters, func(k string) bool { _, ok := c.lists[k]; return ok }, policies.KindFilterList},
		{c.negotiations, func(k string) bool { _, ok := c.actions[k]; return ok }, policies.KindFilterAction},
	} {
		for _, o := range sorted(set.objects) {
			if !set.used(o.dn.Key()) && o.name != "" {
				c.unused(set.kind, o)
			}
		}
	}
	c.makeSites()
	c.links()
	if len(c.unknown) > 0 {
		return Result{}, fmt.Errorf("%w: %w", ErrUnknown, errors.Join(c.unknown...))
	}
	return c.result, nil
}

func newConverter(o Options) *converter {
	return &converter{
		options: o, lists: map[string]policies.FilterList{}, actions: map[string]policies.FilterAction{}, names: map[string]bool{},
		policyNames: map[string]string{}, siteNames: map[string]directory.DN{}, noted: map[Note]bool{},
		unreadable: map[string]bool{}, gaps: map[string][]error{},
	}
}

// unused keeps what no rule uses: the library of lists and actions is worth having.
func (c *converter) unused(kind policies.Kind, o object) {
	if kind == policies.KindFilterList {
		c.filterList(o)
		return
	}
	c.filterAction(o)
}

type converter struct {
	objects
	options Options
	result  Result
	lists   map[string]policies.FilterList   // by the DN of the filter
	actions map[string]policies.FilterAction // by the DN of the negotiation policy
	// names are those that are taken, with their kind before them.
	names       map[string]bool
	policyNames map[string]string       // of policies by DN
	siteNames   map[string]directory.DN // what links name a site by, by its DN
	// unknown is what makes native assignment impossible.
	unknown []error
	// unreadable are the filter lists that cannot be read, by DN; gaps is what makes a policy protect less than it says, by the
	// DN of the policy.
	unreadable map[string]bool
	gaps       map[string][]error
	// unfiltered says that there is a link of whose GPO the access rights are not known.
	unfiltered bool
	keys       []keyName
	noted      map[Note]bool
}

type keyName struct {
	key  Key
	name string
}

// note adds a note about a document once.
func (c *converter) note(document, format string, args ...any) {
	n := Note{document, fmt.Sprintf(format, args...)}
	if !c.noted[n] {
		c.noted[n] = true
		c.result.Notes = append(c.result.Notes, n)
	}
}

// named names a document for a note.
func named(kind policies.Kind, name string) string { return fmt.Sprintf("%s %q", kind, name) }

// unique returns the name, or one with a number behind it if another document of the kind has it.
func (c *converter) unique(kind policies.Kind, name string) string {
	return uniqueIn(c.names, string(kind)+"\x00", name)
}

func uniqueIn(taken map[string]bool, scope, name string) string {
	for n := 1; ; n++ {
		candidate := name
		if n > 1 {
			suffix := fmt.Sprintf(" (%d)", n)
			candidate = shorten(name, maxName-len(suffix)) + suffix
		}
		if key := scope + strings.ToLower(candidate); !taken[key] {
			taken[key] = true
			return candidate
		}
	}
}

// title makes the name of a document of the object's own, or of otherwise without one.
func (c *converter) title(kind policies.Kind, o object, otherwise string) string {
	name := o.name
	if name == "" {
		name = otherwise
	}
	name = cleanName(c.options.Prefix + name)
	if kind == policies.KindPolicy && strings.EqualFold(name, policies.NoneName) {
		name += " (Windows)"
	}
	return c.unique(kind, name)
}

// Limits of names and descriptions in documents, in characters.
const (
	maxName        = 200 // documents take 255: room for numbers
	maxDescription = 4096
)

func shorten(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return strings.TrimSpace(string([]rune(s)[:most]))
}

// cleanName makes a text fit for a name: printable, without space around it, and not too long.
func cleanName(s string) string {
	return shorten(strings.Join(strings.Fields(printable(s)), " "), maxName)
}

func cleanDescription(s string) string {
	return shorten(strings.TrimSpace(printable(s)), maxDescription)
}

// printable replaces what documents do not take in texts.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}

// YAML writes the documents with the notes about each as comments above it.
func (r Result) YAML() []byte {
	var out []byte
	for _, n := range r.Notes {
		if n.Document == "" {
			out = appendComment(out, n.Message)
		}
	}
	for i, d := range r.Documents.All() {
		if i > 0 {
			out = append(out, "---\n"...)
		}
		out = r.AppendDocument(out, d)
	}
	return out
}

// AppendDocument writes one document with the notes about it as comments above it.
func (r Result) AppendDocument(dst []byte, d policies.Document) []byte {
	for _, n := range r.Notes {
		if n.Document == named(d.Kind(), d.Key()) {
			dst = appendComment(dst, n.Message)
		}
	}
	return policies.AppendYAML(dst, d)
}

// appendComment breaks the text into lines.
func appendComment(dst []byte, text string) []byte {
	line := "#"
	for _, word := range strings.Fields(printable(text)) {
		if len(line)+1+len(word) > 110 && line != "#" {
			dst = append(append(dst, line...), '\n')
			line = "#  "
		}
		line += " " + word
	}
	return append(append(dst, line...), '\n')
}

// secret returns the name under which documents refer to the key.
func (c *converter) secret(key Key, policy, rule string) string {
	used := policy + "/" + rule
	if i := slices.IndexFunc(c.keys, func(k keyName) bool { return k.key.Equal(key) }); i >= 0 {
		s := &c.result.Secrets[i]
		if !slices.Contains(s.Used, used) {
			s.Used = append(s.Used, used)
		}
		return s.Name
	}
	name := uniqueIn(c.names, "secret\x00", slug(policy+" "+rule))
	name = strings.NewReplacer(" (", "-", ")", "").Replace(name)
	c.keys = append(c.keys, keyName{key, name})
	c.result.Secrets = append(c.result.Secrets, Secret{Name: name, Used: []string{used}})
	return name
}

// slug makes a name that can be that of a file.
func slug(s string) string {
	words := strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') })
	text := strings.Join(words, "-")
	if text == "" {
		text = "windows"
	}
	return strings.Trim(text[:min(len(text), 60)], "-")
}
