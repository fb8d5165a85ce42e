package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

func certMetricsCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "metrics",
		Short: "Print when CAs and certificates end, for Prometheus",
		Long: `metrics prints the end of the latest good certificate of every CA, machine, controller and administrator, and how many
certificates there are of each kind and status, in the text format of Prometheus: for the textfile collector of
node_exporter, for example, from a timer.

  bailiwick cert metrics > /var/lib/prometheus/node-exporter/bailiwick.prom.new &&
    mv /var/lib/prometheus/node-exporter/bailiwick.prom.new /var/lib/prometheus/node-exporter/bailiwick.prom`,
		Args: args(),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, _ []string) error {
			if a.output != "table" {
				return usagef("%s has one format, that of Prometheus; cert list has others", cmd.CommandPath())
			}
			all, err := a.listCertificates(ctx, &adminv1.ListCertificatesRequest{})
			if err != nil {
				return err
			}
			return writeCertMetrics(cmd.OutOrStdout(), all.GetCertificates())
		}),
	}
}

// series is what a metric is about.
type series struct{ profile, other string }

func (s series) compare(o series) int {
	return cmp.Or(cmp.Compare(s.profile, o.profile), cmp.Compare(s.other, o.other))
}

func writeCertMetrics(w io.Writer, all []*adminv1.Certificate) error {
	ends, counts := map[series]int64{}, map[series]int{}
	for _, x := range all {
		counts[series{x.GetProfile(), x.GetStatus()}]++
		if x.GetStatus() == "good" {
			s := series{x.GetProfile(), whose(x.GetMachine(), x.GetSubject())}
			ends[s] = max(ends[s], x.GetNotAfter().GetSeconds())
		}
	}
	var out strings.Builder
	out.WriteString("# HELP bailiwick_certificate_not_after_timestamp_seconds When the latest good certificate ends, as a Unix time.\n" +
		"# TYPE bailiwick_certificate_not_after_timestamp_seconds gauge\n")
	for _, s := range slices.SortedFunc(maps.Keys(ends), series.compare) {
		fmt.Fprintf(&out, "bailiwick_certificate_not_after_timestamp_seconds{profile=%q,whose=%q} %d\n", s.profile, s.other, ends[s])
	}
	out.WriteString("# HELP bailiwick_certificates How many certificates the journal has.\n# TYPE bailiwick_certificates gauge\n")
	for _, s := range slices.SortedFunc(maps.Keys(counts), series.compare) {
		fmt.Fprintf(&out, "bailiwick_certificates{profile=%q,status=%q} %d\n", s.profile, s.other, counts[s])
	}
	_, err := io.WriteString(w, out.String())
	return err
}
