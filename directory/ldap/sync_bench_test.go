package ldap

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/e2e/lab/slapd"
)

// branches is LDIF of machines in OUs.
func branches(machines, ous int) []byte {
	var ldif strings.Builder
	ldif.WriteString("dn: dc=bank,dc=example\nobjectClass: domain\ndc: bank\n\n")
	for i := range ous {
		fmt.Fprintf(&ldif, "dn: OU=Branch %d,dc=bank,dc=example\nobjectClass: organizationalUnit\nou: Branch %d\n\n", i, i)
	}
	for i := range machines {
		fmt.Fprintf(&ldif, "dn: cn=m%d,OU=Branch %d,dc=bank,dc=example\nobjectClass: device\nobjectClass: computer\ncn: m%d\ndNSHostName: m%d.bank.example\nuserAccountControl: 4096\n\n",
			i, i%ous, i, i)
	}
	return []byte(ldif.String())
}

// BenchmarkChange measures the time from the server's answer to a modification until Next returns the snapshot that
// holds it, over LDAPS, and the first load by synchronization.
func BenchmarkChange(b *testing.B) {
	for _, machines := range []int{1000, 20_000, 100_000} {
		b.Run(fmt.Sprint(machines), func(b *testing.B) { benchmarkChange(b, machines) })
	}
}

func benchmarkChange(b *testing.B, machines int) {
	server := slapd.ForTest(b, slapd.Options{Offline: fleetLDIF(machines, 1000, machines/20)})
	c := Config{
		URL: server.LDAPS, Base: directory.MustParseDN(server.Suffix), CAFile: server.CAFile, Bind: Simple{server.RootDN, server.PasswordFile},
		Interval: time.Hour, FullInterval: time.Hour,
	}
	s, err := Open(c)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	began := time.Now()
	if _, err := s.Next(b.Context()); err != nil {
		b.Fatal(err)
	}
	first := time.Since(began)
	if p := s.Status().Protocol; p != protocolSync {
		b.Fatalf("protocol %s: %s", p, s.Status().ProtocolNote)
	}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	seen := make(chan time.Time, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if _, err := s.Next(ctx); err != nil {
				return
			}
			seen <- time.Now()
		}
	}()
	conn, err := goldap.DialURL(server.LDAPI)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	if err := conn.ExternalBind(); err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		m := goldap.NewModifyRequest(fmt.Sprintf("cn=m%d,OU=Branch %d,dc=bank,dc=example", i%1000, i%1000), nil)
		m.Replace("userAccountControl", []string{fmt.Sprint(4096 + 2*(i/1000+1)%4)})
		m.Replace("dNSHostName", []string{fmt.Sprintf("n%d.bank.example", i)})
		if err := conn.Modify(m); err != nil {
			b.Fatal(err)
		}
		answered := time.Now()
		took = append(took, (<-seen).Sub(answered))
	}
	cancel()
	<-done
	slices.Sort(took)
	b.ReportMetric(float64(machines+1001+machines/20)/first.Seconds(), "first-entries/s")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-median")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
}

// BenchmarkMove measures the time from the server's answer to a move of a container with 10,000 machines, of 100,000, until
// Next returns the one snapshot in which all of them are moved.
func BenchmarkMove(b *testing.B) {
	server := slapd.ForTest(b, slapd.Options{Offline: branches(100_000, 10)})
	s, err := Open(loadConfig(server, false))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	last, err := s.Next(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	conn, err := goldap.DialURL(server.LDAPI)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	if err := conn.ExternalBind(); err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	names := []string{"OU=Branch 0,dc=bank,dc=example", "OU=Branch 0,OU=Branch 1,dc=bank,dc=example"}
	for i := 0; b.Loop(); i++ {
		_, up, _ := strings.Cut(names[(i+1)%2], ",")
		if err := conn.ModifyDN(goldap.NewModifyDNRequest(names[i%2], "OU=Branch 0", true, up)); err != nil {
			b.Fatal(err)
		}
		answered := time.Now()
		next, err := s.Next(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(answered))
		if d := directory.NewDiff(last, next); d.Counts() != (directory.Counts{Moved: 10_000, ContainersRenamed: 1}) {
			b.Fatalf("the move is seen as %v", d)
		}
		last = next
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-median")
}
