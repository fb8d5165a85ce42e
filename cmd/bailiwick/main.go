// Command bailiwick is the administrator's: it applies policy documents, links policies to containers, shows the tree
// with what applies to each machine and why, and hands out join tokens. It talks to a controller over its unix socket
// or, with an administrator's certificate, over the network; everything is decided there.
//
// Exit codes: 0 done, 1 failure, 2 wrong command line, 3 what was asked for does not exist, 4 the controller refused,
// 5 the controller cannot be reached, 6 what was verified does not pass.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// The exit codes.
const (
	exitFailure     = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitRefused     = 4
	exitUnreachable = 5
	exitFindings    = 6
)

func main() { os.Exit(run()) }

func run() int {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	cmd, err := command().ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if !errors.Is(err, errFindings) { // they are printed
		report(os.Stderr, cmd, err)
	}
	return exitCode(err)
}

// usageError is an error of the command line itself.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// exitCode is the one mapping from errors to exit codes.
func exitCode(err error) int {
	if errors.Is(err, errFindings) {
		return exitFindings
	}
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	s, ok := status.FromError(err)
	if !ok {
		return exitFailure
	}
	switch s.Code() {
	case codes.NotFound:
		return exitNotFound
	case codes.InvalidArgument, codes.FailedPrecondition, codes.PermissionDenied, codes.AlreadyExists, codes.Unauthenticated,
		codes.Aborted, codes.ResourceExhausted:
		return exitRefused
	case codes.Unavailable, codes.DeadlineExceeded:
		return exitUnreachable
	}
	return exitFailure
}

// report prints an error in one line, and below it where documents are wrong, or a hint.
func report(w io.Writer, cmd *cobra.Command, err error) {
	var usage usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(w, "bailiwick: %v\nsee: %s --help\n", err, cmd.CommandPath())
		return
	}
	s, ok := status.FromError(err)
	if !ok {
		fmt.Fprintf(w, "bailiwick: %v\n", err)
		return
	}
	message, hint := s.Message(), ""
	if s.Code() == codes.Unavailable && strings.Contains(message, "connection error") {
		message, hint = unreachable(message)
	}
	fmt.Fprintf(w, "bailiwick: %s\n", message)
	if hint != "" {
		fmt.Fprintln(w, hint)
	}
	for _, d := range s.Details() {
		if p, ok := d.(*adminv1.Problems); ok {
			printProblems(w, "", p.GetProblems())
		}
	}
}

// unreachable turns the library's sentence about a connection into one for people.
func unreachable(message string) (text, hint string) {
	cause := message
	for _, mark := range []string{`desc = "`, `Error while dialing: `} {
		if _, after, ok := strings.Cut(cause, mark); ok {
			cause = strings.TrimSuffix(after, `"`)
		}
	}
	hint = "is bailiwick-controller running there? name its socket with --socket, or its address with --server"
	if strings.Contains(cause, "permission denied") || strings.Contains(cause, "only root") {
		hint = "the socket is open to root and to the controller's own user: use sudo, or a certificate with --server"
	}
	return "cannot reach the controller: " + cause, hint
}

func printProblems(w io.Writer, prefix string, problems []*adminv1.Problem) {
	for _, p := range problems {
		fmt.Fprint(w, prefix)
		if p.GetLine() > 0 {
			fmt.Fprintf(w, "%s:%d:%d: ", p.GetSource(), p.GetLine(), p.GetColumn())
		} else if p.GetSource() != "" {
			fmt.Fprintf(w, "%s: ", p.GetSource())
		}
		if p.GetDocument() != "" {
			fmt.Fprintf(w, "%s: ", p.GetDocument())
		}
		fmt.Fprintln(w, p.GetMessage())
		if p.GetExcerpt() != "" {
			fmt.Fprintln(w, strings.TrimRight(p.GetExcerpt(), "\n"))
		}
		if p.GetHint() != "" {
			fmt.Fprintf(w, "hint: %s\n", p.GetHint())
		}
	}
}

func command() *cobra.Command {
	c := &client{}
	root := &cobra.Command{
		Use:           "bailiwick",
		Short:         "Administer a Bailiwick fleet",
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			return c.validate()
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	c.flags(root.PersistentFlags())
	root.AddCommand(
		applyCommand(c), planCommand(c), testCommand(c), deleteCommand(c), renameCommand(c), exportCommand(c), getCommand(c), linkCommand(c), unlinkCommand(c),
		tokenCommand(c), enrollmentCommand(c), secretCommand(c), explainCommand(c), directoryCommand(c), administratorCommand(c), schemaCommand(c), templateCommand(c),
		importCommand(c), verifyCommand(c), certCommand(c), caCommand(c),
		demoCommand(),
	)
	return root
}

// upTo allows the arguments to be left out from the end.
func upTo(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if len(given) <= len(names) {
			return nil
		}
		return usagef("%s takes at most %s", cmd.CommandPath(), strings.Join(names, " and "))
	}
}

// args checks the number of arguments and says which ones are wanted.
func args(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		switch {
		case len(given) == len(names):
			return nil
		case len(names) == 0:
			return usagef("%s takes no arguments, but %q was given", cmd.CommandPath(), given[0])
		}
		return usagef("%s wants %s", cmd.CommandPath(), strings.Join(names, " and "))
	}
}
