package resolve

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
)

// world is a directory and its documents, written as lines:
//
//	container OU=A,DC=x [block]
//	machine   CN=m,OU=A,DC=x
//	group     CN=g,DC=x: CN=m,OU=A,DC=x; CN=other,DC=x
//	policy    P
//	link      P 1 OU=A,DC=x [enforced] [disabled] [apply=CN=g,DC=x] [deny=CN=g,DC=x]
//
// DNs contain no spaces. Parents of containers must be listed before them.
func world(t testing.TB, text string) (*directory.Snapshot, policies.Documents) {
	t.Helper()
	var b *directory.Builder
	var d policies.Documents
	serial := 0
	next := func() directory.UUID {
		serial++
		id, err := directory.ParseUUID(fmt.Sprintf("00000000-0000-4000-8000-%012d", serial))
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		switch f[0] {
		case "container":
			dn := directory.MustParseDN(f[1])
			if b == nil {
				b = directory.NewBuilder(dn)
			}
			b.Add(directory.Container{UUID: next(), DN: dn, Kind: directory.KindOf(dn)})
			if len(f) > 2 {
				d.Containers = append(d.Containers, policies.Container{DN: dn, BlockInheritance: f[2] == "block"})
			}
		case "machine":
			dn := directory.MustParseDN(f[1])
			b.Add(directory.Machine{UUID: next(), DN: dn, Name: dn.Name()})
		case "group":
			dn, _ := strings.CutSuffix(f[1], ":")
			g := directory.Group{UUID: next(), DN: directory.MustParseDN(dn)}
			g.Name = g.DN.Name()
			for _, m := range f[2:] {
				g.Members = append(g.Members, directory.MustParseDN(strings.TrimSuffix(m, ";")))
			}
			b.Add(g)
		case "policy":
			d.Policies = append(d.Policies, policies.Policy{Meta: policies.Meta{Name: f[1]}})
		case "link":
			l := policies.Link{Policy: f[1], Container: directory.MustParseDN(f[3])}
			if _, err := fmt.Sscan(f[2], &l.Order); err != nil {
				t.Fatal(err)
			}
			for _, option := range f[4:] {
				name, value, _ := strings.Cut(option, "=")
				switch name {
				case "enforced":
					l.Enforced = true
				case "disabled":
					l.Disabled = true
				case "apply":
					l.Apply = append(l.Apply, directory.MustParseDN(value))
				case "deny":
					l.Deny = append(l.Deny, directory.MustParseDN(value))
				default:
					t.Fatalf("unknown option %q", option)
				}
			}
			d.Links = append(d.Links, l)
		default:
			t.Fatalf("unknown line %q", line)
		}
	}
	s, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return s, d
}

func resolveOne(t testing.TB, s *directory.Snapshot, d policies.Documents, name string) *Outcome {
	t.Helper()
	m, ok := s.MachineByName(name)
	if !ok {
		t.Fatalf("no machine %s", name)
	}
	p := Prepare(d)
	o, err := p.Machine(s, m.UUID)
	if err != nil {
		t.Fatal(err)
	}
	if all, ok := p.All(s).Of(m.UUID); !ok || render(all) != render(o) {
		t.Errorf("resolving every machine gives\n%s\nresolving one gives\n%s", render(all), render(o))
	}
	return o
}

func render(o *Outcome) string {
	var b strings.Builder
	fmt.Fprintf(&b, "policy %s\n", o.Policy)
	for _, e := range o.Entries {
		fmt.Fprintf(&b, "%s at %s: som %d link %d applied %d precedence %d enabled %t nooverride %t: %s: %s\n", e.Policy, e.Container, e.SOMOrder,
			e.LinkOrder, e.AppliedOrder, e.Precedence, e.Enabled, e.NoOverride, e.Reason, e.Sentence)
	}
	return b.String()
}

const tree = `
container DC=x
container OU=A,DC=x
container OU=B,OU=A,DC=x
container CN=Computers,DC=x
machine CN=m,OU=B,OU=A,DC=x
machine CN=top,DC=x
machine CN=plain,CN=Computers,DC=x
group CN=g,DC=x: CN=m,OU=B,OU=A,DC=x
group CN=outer,DC=x: CN=g,DC=x
policy P
policy Q
policy R
`

// The numbers are those of the test vectors for the algorithm; what needs Active Directory (the halves of a Group Policy
// object, sites, client-side extensions) is not among them.
func TestVectors(t *testing.T) {
	rows := []string{fmt.Sprintf("%-52s | %-8s | %-6s | links in the order of precedence", "vector", "machine", "policy")}
	defer func() { t.Logf("\n%s", strings.Join(rows, "\n")) }()
	for _, test := range []struct{ name, machine, links, want string }{
		{"1 domain only", "m", `
			link P 1 DC=x`,
			"P: won: it is the only link that applies"},
		{"a single machine", "m", `
			link P 1 DC=x apply=CN=m,OU=B,OU=A,DC=x`,
			"P: won: it is the only link that applies"},
		{"2 OU overrides domain", "m", `
			link P 1 DC=x
			link Q 1 OU=B,OU=A,DC=x`,
			`Q: won: OU=B,OU=A,DC=x is the nearest container with a link that applies, and no link is enforced
			P: overridden: "Q" is linked at OU=B,OU=A,DC=x, which is nearer to the machine`},
		{"2 the domain still holds elsewhere", "top", `
			link P 1 DC=x
			link Q 1 OU=B,OU=A,DC=x`,
			"P: won: it is the only link that applies"},
		{"3 OU blocks and the domain is not enforced", "m", `
			block OU=B,OU=A,DC=x
			link P 1 DC=x
			link Q 1 OU=A,DC=x`,
			`none
			Q: inheritance-blocked: OU=B,OU=A,DC=x blocks inheritance, and the link is not enforced
			P: inheritance-blocked: OU=B,OU=A,DC=x blocks inheritance, and the link is not enforced`},
		{"3 own links survive the own block", "m", `
			block OU=B,OU=A,DC=x
			link P 1 DC=x
			link Q 1 OU=B,OU=A,DC=x`,
			`Q: won: it is the only link that applies
			P: inheritance-blocked: OU=B,OU=A,DC=x blocks inheritance, and the link is not enforced`},
		{"4 OU blocks, domain enforced survives and wins", "m", `
			block OU=B,OU=A,DC=x
			link P 1 DC=x enforced
			link Q 1 OU=B,OU=A,DC=x`,
			`P: won: it is enforced at DC=x, and no enforced link stands above it
			Q: overridden: "P" is enforced at DC=x, and this link is not enforced`},
		{"5 two enforced, the upper wins", "m", `
			link P 1 DC=x enforced
			link Q 1 OU=B,OU=A,DC=x enforced`,
			`P: won: it is enforced at DC=x, and no enforced link stands above it
			Q: overridden: "P" is enforced at DC=x, which is higher`},
		{"6 disabled link with the enforced bit is ignored", "m", `
			link P 1 DC=x enforced disabled
			link Q 1 OU=A,DC=x`,
			`Q: won: it is the only link that applies
			P: link-disabled: the link is disabled`},
		{"8 not in the group that the link applies to", "top", `
			link P 1 DC=x
			link Q 1 DC=x apply=CN=g,DC=x`,
			`P: won: it is the only link that applies
			Q: not-in-group: the machine is a member of none of the groups that the link applies to`},
		{"8 in the group", "m", `
			link P 2 DC=x
			link Q 1 DC=x apply=CN=g,DC=x`,
			`Q: won: DC=x is the nearest container with a link that applies, and no link is enforced
			P: overridden: "Q" has link order 1 at the same container, before 2`},
		{"8 in the group through another one", "m", `
			link Q 1 DC=x apply=CN=outer,DC=x`,
			"Q: won: it is the only link that applies"},
		{"8 denied by a group, enforced or not", "m", `
			link P 1 DC=x enforced deny=CN=g,DC=x
			link Q 2 DC=x`,
			`Q: won: it is the only link that applies
			P: denied-by-group: the machine is a member of CN=g,DC=x, which the link denies`},
		{"8 deny wins over apply", "m", `
			link P 1 DC=x apply=CN=outer,DC=x deny=CN=g,DC=x`,
			`none
			P: denied-by-group: the machine is a member of CN=g,DC=x, which the link denies`},
		{"10 the winner's policy was deleted: no fall-through", "m", `
			link P 1 DC=x
			link Gone 1 OU=A,DC=x`,
			`error
			Gone: won: OU=A,DC=x is the nearest container with a link that applies, and no link is enforced
			P: overridden: "Gone" is linked at OU=A,DC=x, which is nearer to the machine`},
		{"10 a loser's policy was deleted: no matter", "m", `
			link Gone 1 DC=x
			link P 1 OU=A,DC=x`,
			`P: won: OU=A,DC=x is the nearest container with a link that applies, and no link is enforced
			Gone: overridden: "P" is linked at OU=A,DC=x, which is nearer to the machine`},
		{"11 nested OUs with a block in the middle", "m", `
			block OU=A,DC=x
			link P 1 DC=x
			link Q 1 OU=A,DC=x
			link R 2 DC=x enforced`,
			`R: won: it is enforced at DC=x, and no enforced link stands above it
			Q: overridden: "R" is enforced at DC=x, and this link is not enforced
			P: inheritance-blocked: OU=A,DC=x blocks inheritance, and the link is not enforced`},
		{"13 same container, two links: 1 wins", "m", `
			link P 2 OU=A,DC=x
			link Q 1 OU=A,DC=x`,
			`Q: won: OU=A,DC=x is the nearest container with a link that applies, and no link is enforced
			P: overridden: "Q" has link order 1 at the same container, before 2`},
		{"13 same container, two enforced links: 1 wins", "m", `
			link P 2 OU=A,DC=x enforced
			link Q 1 OU=A,DC=x enforced`,
			`Q: won: it is enforced at OU=A,DC=x, and no enforced link stands above it
			P: overridden: "Q" has link order 1 at the same container, before 2`},
		{"14 a machine in CN=Computers gets the domain's only", "plain", `
			link P 1 DC=x
			link Q 1 CN=Computers,DC=x enforced`,
			`P: won: it is the only link that applies
			Q: not-a-scope: CN=Computers,DC=x is neither an organizational unit nor a domain, so it has no links`},
		{"15 same policy linked twice", "m", `
			link P 1 DC=x enforced
			link P 1 OU=A,DC=x
			link Q 1 OU=B,OU=A,DC=x`,
			`P: won: it is enforced at DC=x, and no enforced link stands above it
			Q: overridden: "P" is enforced at DC=x, and this link is not enforced
			P: overridden: "P" is enforced at DC=x, and this link is not enforced`},
		{"no link at all", "m", "", "none"},
	} {
		t.Run(test.name, func(t *testing.T) {
			text := tree
			for _, line := range strings.Split(strings.TrimSpace(test.links), "\n") {
				if dn, ok := strings.CutPrefix(strings.TrimSpace(line), "block "); ok {
					text = strings.Replace(text, "container "+dn+"\n", "container "+dn+" block\n", 1)
				} else if strings.TrimSpace(line) != "" {
					text += line + "\n"
				}
			}
			s, d := world(t, text)
			o := resolveOne(t, s, d, test.machine)
			var got []string
			switch {
			case o.Err != nil:
				got = append(got, "error")
				if !errors.Is(o.Err, policies.ErrReference) || o.Policy != "" {
					t.Errorf("policy %q, error %v; want none and %v", o.Policy, o.Err, policies.ErrReference)
				}
			case o.Policy == policies.NoneName:
				got = append(got, "none")
			case o.Policy != o.Entries[0].Policy:
				t.Errorf("policy %q, but %q is first", o.Policy, o.Entries[0].Policy)
			}
			for _, e := range o.Entries {
				got = append(got, fmt.Sprintf("%s: %s: %s", e.Policy, e.Reason, e.Sentence))
			}
			row := make([]string, 0, len(o.Entries))
			for _, e := range o.Entries {
				row = append(row, fmt.Sprintf("%s at %s: %s", e.Policy, e.Container, e.Reason))
			}
			rows = append(rows, fmt.Sprintf("%-52s | %-8s | %-6s | %s", test.name, test.machine, o.Policy, strings.Join(row, "; ")))
			var want []string
			for _, line := range strings.Split(test.want, "\n") {
				want = append(want, strings.TrimSpace(line))
			}
			if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
				t.Errorf("got\n%s\nwant\n%s", g, w)
			}
		})
	}
}

func TestResultFields(t *testing.T) {
	s, d := world(t, tree+`
link P 1 DC=x
link Q 2 OU=A,DC=x
link R 1 OU=A,DC=x enforced
link P 1 OU=B,OU=A,DC=x disabled
`)
	const want = `policy R
R at OU=A,DC=x: som 2 link 1 applied 3 precedence 1 enabled true nooverride true: won: it is enforced at OU=A,DC=x, and no enforced link stands above it
Q at OU=A,DC=x: som 2 link 2 applied 2 precedence 2 enabled true nooverride false: overridden: "R" is enforced at OU=A,DC=x, and this link is not enforced
P at DC=x: som 1 link 1 applied 1 precedence 3 enabled true nooverride false: overridden: "R" is enforced at OU=A,DC=x, and this link is not enforced
P at OU=B,OU=A,DC=x: som 3 link 1 applied 0 precedence 0 enabled false nooverride false: link-disabled: the link is disabled
`
	if got := render(resolveOne(t, s, d, "m")); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestMachinesAlikeShareOneOutcome(t *testing.T) {
	s, d := world(t, `
container DC=x
container OU=A,DC=x
container OU=Deep,OU=A,DC=x
container OU=B,DC=x
machine CN=a1,OU=A,DC=x
machine CN=a2,OU=A,DC=x
machine CN=a3,OU=Deep,OU=A,DC=x
machine CN=a4,OU=A,DC=x
machine CN=b1,OU=B,DC=x
group CN=g,DC=x: CN=a4,OU=A,DC=x
policy P
link P 1 OU=A,DC=x apply=CN=g,DC=x
`)
	all := Prepare(d).All(s)
	of := func(name string) *Outcome {
		m, _ := s.MachineByName(name)
		o, ok := all.Of(m.UUID)
		if !ok {
			t.Fatalf("no outcome for %s", name)
		}
		return o
	}
	if of("a1") != of("a2") || of("a1") != of("a3") {
		t.Error("machines of one container and the same groups do not share their outcome")
	}
	if of("a1") == of("a4") || of("a4").Policy != "P" {
		t.Errorf("the member of the group has policy %s", of("a4").Policy)
	}
	if got := all.Policies(); all.Len() != 5 || got["P"] != 1 || got[policies.NoneName] != 4 {
		t.Errorf("got %v of %d machines", got, all.Len())
	}
}

func TestUnknownMachine(t *testing.T) {
	s, d := world(t, tree)
	id, err := directory.ParseUUID("99999999-0000-4000-8000-000000000000")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Prepare(d).Machine(s, id); !errors.Is(err, ErrUnknownMachine) {
		t.Errorf("got %v, want %v", err, ErrUnknownMachine)
	}
}

func TestCheckNamesWhatTheDirectoryLacks(t *testing.T) {
	s, d := world(t, tree+`
link P 1 OU=Nowhere,DC=x
link P 1 DC=x apply=CN=nobody,DC=x deny=CN=g,DC=x
link P 2 DC=x deny=CN=gone,DC=x
`)
	var got []string
	for _, f := range Check(s, d) {
		got = append(got, f.Message)
	}
	want := []string{
		"container OU=Nowhere,DC=x is not in the directory",
		"group CN=nobody,DC=x is not in the directory, so the link applies to none of its members",
		"group CN=gone,DC=x is not in the directory, so the link denies none of its members",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q, want %q", got, want)
	}
}
