package ldap

import (
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/e2e/lab/slapd"
)

// The fleet of the first load: the groups have 20 machines each.
const (
	loadMachines = 100_000
	loadOUs      = 1000
	loadGroups   = 5000
)

// fleetLDIF is LDIF of machines in OUs and of groups of them.
func fleetLDIF(machines, ous, groups int) []byte {
	var ldif strings.Builder
	ldif.Write(branches(machines, ous))
	for i := range groups {
		fmt.Fprintf(&ldif, "dn: cn=g%d,dc=bank,dc=example\nobjectClass: groupOfNames\ncn: g%d\n", i, i)
		for j := range 20 {
			m := (i*20 + j) % machines
			fmt.Fprintf(&ldif, "member: cn=m%d,OU=Branch %d,dc=bank,dc=example\n", m, m%ous)
		}
		ldif.WriteString("\n")
	}
	return []byte(ldif.String())
}

// BenchmarkFirstLoad compares, at one server and in turns, what a source takes from nothing to its first snapshot with
// what a bare paged search of go-ldap takes for the same entries, which it only decodes, and with ldapsearch, which prints
// them to nowhere. It reports the median rates, their ratios, and the memory that is held afterwards.
func BenchmarkFirstLoad(b *testing.B) {
	server := slapd.ForTest(b, slapd.Options{Offline: fleetLDIF(loadMachines, loadOUs, loadGroups)})
	const entries = loadMachines + loadOUs + loadGroups + 1
	rates := map[string][]float64{}
	measure := func(name string, read func(*testing.B)) {
		runtime.GC()
		began := time.Now()
		read(b)
		rates[name] = append(rates[name], entries/time.Since(began).Seconds())
	}
	for b.Loop() {
		measure("go-ldap", func(b *testing.B) { bareSearch(b, server, entries) })
		measure("ldapsearch", func(b *testing.B) { ldapsearch(b, server, entries) })
		measure("sync", func(b *testing.B) { firstLoad(b, server, false) })
		measure("paged", func(b *testing.B) { firstLoad(b, server, true) })
	}
	median := map[string]float64{}
	for name, all := range rates {
		slices.Sort(all)
		median[name] = all[len(all)/2]
		b.ReportMetric(median[name], name+"-entries/s")
	}
	for _, name := range []string{"sync", "paged"} {
		b.ReportMetric(100*median[name]/median["go-ldap"], name+"-%-of-go-ldap")
		b.ReportMetric(100*median[name]/median["ldapsearch"], name+"-%-of-ldapsearch")
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	source, snapshot := firstLoad(b, server, false)
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/loadMachines, "bytes/machine")
	runtime.KeepAlive(snapshot)
	source.Close()
}

func loadConfig(server *slapd.Server, poll bool) Config {
	return Config{
		URL: server.LDAPI, Base: directory.MustParseDN(server.Suffix), Bind: External{}, PollOnly: poll, Interval: time.Hour, FullInterval: time.Hour,
	}
}

// firstLoad reads by content synchronization, or once in pages, and builds the snapshot.
func firstLoad(b *testing.B, server *slapd.Server, paged bool) (*Source, *directory.Snapshot) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	source, err := Open(loadConfig(server, paged))
	if err != nil {
		b.Fatal(err)
	}
	var snapshot *directory.Snapshot
	if paged {
		session, done, err := source.target.open(ctx)
		if err != nil {
			b.Fatal(err)
		}
		defer done()
		snapshot, err = session.readTree()
		if err != nil {
			b.Fatal(err)
		}
	} else if snapshot, err = source.Next(ctx); err != nil {
		b.Fatal(err)
	}
	if c, m, g := snapshot.Len(); c != loadOUs+1 || m != loadMachines || g != loadGroups {
		b.Fatalf("the snapshot has %d containers, %d machines, %d groups", c, m, g)
	}
	if paged {
		source.Close()
	} else if p := source.Status().Protocol; p != protocolSync {
		b.Fatalf("protocol %s", p)
	}
	return source, snapshot
}

func bareSearch(b *testing.B, server *slapd.Server, entries int) {
	b.Helper()
	conn, err := goldap.DialURL(server.LDAPI)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	if err := conn.ExternalBind(); err != nil {
		b.Fatal(err)
	}
	schema := directory.OpenLDAP()
	request := goldap.NewSearchRequest(server.Suffix, goldap.ScopeWholeSubtree, goldap.NeverDerefAliases, 0, 0, false, schema.Filter(), schema.Attributes(), nil)
	result, err := conn.SearchWithPaging(request, 1000)
	if err != nil || len(result.Entries) != entries {
		b.Fatalf("%d entries, %v", len(result.Entries), err)
	}
}

func ldapsearch(b *testing.B, server *slapd.Server, entries int) {
	b.Helper()
	schema := directory.OpenLDAP()
	args := append([]string{"-H", server.LDAPI, "-Y", "EXTERNAL", "-Q", "-LLL", "-E", "pr=1000/noprompt", "-b", server.Suffix, schema.Filter()}, schema.Attributes()...)
	if out, err := exec.CommandContext(b.Context(), "ldapsearch", args...).Output(); err != nil || strings.Count(string(out), "\ndn: ")+1 != entries {
		b.Fatalf("%d entries, %v", strings.Count(string(out), "\ndn: ")+1, err)
	}
}
