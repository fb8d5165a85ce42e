package plan

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
)

// failer is testing.TB and *rapid.T.
type failer interface {
	Helper()
	Fatal(args ...any)
}

func uuid(name string) directory.UUID {
	var u directory.UUID
	copy(u[:], name+"................")
	return u
}

// town makes a directory: "ou=a" is a container, "m1 in ou=a" a machine, "g of m1 m2" a group of machines; all below dc=x.
func town(t failer, entries ...string) *directory.Snapshot {
	t.Helper()
	base := directory.MustParseDN("dc=x")
	b := directory.NewBuilder(base)
	b.Add(directory.Container{UUID: uuid("dc=x"), DN: base, Kind: directory.Domain})
	at := map[string]directory.DN{}
	var groups []string
	for _, e := range entries {
		if name, in, ok := strings.Cut(e, " in "); ok {
			in, disabled := strings.CutSuffix(in, "!")
			dn := directory.MustParseDN("cn=" + name + "," + strings.TrimPrefix(in+",dc=x", ","))
			at[name] = dn
			b.Add(directory.Machine{UUID: uuid(name), DN: dn, Name: name, DNSName: name + ".x", Disabled: disabled})
			continue
		}
		if strings.Contains(e, " of ") {
			groups = append(groups, e)
			continue
		}
		dn := directory.MustParseDN(e + ",dc=x")
		b.Add(directory.Container{UUID: uuid(e), DN: dn, Kind: directory.KindOf(dn)})
	}
	for _, e := range groups {
		name, members, _ := strings.Cut(e, " of ")
		g := directory.Group{UUID: uuid("group " + name), DN: directory.MustParseDN("cn=" + name + ",dc=x"), Name: name}
		for _, m := range strings.Fields(members) {
			g.Members = append(g.Members, at[m])
		}
		b.Add(g)
	}
	s, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func docs(t failer, text string) policies.Documents {
	t.Helper()
	d, err := policies.Decode("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	d = predefined.Documents().Merge(d)
	if err := policies.Check(policies.Validate(d)); err != nil {
		t.Fatal(err)
	}
	return d
}

const (
	client = "Client (Respond Only)"
	server = "Server (Request Security)"
	secure = "Secure Server (Require Security)"
)

func link(policy, container string, order int) string {
	return fmt.Sprintf("---\napiVersion: bailiwick.net/v1alpha1\nkind: Link\npolicy: %s\ncontainer: %s\norder: %d\n", policy, container, order)
}

// bankTown has the three kinds of machines of the Bank, two of each, and a stranger.
func bankTown(t failer) *directory.Snapshot {
	return town(t, "ou=ws", "ou=srv", "ou=sec", "ou=attic", "ws1 in ou=ws", "ws2 in ou=ws", "files1 in ou=srv", "files2 in ou=srv", "sql1 in ou=sec",
		"sql2 in ou=sec", "old1 in ou=attic")
}

func bankLinks() string {
	return link(client, "ou=ws,dc=x", 1) + link(server, "ou=srv,dc=x", 1) + link(secure, "ou=sec,dc=x", 1)
}

func compare(t failer, before, after World) Plan {
	t.Helper()
	p, err := Compare(before, after, DNS())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// text prints a plan as the golden texts of the tests have it.
func text(p Plan) string {
	var b strings.Builder
	for _, c := range p.Machines {
		names := make([]string, len(c.Machines))
		for i, m := range c.Machines {
			names[i] = m.Name
		}
		fmt.Fprintf(&b, "%s: %s => %s (%s)\n", strings.Join(names, " "), c.From, c.To, c.To.Why)
	}
	for _, c := range p.Pairs {
		for _, change := range c.Traffic {
			fmt.Fprintf(&b, "%s to %s (%d pairs, %s to %s): %s\n", c.Client, c.Server, c.Pairs, c.WitnessClient, c.WitnessServer, change)
		}
	}
	for _, c := range p.Services {
		fmt.Fprintln(&b, c)
	}
	for _, r := range p.Refused {
		fmt.Fprintf(&b, "%s is %s\n", r.Machine.Name, r.Reason)
	}
	return b.String()
}

func wantPlan(t *testing.T, p Plan, want string) {
	t.Helper()
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), text(p)); diff != "" {
		t.Errorf("the plan differs (-want +got):\n%s\n%s", diff, text(p))
	}
}

func TestEnforcedLinkAtTheDomain(t *testing.T) {
	world := World{Documents: docs(t, bankLinks()), Directory: bankTown(t)}
	next := world
	next.Documents = docs(t, bankLinks()+"---\napiVersion: bailiwick.net/v1alpha1\nkind: Link\nname: n\npolicy: "+secure+"\ncontainer: dc=x\norder: 1\nenforced: true\n")
	wantPlan(t, compare(t, world, next), `
ws1 ws2: Client (Respond Only) (ou=ws,dc=x) => Secure Server (Require Security) (dc=x) (it is enforced at dc=x, and no enforced link stands above it)
sql1 sql2: Secure Server (Require Security) (ou=sec,dc=x) => Secure Server (Require Security) (dc=x) (it is enforced at dc=x, and no enforced link stands above it)
files1 files2: Server (Request Security) (ou=srv,dc=x) => Secure Server (Require Security) (dc=x) (it is enforced at dc=x, and no enforced link stands above it)
old1: none => Secure Server (Require Security) (dc=x) (it is the only link that applies)
Client (Respond Only) => Secure Server (Require Security) to Client (Respond Only) => Secure Server (Require Security) (2 pairs, ws1 to ws2): clear => ipsec: except icmp
Client (Respond Only) => Secure Server (Require Security) to none => Secure Server (Require Security) (2 pairs, ws1 to old1): clear => ipsec: except icmp
Secure Server (Require Security) to none => Secure Server (Require Security) (2 pairs, sql1 to old1): blocked => ipsec: except icmp
Server (Request Security) => Secure Server (Require Security) to none => Secure Server (Require Security) (2 pairs, files1 to old1): clear => ipsec: except icmp
none => Secure Server (Require Security) to Client (Respond Only) => Secure Server (Require Security) (2 pairs, old1 to ws2): clear => ipsec: except icmp
none => Secure Server (Require Security) to Secure Server (Require Security) (2 pairs, old1 to sql2): blocked => ipsec: except icmp
none => Secure Server (Require Security) to Server (Request Security) => Secure Server (Require Security) (2 pairs, old1 to files2): clear => ipsec: except icmp
2 machines of Server (Request Security) => Secure Server (Require Security) (as files1) to DNS udp/53: clear => blocked
2 machines of Client (Respond Only) => Secure Server (Require Security) (as ws1) to DNS udp/53: clear => blocked
2 machines of Server (Request Security) => Secure Server (Require Security) (as files1) to DNS tcp/53: clear => blocked
2 machines of Client (Respond Only) => Secure Server (Require Security) (as ws1) to DNS tcp/53: clear => blocked
1 machine of none => Secure Server (Require Security) (as old1) to DNS udp/53: clear => blocked
1 machine of none => Secure Server (Require Security) (as old1) to DNS tcp/53: clear => blocked
`)
}

func TestMoveOfAMachine(t *testing.T) {
	world := World{Documents: docs(t, bankLinks()), Directory: bankTown(t)}
	moved, err := world.Directory.Move(directory.MustParseDN("cn=ws1,ou=ws,dc=x"), directory.MustParseDN("ou=sec,dc=x"))
	if err != nil {
		t.Fatal(err)
	}
	wantPlan(t, compare(t, world, World{Documents: world.Documents, Directory: moved}), `
ws1: Client (Respond Only) (ou=ws,dc=x) => Secure Server (Require Security) (ou=sec,dc=x) (it is the only link that applies)
Client (Respond Only) => Secure Server (Require Security) to none (1 pairs, ws1 to old1): clear => blocked: except icmp
none to Client (Respond Only) => Secure Server (Require Security) (1 pairs, old1 to ws1): clear => blocked: except icmp
Client (Respond Only) to Client (Respond Only) => Secure Server (Require Security) (1 pairs, ws2 to ws1): clear => ipsec: except icmp
Client (Respond Only) => Secure Server (Require Security) to Client (Respond Only) (1 pairs, ws1 to ws2): clear => ipsec: except icmp
1 machine of Client (Respond Only) => Secure Server (Require Security) (as ws1) to DNS udp/53: clear => blocked
1 machine of Client (Respond Only) => Secure Server (Require Security) (as ws1) to DNS tcp/53: clear => blocked
`)
}
