package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

func directoryHeldCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "held [SOURCE]",
		Short: "Show every machine that a held change affects",
		Args:  upTo("SOURCE"),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, args []string) error {
			request := &adminv1.ListHeldRequest{}
			if len(args) > 0 {
				request.Source = args[0]
			}
			r, err := a.directories.ListHeld(ctx, request)
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				if len(r.GetHeld()) == 0 {
					_, err := fmt.Fprintln(w, "no change is held")
					return err
				}
				for _, h := range r.GetHeld() {
					fmt.Fprintf(w, "Source %s\n", h.GetSource())
					printHeld(w, h.GetChange())
				}
				return nil
			})
		}),
	}
}

func directoryRaiseCommand(c *client) *cobra.Command {
	var life time.Duration
	var machines uint32
	cmd := &cobra.Command{
		Use:   "raise [SOURCE]",
		Short: "Announce one change of many machines, which the guard then lets pass",
		Long: `Announce one change of the directory that affects more machines than the guard lets pass. The first change that would be held,
and affects no more machines than announced, passes; then, or when the time is over, the limits hold as before. A change that leaves
no machine never passes. What is held already is released with: bailiwick directory release.`,
		Args: upTo("SOURCE"),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, args []string) error {
			if machines == 0 {
				return usagef("%s wants --machines: how many may be affected", cmd.CommandPath())
			}
			request := &adminv1.RaiseLimitRequest{Machines: machines, Life: durationpb.New(life)}
			if len(args) > 0 {
				request.Source = args[0]
			}
			r, err := a.directories.RaiseLimit(ctx, request)
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "announced: one change of up to %s may pass until %s\n", plural(int(machines), "machine"), when(r.GetUntil()))
				return err
			})
		}),
	}
	cmd.Flags().Uint32Var(&machines, "machines", 0, "how many machines the change may affect")
	cmd.Flags().DurationVar(&life, "for", time.Hour, "for how long, at most 24h")
	return cmd
}

func directoryEventsCommand(c *client) *cobra.Command {
	var source string
	var limit uint32
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happened to the directories, and who released, discarded or announced what",
		Args:  args(),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, _ []string) error {
			r, err := a.directories.ListDirectoryEvents(ctx, &adminv1.ListDirectoryEventsRequest{Source: source, Limit: limit})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				table := rows{{"WHEN", "SOURCE", "EVENT", "BY", "CHANGE", "WHAT"}}
				for _, e := range r.GetEvents() {
					table.add(when(e.GetAt()), e.GetSource(), e.GetKind(), orDash(e.GetBy()), orDash(short(e.GetChange())), e.GetText())
				}
				return table.write(w)
			})
		}),
	}
	cmd.Flags().StringVar(&source, "source", "", "of this source only")
	cmd.Flags().Uint32Var(&limit, "limit", 100, "how many, the latest")
	return cmd
}
