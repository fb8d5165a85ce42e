package main

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/bailiwick-net/bailiwick/pki/expiry"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

func certCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{Use: "cert", Short: "Show what the CA issued, and revoke it"}
	cmd.AddCommand(certListCommand(c), certShowCommand(c), certHistoryCommand(c), certRevokeCommand(c), certReleaseCommand(c), certMetricsCommand(c), certExportCommand(c))
	return group(cmd)
}

// minSerialDigits is the shortest text that is taken for a serial number; the CA's have 128 random bits.
const minSerialDigits = 16

// selectCertificates reads an argument that is a serial number or a machine, or the flag for a key.
func selectCertificates(given []string, key string) (*adminv1.CertificateSelector, error) {
	switch {
	case len(given) > 1 || len(given) == 1 && key != "":
		return nil, usagef("wanted one serial number, one machine, or --key-id")
	case key != "":
		return &adminv1.CertificateSelector{By: &adminv1.CertificateSelector_Key{Key: key}}, nil
	case len(given) == 0:
		return nil, nil
	}
	digits := strings.TrimPrefix(strings.ToLower(strings.ReplaceAll(given[0], ":", "")), "0x")
	if len(digits) >= minSerialDigits && strings.Trim(digits, "0123456789abcdef") == "" {
		return &adminv1.CertificateSelector{By: &adminv1.CertificateSelector_Serial{Serial: given[0]}}, nil
	}
	return &adminv1.CertificateSelector{By: &adminv1.CertificateSelector_Machine{Machine: given[0]}}, nil
}

const selectorHelp = `SERIAL is a serial number in hexadecimal, of at least 16 digits, with or without colons. MACHINE is a short name, DNS name,
DN or UUID; one that is gone from the directory is named by its UUID. --key-id is the SHA-256 of the public key, as cert list
-o json shows it and as this makes it of a key file:

  openssl pkey -in KEY -pubout -outform DER | sha256sum`

// aboutCertificates is what a command does with the certificates that were named; the selector is nil where none were.
type aboutCertificates func(ctx context.Context, a *api, cmd *cobra.Command, selector *adminv1.CertificateSelector) error

// selecting completes a command about the certificates that its argument or --key-id names.
func (c *client) selecting(cmd *cobra.Command, keyUsage string, run aboutCertificates) *cobra.Command {
	var key string
	cmd.Long += "\n\n" + selectorHelp
	cmd.Args, cmd.ValidArgsFunction = cobra.ArbitraryArgs, c.complete(0, machineNames)
	cmd.RunE = c.with(func(ctx context.Context, a *api, cmd *cobra.Command, given []string) error {
		selector, err := selectCertificates(given, key)
		if err != nil {
			return err
		}
		return run(ctx, a, cmd, selector)
	})
	cmd.Flags().StringVar(&key, "key-id", "", keyUsage+": SHA-256 in hexadecimal")
	return cmd
}

// changing is selecting for a command that changes what it is about, and so must be told.
func (c *client) changing(cmd *cobra.Command, run aboutCertificates) *cobra.Command {
	return c.selecting(cmd, "the key itself, and every certificate with it", func(ctx context.Context, a *api, cmd *cobra.Command, selector *adminv1.CertificateSelector) error {
		if selector == nil {
			return usagef("%s: what? name a serial number, a machine, or --key-id", cmd.CommandPath())
		}
		return run(ctx, a, cmd, selector)
	})
}

func certListCommand(c *client) *cobra.Command {
	var state, profile string
	var within time.Duration
	var limit uint32
	cmd := c.selecting(&cobra.Command{
		Use:   "list [SERIAL|MACHINE]",
		Short: "List certificates that were issued",
		Long:  "list shows certificates, those that ended not long ago included.",
		Example: `  bailiwick cert list
  bailiwick cert list sql1
  bailiwick cert list --status good --ends-within 72h`,
	}, "certificates with this key", func(ctx context.Context, a *api, cmd *cobra.Command, selector *adminv1.CertificateSelector) error {
		if within < 0 {
			return usagef("--ends-within %v is negative", within)
		}
		r := &adminv1.ListCertificatesRequest{Selector: selector, Status: state, Profile: profile, Limit: limit}
		if within > 0 {
			r.EndsBefore = timestamppb.New(time.Now().Add(within))
		}
		all, err := a.listCertificates(ctx, r)
		if err != nil {
			return err
		}
		return a.print(cmd.OutOrStdout(), all, func(w io.Writer) error {
			table := rows{{"SERIAL", "WHOSE", "PROFILE", "STATUS", "ISSUED", "ENDS", "KEY"}}
			for _, x := range all.GetCertificates() {
				table.add(x.GetSerial(), whose(x.GetMachine(), x.GetSubject()), x.GetProfile(), standing(x), when(x.GetIssued()), when(x.GetNotAfter()), short(x.GetKey()))
			}
			if err := table.write(w); err != nil {
				return err
			}
			if all.GetNext() != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "there are more than %d; choose by machine, --status or --profile, or raise --limit\n", len(all.GetCertificates()))
			}
			return nil
		})
	})
	f := cmd.Flags()
	f.StringVar(&state, "status", "", "good, revoked, on-hold, expired or unfinished")
	f.StringVar(&profile, "profile", "", "kind of certificate, as machine, server or admin")
	f.DurationVar(&within, "ends-within", 0, "certificates that end within this time, or have ended")
	f.Uint32Var(&limit, "limit", 1000, "how many at most; 0 for all")
	return cmd
}

// listCertificates asks page by page until there are as many as wanted; a limit of 0 is all.
func (a *api) listCertificates(ctx context.Context, r *adminv1.ListCertificatesRequest) (*adminv1.ListCertificatesResponse, error) {
	const page = 5000
	all, limit := &adminv1.ListCertificatesResponse{}, int(r.GetLimit())
	for {
		r.Limit = page
		if limit > 0 {
			r.Limit = uint32(min(page, limit-len(all.GetCertificates()))) //nolint:gosec // at most a page
		}
		part, err := a.certificates.ListCertificates(ctx, r)
		if err != nil {
			return nil, err
		}
		all.Certificates = append(all.Certificates, part.GetCertificates()...)
		all.Next, r.After = part.GetNext(), part.GetNext()
		if part.GetNext() == "" || limit > 0 && len(all.GetCertificates()) >= limit {
			return all, nil
		}
	}
}

// whose names the holder: the machine, or the end of the identity URI.
func whose(machine, subject string) string { return orDash(expiry.Whose(machine, subject)) }

// standing is the status with its reason.
func standing(x *adminv1.Certificate) string {
	if v := x.GetRevocation(); v != nil && v.GetReason() != "certificateHold" {
		return x.GetStatus() + " (" + v.GetReason() + ")"
	}
	return x.GetStatus()
}

func certShowCommand(c *client) *cobra.Command {
	var encoded bool
	cmd := &cobra.Command{
		Use:   "show SERIAL",
		Short: "Show one certificate, and why it is revoked",
		Args:  args("SERIAL"),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, given []string) error {
			r, err := a.certificates.GetCertificate(ctx, &adminv1.GetCertificateRequest{Serial: given[0]})
			if err != nil {
				return err
			}
			if encoded {
				if len(r.GetContent()) == 0 {
					return fmt.Errorf("certificate %s was intended, but is not known to have been signed", r.GetCertificate().GetSerial())
				}
				return pem.Encode(cmd.OutOrStdout(), &pem.Block{Type: "CERTIFICATE", Bytes: r.GetContent()})
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				x := r.GetCertificate()
				at := func(t *timestamppb.Timestamp) string { return t.AsTime().Format(time.RFC3339) + " (" + when(t) + ")" }
				table := rows{
					{"serial", x.GetSerial()}, {"status", standing(x)}, {"machine", orDash(x.GetMachine())}, {"subject", x.GetSubject()}, {"profile", x.GetProfile()},
					{"issued", at(x.GetIssued())}, {"valid from", at(x.GetNotBefore())}, {"valid until", at(x.GetNotAfter())},
					{"key", x.GetKey()}, {"issuing key", x.GetIssuer()},
				}
				if v := x.GetRevocation(); v != nil {
					table.add("revoked", at(v.GetAt()))
					table.add("reason", v.GetReason())
					table.add("by", v.GetBy())
					table.add("key blocked", map[bool]string{true: "yes", false: "no"}[v.GetBlocksKey()])
				}
				return table.write(w)
			})
		}),
	}
	cmd.Flags().BoolVar(&encoded, "pem", false, "print the certificate itself in PEM")
	return cmd
}

func certHistoryCommand(c *client) *cobra.Command {
	return c.selecting(&cobra.Command{
		Use:   "history [SERIAL|MACHINE]",
		Short: "Tell what was issued, revoked and released, when and by whom",
		Long:  "history tells what happened, the oldest first, until 30 days after the end of a certificate.",
	}, "what happened to this key", func(ctx context.Context, a *api, cmd *cobra.Command, selector *adminv1.CertificateSelector) error {
		r, err := a.certificates.ListCertificateEvents(ctx, &adminv1.ListCertificateEventsRequest{Selector: selector})
		if err != nil {
			return err
		}
		return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
			table := rows{{"TIME", "WHAT", "SERIAL", "KEY", "WHOSE", "REASON", "BY"}}
			for _, e := range r.GetEvents() {
				table.add(e.GetAt().AsTime().Format(time.RFC3339), e.GetKind(), orDash(e.GetSerial()), short(e.GetKey()), whose("", e.GetSubject()), orDash(e.GetReason()), orDash(e.GetBy()))
			}
			return table.write(w)
		})
	})
}

func certRevokeCommand(c *client) *cobra.Command {
	var reason string
	cmd := c.changing(&cobra.Command{
		Use:   "revoke SERIAL|MACHINE|--key-id FINGERPRINT",
		Short: "Revoke a certificate, all certificates of a machine, or a key",
		Long: `revoke makes certificates worthless, for good: every connected node cuts its associations with whoever holds them and lets
nobody in with them, the controller ends their sessions and issues nothing to them or to their keys. Only a hold (--reason
certificateHold) can be lifted, with cert release. A machine gets in again with a new key: bailiwick token create MACHINE.

The key of a certificate is blocked with it, except for --reason superseded. A key that is named itself, or was compromised,
stays blocked for good.

Reasons: unspecified, keyCompromise, cACompromise, affiliationChanged, superseded, cessationOfOperation, certificateHold,
privilegeWithdrawn, aACompromise.`,
		Example: `  bailiwick cert revoke ws17 --reason keyCompromise
  bailiwick cert revoke ws17 --reason certificateHold`,
	}, func(ctx context.Context, a *api, cmd *cobra.Command, selector *adminv1.CertificateSelector) error {
		r, err := a.certificates.RevokeCertificates(ctx, &adminv1.RevokeCertificatesRequest{Selector: selector, Reason: reason})
		if err != nil {
			return err
		}
		return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
			printRevocations(w, "revoked", r.GetRevoked())
			printRevocations(w, "was revoked before", r.GetBefore())
			_, err := fmt.Fprintf(w, "%s told\n", plural(int(r.GetConnectedNodes()), "connected node"))
			return err
		})
	})
	cmd.Flags().StringVar(&reason, "reason", "unspecified", "why, by the names of RFC 5280")
	return cmd
}

func printRevocations(w io.Writer, what string, all []*adminv1.Revocation) {
	for _, v := range all {
		name := "certificate " + v.GetSerial() + " of " + whose("", v.GetSubject())
		if v.GetSerial() == "" {
			name = "key " + v.GetKey()
		}
		fmt.Fprintf(w, "%s %s (%s)\n", name, what, v.GetReason())
	}
}

func certReleaseCommand(c *client) *cobra.Command {
	return c.changing(&cobra.Command{
		Use:   "release SERIAL|MACHINE|--key-id FINGERPRINT",
		Short: "Let certificates that are on hold count again",
		Long: `release lifts what cert revoke --reason certificateHold put on hold. No other revocation can be lifted, and the hold on the
certificates of a machine that is disabled in the directory ends by itself when the machine is enabled there.`,
	}, func(ctx context.Context, a *api, cmd *cobra.Command, selector *adminv1.CertificateSelector) error {
		r, err := a.certificates.ReleaseCertificates(ctx, &adminv1.ReleaseCertificatesRequest{Selector: selector})
		if err != nil {
			return err
		}
		return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
			printRevocations(w, "released", r.GetReleased())
			printRevocations(w, "stays revoked", r.GetKept())
			return nil
		})
	})
}
