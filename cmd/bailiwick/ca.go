package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/bailiwick-net/bailiwick/pki/journal"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

func caCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{Use: "ca", Short: "Look at the CA, replace it step by step, and check its journal"}
	rotate := &cobra.Command{Use: "rotate", Short: "Replace the issuing CA, or root and issuing CA, step by step"}
	rotate.AddCommand(rotatePrepareCommand(c), rotateCertifyCommand(c), rotateActivateCommand(c), rotateRetireCommand(c), caStatusCommand(c))
	journals := &cobra.Command{Use: "journal", Short: "Check and keep the journal of what was issued"}
	journals.AddCommand(journalHeadCommand(c), journalVerifyCommand(c), journalExportCommand(c))
	cmd.AddCommand(caStatusCommand(c), group(rotate), group(journals), caInitCommand(), caSignCommand(), group(caListCommand(c)))
	return group(cmd)
}

func caStatusCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the CAs, what counts of their certificates, and how far each node is",
		Args:  args(),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, _ []string) error {
			r, err := a.authorities.GetAuthorities(ctx, &adminv1.GetAuthoritiesRequest{})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error { return printAuthorities(w, r) })
		}),
	}
}

func printAuthorities(w io.Writer, r *adminv1.GetAuthoritiesResponse) error {
	table := rows{{"CA", "STATUS", "ISSUING ENDS", "ROOT ENDS", "ROOT'S KEY", "KEY", "CERTIFICATES", "NEEDED UNTIL"}}
	for _, x := range r.GetAuthorities() {
		root := "here"
		if x.GetRootOffline() {
			root = "off line"
		} else if x.GetStatus() == "retired" {
			root = "-"
		}
		table.add(x.GetId(), x.GetStatus(), when(x.GetIssuingNotAfter()), when(x.GetRootNotAfter()), root, orDash(x.GetKey()),
			strconv.Itoa(int(x.GetCertificates())), when(x.GetCertificatesUntil()))
	}
	if err := table.write(w); err != nil {
		return err
	}
	if len(r.GetNodes()) > 0 {
		nodes := rows{{"NODE", "TRUST", "CERTIFICATE BY", "LAST SEEN"}}
		for _, n := range r.GetNodes() {
			state := "waiting"
			if n.GetCurrent() {
				state = "current"
			} else if n.GetExcused() != "" {
				state = "excused: " + n.GetExcused()
			}
			nodes.add(n.GetMachine(), state, orDash(n.GetAuthority()), when(n.GetLastSeen()))
		}
		fmt.Fprintln(w)
		if err := nodes.write(w); err != nil {
			return err
		}
	}
	if len(r.GetRootLists()) > 0 {
		if err := printRootLists(w, r.GetRootLists()); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "\ntrust bundle %d (%s), waiting for %s\njournal head %s\n", r.GetTrustRevision(), r.GetTrustDigest()[:16],
		plural(int(r.GetWaiting()), "node"), r.GetJournalHead())
	return err
}

func rotatePrepareCommand(c *client) *cobra.Command {
	var root, emergency bool
	var request string
	cmd := &cobra.Command{
		Use:   "prepare",
		Short: "Make the next CA, which nodes come to trust before it issues",
		Long: `prepare makes the next issuing CA, with --root also the root above it. The nodes get
the new trust bundle at once; "bailiwick ca status" shows how far they are. Nothing is
issued by it before "bailiwick ca rotate activate".

Where the root is kept off line, prepare makes a request, which --request writes to a
file. Sign it there with "bailiwick ca sign", and hand in the answer with "bailiwick ca
rotate certify".

--emergency is for a root that must not be trusted any more: it then does not vouch
for its successor.`,
		Args: args(),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, _ []string) error {
			r, err := a.authorities.PrepareAuthority(ctx, &adminv1.PrepareAuthorityRequest{Root: root, Emergency: emergency})
			if err != nil {
				return err
			}
			x := r.GetAuthority()
			if len(x.GetRequest()) > 0 && request != "" {
				if err := writeNew(request, 0o644, x.GetRequest()); err != nil {
					return err
				}
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				err := printStep(w, x)
				switch {
				case err != nil || len(x.GetRequest()) == 0:
				case request != "":
					_, err = fmt.Fprintf(w, "its request is in %s: sign it where the root is, with bailiwick ca sign\n", request)
				default:
					_, err = w.Write(x.GetRequest())
				}
				return err
			})
		}),
	}
	f := cmd.Flags()
	f.BoolVar(&root, "root", false, "make a new root as well")
	f.BoolVar(&emergency, "emergency", false, "the present root is not to be trusted any more")
	f.StringVar(&request, "request", "", "write the request for a root that is kept off line to a file that does not exist")
	return cmd
}

func rotateCertifyCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "certify FILE",
		Short: "Hand in what a root that is kept off line answered",
		Long: `certify hands in the answer of "bailiwick ca sign" to the request of the prepared CA.

Where the root is replaced, the file may have two answers to that request, of the next root
and of the one before: who trusts that alone then believes what is issued below the other.`,
		Args: args("FILE"),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, args []string) error {
			text, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("reading the answer of the root: %w", err)
			}
			r, err := a.authorities.CertifyAuthority(ctx, &adminv1.CertifyAuthorityRequest{Certificates: text})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error { return printStep(w, r.GetAuthority()) })
		}),
	}
}

func printStep(w io.Writer, x *adminv1.Authority) error {
	_, err := fmt.Fprintf(w, "CA %s is %s\n", x.GetId(), x.GetStatus())
	return err
}

func rotateActivateCommand(c *client) *cobra.Command {
	var emergency bool
	cmd := &cobra.Command{
		Use:   "activate",
		Short: "Let the prepared CA issue; refused while a node does not trust it",
		Args:  args(),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, _ []string) error {
			r, err := a.authorities.ActivateAuthority(ctx, &adminv1.ActivateAuthorityRequest{Emergency: emergency})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				for _, name := range r.GetWaiting() {
					fmt.Fprintf(w, "%s does not trust it yet\n", name)
				}
				return printStep(w, r.GetAuthority())
			})
		}),
	}
	cmd.Flags().BoolVar(&emergency, "emergency", false, "do not wait for nodes; they cannot believe peers with new certificates until they are told")
	return cmd
}

func rotateRetireCommand(c *client) *cobra.Command {
	var emergency bool
	cmd := &cobra.Command{
		Use:   "retire CA",
		Short: "End the trust in a CA, or give up a prepared one; refused while certificates of it count",
		Args:  args("CA"),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, args []string) error {
			r, err := a.authorities.RetireAuthority(ctx, &adminv1.RetireAuthorityRequest{Id: args[0], Emergency: emergency})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error { return printStep(w, r.GetAuthority()) })
		}),
	}
	cmd.Flags().BoolVar(&emergency, "emergency", false, "although certificates of it count; whoever has one is cut off until it has another")
	return cmd
}

func journalHeadCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "head",
		Short: "Print the head of the journal, to be kept where the controller cannot change it",
		Args:  args(),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, _ []string) error {
			r, err := a.authorities.GetAuthorities(ctx, &adminv1.GetAuthoritiesRequest{})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), &adminv1.ReadJournalResponse{Head: r.GetJournalHead()}, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, r.GetJournalHead())
				return err
			})
		}),
	}
}

// readJournal gives each line of the controller's journal to each, and returns the head that the controller tells.
func (a *api) readJournal(ctx context.Context, each func(line []byte) error) (string, error) {
	for from := uint64(1); ; {
		r, err := a.authorities.ReadJournal(ctx, &adminv1.ReadJournalRequest{From: from})
		if err != nil {
			return "", err
		}
		if len(r.GetLines()) == 0 {
			return r.GetHead(), nil
		}
		for _, line := range r.GetLines() {
			if err := each(line); err != nil {
				return "", err
			}
		}
		from += uint64(len(r.GetLines()))
	}
}

func journalExportCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "export FILE",
		Short: "Write the whole journal to a file that does not exist, one record a line",
		Args:  args("FILE"),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, args []string) (err error) {
			f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
			if err != nil {
				return fmt.Errorf("writing the journal: %w", err)
			}
			defer func() { err = errors.Join(err, f.Close()) }()
			out := bufio.NewWriter(f)
			var audit journal.Audit
			_, err = a.readJournal(ctx, func(line []byte) error {
				if _, err := audit.Add(line); err != nil {
					return err
				}
				_, err := out.Write(append(bytes.Clone(line), '\n'))
				return err
			})
			if err != nil {
				return err
			}
			if err := out.Flush(); err != nil {
				return fmt.Errorf("writing the journal: %w", err)
			}
			return a.print(cmd.OutOrStdout(), &adminv1.ReadJournalResponse{Head: audit.Head().String()}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s in %s, head %s\n", plural(int(audit.Head().Number), "record"), args[0], audit.Head())
				return err
			})
		}),
	}
}

func journalVerifyCommand(c *client) *cobra.Command {
	var file string
	var remembered []string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Prove that nothing in the journal was changed, and account for every certificate",
		Long: `verify reads the whole journal and checks here, without believing the controller,
that every record is bound to the one before and that no serial number was used twice.
With --head it holds the journal against heads that were kept elsewhere: whatever was
changed, taken out or put in before one of them is found. It then has the controller
hold the journal against the certificates in its store.

With --file it checks an exported journal and needs no controller. A line's digest is
the SHA-256 of its octets without the line feed, so sha256sum can check as well.

Exit code 6: the journal does not hold together.`,
		Example: `  bailiwick ca journal verify --head "$(cat head-of-january)"
  bailiwick ca journal verify --file journal.jsonl --head 120:3b1f...`,
		Args: args(),
	}
	remote := c.with(func(ctx context.Context, a *api, cmd *cobra.Command, _ []string) error {
		return a.verifyJournal(ctx, cmd.OutOrStdout(), remembered)
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if file != "" {
			return verifyJournalFile(c, cmd.OutOrStdout(), file, remembered)
		}
		return remote(cmd, args)
	}
	cmd.Flags().StringVar(&file, "file", "", "check an exported journal")
	cmd.Flags().StringSliceVar(&remembered, "head", nil, "a head that was kept, NUMBER:DIGEST; may be given several times")
	return cmd
}

// expecting makes an audit that knows the heads that are remembered.
func expecting(remembered []string) (*journal.Audit, error) {
	audit := &journal.Audit{}
	for _, text := range remembered {
		h, err := journal.ParseHead(text)
		if err != nil {
			return nil, usageError{err}
		}
		if err := audit.Expect(h); err != nil {
			return nil, usageError{err}
		}
	}
	return audit, nil
}

// audited describes an audit that was made here; found is what broke it.
func audited(audit *journal.Audit, found error) *adminv1.AuditJournalResponse {
	r := &adminv1.AuditJournalResponse{Head: audit.Head().String()}
	for _, account := range audit.Accounts() {
		if account.Certified != 0 {
			r.Certificates++
		} else {
			r.Open++
		}
	}
	if found != nil {
		r.Problems = []string{found.Error()}
	}
	return r
}

func verifyJournalFile(c *client, w io.Writer, file string, remembered []string) error {
	audit, err := expecting(remembered)
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("reading the journal: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, journal.MaxLine+2)
	var broken error
	for lines.Scan() && broken == nil {
		_, broken = audit.Add(lines.Bytes())
	}
	if broken == nil {
		if err := lines.Err(); err != nil {
			return fmt.Errorf("reading the journal %s: %w", file, err)
		}
		broken = audit.End()
	}
	return printAudit(c, w, audited(audit, broken))
}

func (a *api) verifyJournal(ctx context.Context, w io.Writer, remembered []string) error {
	audit, err := expecting(remembered)
	if err != nil {
		return err
	}
	var broken error
	head, err := a.readJournal(ctx, func(line []byte) error {
		_, broken = audit.Add(line)
		return broken
	})
	switch {
	case broken != nil:
	case err != nil:
		return err
	default:
		broken = audit.End()
	}
	if broken == nil && head != audit.Head().String() {
		// Records that came after the last page are the controller's to tell; fewer than it tells were given out otherwise.
		if told, err := journal.ParseHead(head); err != nil || told.Number <= audit.Head().Number {
			broken = fmt.Errorf("the records end with %v, but the controller tells the head %s: %w", audit.Head(), head, journal.ErrJournal)
		}
	}
	if broken != nil {
		return printAudit(a.client, w, audited(audit, broken))
	}
	// The controller has the certificates; what was seen here is one more head to be held against.
	r, err := a.authorities.AuditJournal(ctx, &adminv1.AuditJournalRequest{Remembered: append(remembered, audit.Head().String())})
	if err != nil {
		return err
	}
	return printAudit(a.client, w, r)
}

func printAudit(c *client, w io.Writer, r *adminv1.AuditJournalResponse) error {
	err := c.print(w, r, func(w io.Writer) error {
		for _, p := range r.GetProblems() {
			fmt.Fprintln(w, p)
		}
		verdict := "nothing was changed"
		if len(r.GetProblems()) > 0 {
			verdict = "it does not hold together"
		}
		_, err := fmt.Fprintf(w, "journal with the head %s: %s signed, %s without a certificate; %s\n", r.GetHead(),
			plural(int(r.GetCertificates()), "certificate"), plural(int(r.GetOpen()), "intention"), verdict)
		return err
	})
	if err == nil && len(r.GetProblems()) > 0 {
		return errFindings
	}
	return err
}
