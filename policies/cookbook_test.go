package policies_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/ldif"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/gpipsec"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

const cookbook = "COOKBOOK.md"

// recipe is one section of the cookbook: its documents, and the rows of its tables.
type recipe struct {
	title     string
	documents []byte
	rows      [][]string // machine's policy, its address, packet, verdict, rule
}

// recipes takes the cookbook apart. Every fence of YAML counts, and every table with the head of packets.
func recipes(t *testing.T) []recipe {
	t.Helper()
	text, err := os.ReadFile(cookbook)
	if err != nil {
		t.Fatal(err)
	}
	var out []recipe
	fence, table := "", false
	for n, line := range strings.Split(string(text), "\n") {
		switch {
		case fence == "" && strings.HasPrefix(line, "## "):
			out = append(out, recipe{title: strings.TrimPrefix(line, "## ")})
		case fence == "" && strings.HasPrefix(line, "```"):
			if fence = line; len(line) == 3 {
				t.Fatalf("line %d: a fence without a language", n+1)
			}
			if fence == "```yaml" && len(out) > 0 && len(out[len(out)-1].documents) > 0 {
				last := &out[len(out)-1]
				last.documents = append(last.documents, "---\n"...)
			}
		case line == "```":
			fence = ""
		case fence == "```yaml" && len(out) > 0:
			last := &out[len(out)-1]
			last.documents = append(append(last.documents, line...), '\n')
		case fence != "":
		case strings.HasPrefix(line, "| Policy | At | Packet | Verdict | Rule |"):
			table = true
		case table && strings.HasPrefix(line, "|---"):
		case table && strings.HasPrefix(line, "|"):
			var cells []string
			for _, cell := range strings.Split(strings.Trim(line, "|"), "|") {
				cells = append(cells, strings.Trim(strings.TrimSpace(cell), "`"))
			}
			if len(cells) != 5 {
				t.Fatalf("line %d: %d cells, want 5", n+1, len(cells))
			}
			out[len(out)-1].rows = append(out[len(out)-1].rows, cells)
		default:
			table = false
		}
	}
	return out
}

// decode reads the documents of a recipe, with the predefined ones that it does not have beneath them.
func (r recipe) decode(t *testing.T) policies.Documents {
	t.Helper()
	docs, err := policies.Decode(cookbook, r.documents)
	if err != nil {
		t.Fatalf("%v\n%s", err, r.documents)
	}
	for _, d := range predefined.Documents().All() {
		if !slices.ContainsFunc(docs.All(), func(o policies.Document) bool { return o.Kind() == d.Kind() && o.Key() == d.Key() }) {
			docs.Add(d)
		}
	}
	if err := policies.Check(policies.Validate(docs)); err != nil {
		t.Fatal(err)
	}
	return docs
}

// TestCookbook decodes and validates the documents of every recipe, expands the policies for the machines of its tables,
// and asks them what they say of each packet.
func TestCookbook(t *testing.T) {
	all := recipes(t)
	if len(all) < 7 {
		t.Fatalf("%d recipes, want 7 or more", len(all))
	}
	for _, r := range all {
		t.Run(r.title, func(t *testing.T) {
			if len(r.documents) == 0 || len(r.rows) == 0 {
				t.Fatalf("%d octets of documents and %d packets: a recipe has both", len(r.documents), len(r.rows))
			}
			docs := r.decode(t)
			for _, row := range r.rows {
				verdict, rule := ask(t, docs, row)
				t.Logf("%-32s %-11s %-52s %-10s %s", row[0], row[1], row[2], verdict, rule)
				if verdict != row[3] || rule != row[4] {
					t.Errorf("under %q at %s, %s: %s by %q, the cookbook says %s by %q", row[0], row[1], row[2], verdict, rule, row[3], row[4])
				}
			}
		})
	}
}

// packetForm is how the tables write packets: "out tcp 10.0.0.1:40000 -> 10.0.0.2:6667", or without ports.
var packetForm = regexp.MustCompile(`^(in|out) ([a-z0-9]+) ([0-9.]+)(?::([0-9]+))? -> ([0-9.]+)(?::([0-9]+))?$`)

func ask(t *testing.T, docs policies.Documents, row []string) (verdict, rule string) {
	t.Helper()
	p, err := docs.Effective(row[0])
	if err != nil {
		t.Fatal(err)
	}
	facts := spd.Facts{
		Addresses: []netip.Addr{netip.MustParseAddr(row[1])}, DNSServers: []netip.Addr{netip.MustParseAddr("10.0.0.53")},
		Names: map[string][]netip.Addr{},
	}
	for _, r := range p.Rules {
		for _, f := range r.Filters {
			for _, a := range []spd.Address{f.Source, f.Destination} {
				if a.Kind == spd.AddressName {
					facts.Names[a.Name] = []netip.Addr{netip.MustParseAddr("10.0.0.20")}
				}
			}
		}
	}
	set, err := spd.Expand(p, facts)
	if err != nil {
		t.Fatal(err)
	}
	m := packetForm.FindStringSubmatch(row[2])
	if m == nil {
		t.Fatalf("%q is no packet", row[2])
	}
	direction := map[string]spd.Direction{"in": spd.In, "out": spd.Out}[m[1]]
	protocol, ok := map[string]uint8{"tcp": spd.ProtocolTCP, "udp": spd.ProtocolUDP, "icmp": spd.ProtocolICMP}[m[2]]
	if !ok {
		t.Fatalf("%q is no protocol", m[2])
	}
	port := func(s string) uint16 {
		n, _ := strconv.ParseUint(s, 10, 16)
		return uint16(n)
	}
	match := set.Lookup(direction, spd.Packet{
		Source: netip.MustParseAddr(m[3]), SourcePort: port(m[4]), Destination: netip.MustParseAddr(m[5]), DestinationPort: port(m[6]), Protocol: protocol,
	})
	rule = "-"
	switch {
	case match.Exempt != "":
		rule = "exempt: " + match.Exempt
	case match.Rule != nil:
		rule = match.Rule.Name
	}
	verdict = match.Action.String()
	if match.Rule != nil && match.Rule.Tunnel.IsValid() {
		verdict += " to " + match.Rule.Tunnel.String()
	}
	return verdict, rule
}

// TestCookbookImport holds the documents of the recipe about Windows to what the import of a real domain gives.
func TestCookbookImport(t *testing.T) {
	const file = "gpipsec/testdata/samba.ldif"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	records, err := ldif.Parse(file, data)
	if err != nil {
		t.Fatal(err)
	}
	var entries []directory.Entry
	for _, r := range records {
		entries = append(entries, r.Entry)
	}
	imported, err := gpipsec.Convert(entries, gpipsec.Options{Prefix: "Windows "})
	if err != nil {
		t.Fatal(err)
	}
	all := recipes(t)
	i := slices.IndexFunc(all, func(r recipe) bool { return strings.Contains(r.title, "Windows") })
	if i < 0 {
		t.Fatal("no recipe about Windows")
	}
	docs, err := policies.Decode(cookbook, all[i].documents)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, d := range docs.All() {
		for _, o := range imported.Documents.All() {
			if d.Kind() == o.Kind() && d.Key() == o.Key() {
				found++
				if got, want := policies.AppendYAML(nil, d), policies.AppendYAML(nil, o); !bytes.Equal(got, want) {
					t.Errorf("%s: the cookbook has\n%s\nthe import gives\n%s", fmt.Sprint(d.Kind(), " ", d.Key()), got, want)
				}
			}
		}
	}
	if found < 4 {
		t.Errorf("%d documents of the import are in the cookbook, want a policy with what it uses", found)
	}
}
