// Command bench measures the product and prints its figures beside the floor that the cryptography sets and beside what
// other daemons need in the same run. Figures are processor time, so that a busy machine distorts them little, and hold
// within one run only.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/bench/command"
)

func main() {
	command.Main("bench", func(args []string) error { return run(args, os.Stdout) })
}

// parts is what can be measured.
func parts() []string {
	return []string{"memory", "udp", "charon", "footprint", "children", "peers", "flood"}
}

func run(args []string, out io.Writer) (err error) {
	if len(args) > 0 && args[0] == roleArgument {
		return serveRole(os.Stdin, out)
	}
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&o.peers, "n", 500, "handshakes of one burst")
	flags.IntVar(&o.rounds, "rounds", 5, "bursts of each case; the median counts")
	only := flags.String("only", strings.Join(parts(), ","), "what to measure, separated by commas")
	flags.StringVar(&o.match, "case", "", "only cases whose name contains this")
	output := flags.String("json", "", "write the figures to this file as well")
	profile := flags.String("profile", "", "write a processor profile to this file")
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen, err := command.Parts(*only, parts()...)
	if err != nil {
		return err
	}
	o.parts = make(map[string]bool)
	for _, part := range chosen {
		o.parts[part] = true
	}
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	report, err := measure(ctx, o, func(text string) {
		fmt.Fprintf(os.Stderr, "%s %s\n", time.Now().Format("15:04:05"), text)
	})
	if err != nil {
		return err
	}
	if _, err := io.WriteString(out, report.text()); err != nil {
		return err
	}
	return command.WriteJSON(*output, report)
}
