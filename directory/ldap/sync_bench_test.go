package ldap

import (
	"context"
	"errors"
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
	server, err := slapd.Start(b.Context(), slapd.Options{Offline: branches(machines, 1000)})
	if errors.Is(err, slapd.ErrNotInstalled) {
		b.Skip(err)
	}
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
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
	b.ReportMetric(float64(machines+1001)/first.Seconds(), "first-entries/s")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-median")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
}
