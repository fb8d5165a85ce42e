package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/bailiwick-net/bailiwick/pki/expiry"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

func certMetricsCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "metrics",
		Short: "Print when CAs and certificates end, for Prometheus",
		Long: `metrics prints the end of the latest good certificate of every CA, machine, controller and administrator, and how many
certificates there are of each kind and status, in the text format of Prometheus: for the textfile collector of
node_exporter, for example, from a timer. The controller has the same figures where metrics.listen of its configuration is.

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
			cas, err := a.authorities.GetAuthorities(ctx, &adminv1.GetAuthoritiesRequest{})
			if err != nil {
				return err
			}
			var figures expiry.Figures
			for _, x := range all.GetCertificates() {
				figures.Add(expiry.Certificate{Profile: x.GetProfile(), Whose: whose(x.GetMachine(), x.GetSubject()), Status: x.GetStatus(), NotAfter: x.GetNotAfter().AsTime()})
			}
			for _, x := range cas.GetAuthorities() {
				figures.AddAuthority(x.GetStatus(), x.GetRootSubject(), x.GetRootNotAfter().AsTime(), x.GetIssuingSubject(), x.GetIssuingNotAfter().AsTime())
			}
			_, err = cmd.OutOrStdout().Write(figures.Append(nil))
			return err
		}),
	}
}
