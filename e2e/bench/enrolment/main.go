package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/bench/command"
)

func main() {
	command.Main("enrolment", func(args []string) error { return run(args, os.Stdout) })
}

// options are the flags.
type options struct {
	only     string
	n, nodes int
	spread   time.Duration
	left     time.Duration
	profile  string
}

func run(args []string, out io.Writer) (err error) {
	if len(args) > 0 && args[0] == roleArgument {
		return obey(os.Stdin, out)
	}
	var o options
	flags := flag.NewFlagSet("enrolment", flag.ContinueOnError)
	flags.StringVar(&o.only, "only", "join,renew,storm", "what to measure, separated by commas")
	flags.IntVar(&o.n, "n", 2000, "machines that join and renew")
	flags.IntVar(&o.nodes, "nodes", 10000, "machines of the storm")
	flags.DurationVar(&o.spread, "spread", time.Minute, "time within which the machines come back after the outage: the longest pause of the node's client")
	flags.DurationVar(&o.left, "left", 0, "time that the certificates of the storm's machines are good for when the last has joined; 0 is what is usual, 30 days")
	flags.StringVar(&o.profile, "profile", "", "write a processor profile of the controller to this file")
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen, err := command.Parts(o.only, "join", "renew", "storm")
	if err != nil {
		return err
	}
	if o.left < 0 || o.left > machineLife {
		return fmt.Errorf("-left %v, wanted 0 to %v", o.left, machineLife)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	parts := map[string]bool{}
	for _, part := range chosen {
		parts[part] = true
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	machines := exec.CommandContext(ctx, program, roleArgument)
	if parts["join"] || parts["renew"] {
		usual := o
		usual.left = 0
		if err := usual.scene(ctx, machines, o.n, func(s *scene) error {
			renewal, err := s.costs(ctx, out, parts)
			if err != nil || renewal == 0 {
				return err
			}
			return s.bareCosts(out, renewal)
		}); err != nil {
			return err
		}
		machines = exec.CommandContext(ctx, program, roleArgument)
	}
	if !parts["storm"] {
		return nil
	}
	return o.scene(ctx, machines, o.nodes, func(s *scene) error { return s.storm(ctx, out, o.spread) })
}

// A scene is a controller here, and its machines in another process.
type scene struct {
	*fleet
	machines int
	profile  string
	orders   *json.Encoder
	answers  *json.Decoder
}

// scene sets one up, and takes it down after the play. The command is the process of the machines.
func (o options) scene(ctx context.Context, command *exec.Cmd, machines int, play func(*scene) error) (err error) {
	dir, err := os.MkdirTemp("", "bailiwick-enrolment-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	f, err := startFleet(dir, machines, o.left)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	in, err := command.StdinPipe()
	if err != nil {
		return err
	}
	out, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	command.Stderr = os.Stderr
	if err := command.Start(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close(), command.Wait()) }()
	return play(&scene{f, machines, o.profile, json.NewEncoder(in), json.NewDecoder(bufio.NewReader(out))})
}

// have gives an order and waits for what came of it. begun, where not nil, is called when the machines are ready.
func (s *scene) have(o order, begun func() error) (answer, error) {
	if o.Address == "" {
		o.Address = s.address()
	}
	if err := s.tell(o); err != nil {
		return answer{}, err
	}
	if _, err := s.hear(); err != nil {
		return answer{}, err
	}
	if begun != nil {
		if err := begun(); err != nil {
			return answer{}, err
		}
	}
	if err := s.tell(order{}); err != nil {
		return answer{}, err
	}
	return s.hear()
}

func (s *scene) tell(o order) error {
	if err := s.orders.Encode(o); err != nil {
		return fmt.Errorf("telling the machines what to do: %w", err)
	}
	return nil
}

func (s *scene) hear() (answer, error) {
	var a answer
	if err := s.answers.Decode(&a); err != nil {
		return answer{}, fmt.Errorf("waiting for the machines: %w", err)
	}
	if a.Failed != "" {
		return answer{}, errors.New(a.Failed)
	}
	return a, nil
}

// joinAll lets all machines join.
func (s *scene) joinAll(ctx context.Context, begun func() error) (answer, error) {
	tokens, err := s.tokens(ctx, s.machines)
	if err != nil {
		return answer{}, err
	}
	return s.have(order{Tokens: tokens}, begun)
}

// costs measures joins and renewals, and says what a renewal takes.
func (s *scene) costs(ctx context.Context, out io.Writer, parts map[string]bool) (renewal time.Duration, err error) {
	if !parts["join"] {
		if _, err := s.joinAll(ctx, nil); err != nil {
			return 0, err
		}
	} else if _, err := s.cost(out, "a machine joins with a token", joinParts, func(begun func() error) (answer, error) { return s.joinAll(ctx, begun) }); err != nil {
		return 0, err
	}
	if !parts["renew"] {
		return 0, nil
	}
	return s.cost(out, "a machine renews its certificate over mutual TLS", renewParts, s.renewAll)
}

func (s *scene) renewAll(begun func() error) (answer, error) {
	return s.have(order{Renew: true}, begun)
}

// bareCosts measures renewals of a bare server beside one of the controller. The machines are that server's afterwards.
func (s *scene) bareCosts(out io.Writer, renewal time.Duration) error {
	b, err := startBare()
	if err != nil {
		return err
	}
	if err := errors.Join(s.bareRenewals(out, b, renewal), b.close()); err != nil {
		return fmt.Errorf("the bare server: %w", err)
	}
	return nil
}

func (s *scene) bareRenewals(out io.Writer, b *bare, renewal time.Duration) error {
	if _, err := s.have(order{Address: b.address, Tokens: b.tokens(s.machines)}, nil); err != nil {
		return err
	}
	least, err := s.cost(out, "the same of a server of gRPC that does nothing but the cryptography", renewParts, s.renewAll)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "  %.1f %% of what the controller takes for a renewal is what that server takes\n", 100*least.Seconds()/renewal.Seconds())
	return err
}

// cost measures this process while the machines do something, and prints that beside the floor.
func (s *scene) cost(out io.Writer, what string, parts []part, have func(begun func() error) (answer, error)) (each time.Duration, err error) {
	before, err := measureFloor()
	if err != nil {
		return 0, err
	}
	var start time.Duration
	a, err := have(func() error {
		if err := s.beginProfile(); err != nil {
			return err
		}
		start, err = processor()
		return err
	})
	if err != nil {
		return 0, err
	}
	end, err := processor()
	if err != nil {
		return 0, err
	}
	pprof.StopCPUProfile()
	after, err := measureFloor()
	if err != nil {
		return 0, err
	}
	costs := mean(before, after)
	each = (end - start) / time.Duration(s.machines)
	least := costs.of(parts)
	var text strings.Builder
	fmt.Fprintf(&text, "%s (%d machines, %d at a time)\n", what, s.machines, workers)
	for _, p := range parts {
		fmt.Fprintf(&text, "  %5d us  %d x %s\n", (time.Duration(p.times) * costs[p.kind]).Microseconds(), p.times, p.what)
	}
	fmt.Fprintf(&text, "  %5d us  floor\n  %5d us  processor time of the server: %.1f %% of it is the floor\n", least.Microseconds(), each.Microseconds(), 100*least.Seconds()/each.Seconds())
	fmt.Fprintf(&text, "  %5.0f a second and core; %.0f a second by the clock, machines beside it\n", 1/each.Seconds(), float64(s.machines)/a.Took.Seconds())
	_, err = io.WriteString(out, text.String())
	return each, err
}

// beginProfile begins one where it was asked for; the last one of a run stays.
func (s *scene) beginProfile() error {
	if s.profile == "" {
		return nil
	}
	f, err := os.Create(s.profile)
	if err != nil {
		return err
	}
	return pprof.StartCPUProfile(f)
}
