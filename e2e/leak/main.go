// Command leak is the leak test: two machines that must protect everything between them, a third one that forges their
// packets, and a wiretap in the middle, through kills, rekeys, policy swaps and everything else that goes wrong with
// machines. It ends with an error if anything was in clear, was accepted in clear, or did not come back.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "leak:", err)
		os.Exit(1)
	}
}

// options are what the command line asked for.
type options struct {
	bin       string // directory of the binaries
	dir       string // for state and logs
	prefix    string // of the namespaces
	mode      mode   // that is played
	seed      uint64
	length    time.Duration
	swapEvery time.Duration
	only      []string
	keepGoing bool
}

// events are those that may happen in the run.
func (o options) events() []event {
	return slices.DeleteFunc(events(), func(e event) bool {
		if o.only != nil {
			return !slices.Contains(o.only, e.name)
		}
		return leftOut[e.name] != ""
	})
}

func parse(args []string) (o options, list []mode, output string, err error) {
	flags := flag.NewFlagSet("leak", flag.ContinueOnError)
	flags.StringVar(&o.bin, "bin", "bin", "directory of bailiwick, bailiwick-controller, bailiwick-node and wiretap")
	flags.StringVar(&o.dir, "dir", "", "directory for state and logs, which is kept (default: a temporary one)")
	flags.StringVar(&o.prefix, "prefix", "leak-", "prefix of the network namespaces")
	flags.Uint64Var(&o.seed, "seed", 0, "decides about the order of events (default: a random one)")
	flags.DurationVar(&o.length, "length", 10*time.Minute, "how long events happen, in all modes together")
	flags.DurationVar(&o.swapEvery, "swap", 450*time.Millisecond, "the time between two policies")
	flags.BoolVar(&o.keepGoing, "keep-going", false, "go on after a leak")
	flags.StringVar(&output, "json", "", "write the report to this file as well")
	played := flags.String("mode", "all", "what the machines do: transport (ESP in UDP), native (ESP alone), tunnel (with hosts behind the machines), or all, one after the other")
	var names []string
	for _, e := range events() {
		names = append(names, e.name)
	}
	only := flags.String("only", "", "only these events, separated by commas: "+strings.Join(names, ", "))
	if err := flags.Parse(args); err != nil {
		return o, nil, "", err
	}
	if *only != "" {
		o.only = strings.Split(*only, ",")
		for _, name := range o.only {
			if !slices.Contains(names, name) {
				return o, nil, "", fmt.Errorf("there is no event %q; write %s", name, strings.Join(names, ", "))
			}
		}
	}
	if o.swapEvery <= 0 || o.length <= 0 {
		return o, nil, "", fmt.Errorf("-swap is %s and -length %s, want more than nothing", o.swapEvery, o.length)
	}
	if list, err = parseModes(*played); err != nil {
		return o, nil, "", err
	}
	if o.seed == 0 {
		o.seed = rand.Uint64() >> 32
	}
	o.bin, err = filepath.Abs(o.bin)
	return o, list, output, err
}

// run writes the report to out, and what happens to progress.
func run(args []string, out, progress io.Writer) error {
	o, list, output, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o.length /= time.Duration(len(list))
	var reports []*report
	for _, o.mode = range list {
		r, failure := leak(ctx, o, func(format string, a ...any) {
			fmt.Fprintf(progress, "%s %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, a...))
		})
		err = errors.Join(err, failure)
		if r != nil {
			fmt.Fprintln(out, r.text())
			reports = append(reports, r)
		}
		if ctx.Err() != nil {
			break
		}
	}
	if output != "" {
		b, encode := json.MarshalIndent(reports, "", "  ")
		err = errors.Join(err, encode, os.WriteFile(output, append(b, '\n'), 0o644))
	}
	return err
}

// leak plays and returns the report, which there is even with an error.
func leak(ctx context.Context, o options, say func(format string, a ...any)) (_ *report, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("network namespaces need root")
	}
	if o.dir != "" {
		o.dir = filepath.Join(o.dir, string(o.mode))
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "bailiwick-leak"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	} else if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return nil, err
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return nil, err
	}
	say("mode %s, seed %d", o.mode, o.seed)
	r := &report{Seed: o.seed, Mode: o.mode}
	err = play(ctx, o, r, say)
	if err != nil {
		r.Failure = err.Error()
	}
	return r, err
}
