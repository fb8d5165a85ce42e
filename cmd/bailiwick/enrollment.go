package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

func enrollmentCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{Use: "enrollment", Short: "Approve or deny machines that ask for a certificate without a token"}
	cmd.AddCommand(enrollmentListCommand(c), enrollmentShowCommand(c), enrollmentApproveCommand(c), enrollmentDenyCommand(c), enrollmentPinCommand(c))
	return group(cmd)
}

// shortKey is what people call a request by.
func shortKey(key string) string { return key[:min(len(key), 16)] }

func enrollmentListCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the requests, in the order in which they came",
		Args:  args(),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, _ []string) error {
			r, err := a.enrollment.ListEnrollmentRequests(ctx, &adminv1.ListEnrollmentRequestsRequest{})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				table := rows{{"REQUEST", "MACHINE", "STATE", "CAME", "ENDS", "FROM", "BY"}}
				for _, q := range r.GetRequests() {
					state := q.GetState()
					if q.GetCollected() {
						state = "issued"
					}
					table.add(shortKey(q.GetKey()), q.GetMachine(), state, when(q.GetCreated()), when(q.GetNotAfter()), orDash(q.GetFrom()), orDash(q.GetDecidedBy()))
				}
				return table.write(w)
			})
		}),
	}
}

func enrollmentShowCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:               "show REQUEST",
		Short:             "Show one request, with the whole key to compare",
		Args:              args("REQUEST"),
		ValidArgsFunction: c.complete(0, requestKeys),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, args []string) error {
			r, err := a.enrollment.GetEnrollmentRequest(ctx, &adminv1.GetEnrollmentRequestRequest{Request: args[0]})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error { return printRequest(w, r.GetRequest()) })
		}),
	}
}

func printRequest(w io.Writer, q *adminv1.EnrollmentRequest) error {
	table := rows{
		{"request", shortKey(q.GetKey())},
		{"key", q.GetKey()},
		{"machine", q.GetMachine() + ", " + q.GetDnsName()},
		{"entry", q.GetMachineDn()},
		{"from", orDash(q.GetFrom()) + ", by " + q.GetVia()},
		{"came", when(q.GetCreated())},
		{"ends", when(q.GetNotAfter())},
		{"state", q.GetState()},
	}
	if q.GetDecided() != nil {
		table.add("decided", when(q.GetDecided())+", by "+q.GetDecidedBy())
	}
	if q.GetReason() != "" {
		table.add("reason", q.GetReason())
	}
	switch {
	case q.GetCollected():
		table.add("certificate", q.GetHeldSerial()+", which came of this request")
	case q.GetHeldSerial() != "":
		table.add("certificate", q.GetHeldSerial()+", for another key: an approval ends it")
	default:
		table.add("certificate", "none yet")
	}
	return table.write(w)
}

func enrollmentApproveCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "approve REQUEST",
		Short: "Let the machine have its certificate",
		Long: `approve lets the key of a request have a certificate of the machine that it states.
Compare the key first with what "bailiwick-node join --request" shows on that machine:
anybody who reaches the controller can ask in any machine's name. A certificate that the
machine holds already is superseded.`,
		Args:              args("REQUEST"),
		ValidArgsFunction: c.complete(0, requestKeys),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, args []string) error {
			r, err := a.enrollment.ApproveEnrollmentRequest(ctx, &adminv1.ApproveEnrollmentRequestRequest{Request: args[0]})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "request %s of %s approved\n", shortKey(r.GetRequest().GetKey()), r.GetRequest().GetMachine())
				return err
			})
		}),
	}
}

func enrollmentDenyCommand(c *client) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:               "deny REQUEST",
		Short:             "Refuse a request for good",
		Args:              args("REQUEST"),
		ValidArgsFunction: c.complete(0, requestKeys),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, args []string) error {
			r, err := a.enrollment.DenyEnrollmentRequest(ctx, &adminv1.DenyEnrollmentRequestRequest{Request: args[0], Reason: reason})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "request %s of %s denied\n", shortKey(r.GetRequest().GetKey()), r.GetRequest().GetMachine())
				return err
			})
		}),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the machine and for the record")
	return cmd
}

func enrollmentPinCommand(c *client) *cobra.Command {
	var encoded bool
	cmd := &cobra.Command{
		Use:   "pin",
		Short: "Print the pin by which machines without a token know the controller",
		Long: `pin prints the key id of the fleet's root, for "bailiwick-node join --request --pin"; it is
no secret. With --pem it prints the roots and issuing CAs in PEM instead, which EST clients need.`,
		Args: args(),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, _ []string) error {
			r, err := a.enrollment.GetEnrollmentAuthority(ctx, &adminv1.GetEnrollmentAuthorityRequest{})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				if encoded {
					_, err := w.Write(r.GetCa())
					return err
				}
				_, err := fmt.Fprintln(w, r.GetPin())
				return err
			})
		}),
	}
	cmd.Flags().BoolVar(&encoded, "pem", false, "print the CA certificates in PEM instead")
	return cmd
}

func requestKeys(ctx context.Context, a *api) ([]string, error) {
	r, err := a.enrollment.ListEnrollmentRequests(ctx, &adminv1.ListEnrollmentRequestsRequest{})
	var keys []string
	for _, q := range r.GetRequests() {
		keys = append(keys, shortKey(q.GetKey()))
	}
	return keys, err
}
