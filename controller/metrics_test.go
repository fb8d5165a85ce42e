package controller

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/mirror"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/guard"
)

func TestMetrics(t *testing.T) {
	now := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	b := directory.NewBuilder(directory.DN{})
	base := directory.MustParseDN("dc=bank,dc=example")
	b.Add(directory.Container{UUID: directory.UUID{1}, DN: base, Kind: directory.Domain})
	b.Add(directory.Machine{UUID: directory.UUID{2}, DN: directory.MustParseDN("cn=sql1,dc=bank,dc=example"), Name: "sql1"})
	snapshot, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	good := mirror.Status{
		Source: directory.Status{Kind: "ldap", Protocol: `a "new" one`, LastRead: now.Add(-1500 * time.Millisecond), LastDuration: 20 * time.Millisecond},
		View:   &mirror.View{Snapshot: snapshot, Vanished: map[directory.UUID]mirror.Vanished{{3}: {}}},
		Held:   &guard.Held{Removed: make([]directory.Machine, 7)}, Counts: mirror.Counts{Reads: 5, Held: 1},
	}
	var out bytes.Buffer
	if err := writeMetrics(&out, []sourceStatus{{"bank", good}, {"branch", mirror.Status{Source: directory.Status{LastError: "no", Failures: 3}}}}, now); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`bailiwick_directory_info{source="bank",kind="ldap",protocol="a \"new\" one"} 1`,
		`bailiwick_directory_up{source="bank"} 1`, `bailiwick_directory_up{source="branch"} 0`,
		`bailiwick_directory_lag_seconds{source="bank"} 1.5`, `bailiwick_directory_machines{source="bank"} 1`,
		`bailiwick_directory_vanished_machines{source="bank"} 1`, `bailiwick_directory_held_machines{source="bank"} 7`,
		`bailiwick_directory_held_machines{source="branch"} 0`, `bailiwick_directory_consecutive_failures{source="branch"} 3`,
		`bailiwick_directory_reads_total{source="bank"} 5`, `# TYPE bailiwick_directory_reads_total counter`,
	} {
		if !strings.Contains(out.String(), want+"\n") {
			t.Errorf("the metrics lack %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), `bailiwick_directory_machines{source="branch"}`) {
		t.Error("a source that was never read has a number of machines")
	}
	line := regexp.MustCompile(`^(# (HELP|TYPE) bailiwick_directory_[a-z_]+ .+|bailiwick_directory_[a-z_]+\{source="[a-z]+"[^}]*\} [0-9.]+)$`)
	for text := range strings.Lines(out.String()) {
		if !line.MatchString(strings.TrimSuffix(text, "\n")) {
			t.Errorf("line %q is not of the format", text)
		}
	}
}

func TestMetricsStayOnTheMachine(t *testing.T) {
	for _, bad := range []string{"0.0.0.0:9100", "192.0.2.1:9100", "localhost:9100", "nonsense", "[::]:9100"} {
		c := good()
		c.Metrics.Listen = bad
		if _, err := c.validate(); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "metrics.listen") {
			t.Errorf("%q gave %v, wanted a refusal of metrics.listen", bad, err)
		}
	}
	for _, fine := range []string{"", "127.0.0.1:9100", "[::1]:0"} {
		c := good()
		c.Metrics.Listen = fine
		if _, err := c.validate(); err != nil {
			t.Errorf("%q is refused: %v", fine, err)
		}
	}
}
