// Command datapath measures how fast packets go through the node, beside what the same machine does in the same run
// without any protection, with a plain relay between a TUN device and UDP, with wireguard-go, and with strongSwan's
// userspace ESP. Both ends, the senders and the receivers share the machine, so that only ratios of one run mean
// something.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/bench/command"
)

func main() { command.Main("datapath", run) }

// options are what the command line asked for.
type options struct {
	node, wireguard string // binaries
	only            []string
	seconds         int
	rounds          int
	queues          int // packet threads of the nodes; 0 for what they choose
	associations    int // Child SAs between the nodes
}

func run(args []string) error {
	if len(args) == 3 && args[0] == relayArgument {
		return relay(args[1], args[2])
	}
	var o options
	flags := flag.NewFlagSet("datapath", flag.ContinueOnError)
	flags.StringVar(&o.node, "node", "bin/bailiwick-node", "the daemon to measure")
	flags.StringVar(&o.wireguard, "wireguard", "", "a wireguard-go to compare with")
	only := flags.String("only", "", "only these paths, separated by commas: "+strings.Join(pathNames(), ", "))
	flags.IntVar(&o.seconds, "seconds", 3, "length of each transfer")
	flags.IntVar(&o.rounds, "rounds", 3, "rounds over all paths; the median counts")
	flags.IntVar(&o.queues, "queues", 0, "packet threads of each node; 0 for what it chooses by itself")
	flags.IntVar(&o.associations, "associations", 1, "Child SAs with the same selectors between the nodes")
	output := flags.String("json", "", "write the figures to this file as well")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *only != "" {
		var err error
		if o.only, err = command.Parts(*only, pathNames()...); err != nil {
			return err
		}
	}
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	r, err := measure(ctx, o, func(format string, a ...any) {
		fmt.Fprintf(os.Stderr, "%s %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, a...))
	})
	if err != nil {
		return err
	}
	fmt.Fprint(os.Stdout, r.text())
	return command.WriteJSON(*output, r)
}
