package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/bailiwick-net/bailiwick/e2e/bank"
	"github.com/bailiwick-net/bailiwick/e2e/lab"
)

const (
	clientPolicy       = "Client (Respond Only)"
	serverPolicy       = "Server (Request Security)"
	secureServerPolicy = "Secure Server (Require Security)"

	secureServers = "OU=SecureServers,dc=bank,dc=example"
)

var errDemo = errors.New("the demo did not see what it must see")

func demoCommand() *cobra.Command {
	var keep, slow bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Play the Bank: a directory, three policies, eight machines in network namespaces, every packet measured",
		Long: `demo builds a small bank on this machine: network namespaces on one bridge, each a
machine with its own address, a controller, and the real node daemon on six of
them. It links the three predefined policies, measures who can talk to whom and
how, moves a machine, and kills the controller. It ends with a non-zero exit code
if anything is not as it must be, and removes what it made.

It needs root, or a kernel that lets users make user namespaces.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return inNamespace(cmd.Context(), cmd.OutOrStdout(), func(ctx context.Context) error {
				return playDemo(ctx, cmd.OutOrStdout(), keep, slow)
			})
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave everything running and print the commands to explore it")
	cmd.Flags().BoolVar(&slow, "slow", false, "on a slow machine: show times without judging them")
	return cmd
}

// demo is one performance.
type demo struct {
	out     io.Writer
	bank    *bank.Bank
	dir     string
	slow    bool // times are not judged
	start   time.Time
	failed  []string
	machine map[string]bank.Machine
}

func playDemo(ctx context.Context, out io.Writer, keep, slow bool) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return fmt.Errorf("the demo makes network namespaces with ip(8) (%w): install the package iproute2", err)
	}
	const scratch = "bailiwick-demo"
	dir := filepath.Join(os.TempDir(), scratch)
	// What an interrupted demo left is removed here; its namespaces are removed by bank.New.
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	d := &demo{out: out, dir: dir, slow: slow, start: time.Now(), machine: map[string]bank.Machine{}}
	for _, m := range bank.Machines() {
		d.machine[m.Name] = m
	}
	d.step("Building the Bank: one bridge, a controller, eight machines")
	d.bank, err = bank.New(ctx, bank.Config{Bin: filepath.Dir(self), Dir: dir})
	if errors.Is(err, lab.ErrNotRoot) {
		return errors.Join(errors.New("the demo makes network namespaces, which needs root: run sudo make demo"), os.RemoveAll(dir))
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	defer func() {
		if keep && err == nil {
			d.explore()
			<-ctx.Done()
		}
		if err != nil && ctx.Err() == nil {
			d.showLogs()
		}
		d.note("removing everything that the demo made")
		err = errors.Join(err, d.bank.Close(), os.RemoveAll(dir))
	}()
	for _, act := range []func(context.Context) error{d.assign, d.join, d.matrix, d.move, d.loseController} {
		if err := act(ctx); err != nil {
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			return err
		}
	}
	if len(d.failed) > 0 {
		return fmt.Errorf("%w: %s", errDemo, strings.Join(d.failed, "; "))
	}
	d.step(fmt.Sprintf("Everything was as it must be. %.0f s", time.Since(d.start).Seconds()))
	return nil
}

func (d *demo) printf(format string, args ...any) { fmt.Fprintf(d.out, format, args...) }
func (d *demo) step(title string)                 { d.printf("\n== %s\n", title) }
func (d *demo) note(format string, args ...any)   { d.printf("   "+format+"\n", args...) }

func (d *demo) fail(format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	d.failed = append(d.failed, message)
	d.note("NOT AS IT MUST BE: %s", message)
}

// indent prints what a command printed.
func (d *demo) indent(text string) {
	for line := range strings.Lines(text) {
		d.printf("   %s", line)
	}
}

// assign starts the controller, links the policies and shows the tree.
func (d *demo) assign(ctx context.Context) error {
	d.step("1. The directory, and the policy that applies to each machine")
	if err := d.bank.StartController(ctx); err != nil {
		return err
	}
	for _, link := range [][]string{
		{clientPolicy, "dc=bank,dc=example"},
		{serverPolicy, "OU=Servers,dc=bank,dc=example"},
		{secureServerPolicy, secureServers},
	} {
		if _, err := d.bank.Admin(ctx, "link", link[0], link[1]); err != nil {
			return err
		}
		d.note("bailiwick link %q %q", link[0], link[1])
	}
	tree, err := d.bank.Admin(ctx, "get", "tree")
	if err != nil {
		return err
	}
	d.printf("\n")
	d.indent(tree)
	return nil
}

// join lets every node redeem a token and waits for its policy.
func (d *demo) join(ctx context.Context) error {
	d.step("2. Each node joins with a single-use token, gets its certificate and its policy")
	policies := map[bank.Class]string{bank.Client: clientPolicy, bank.Server: serverPolicy, bank.SecureServer: secureServerPolicy}
	for _, m := range bank.Machines() {
		if !m.Node {
			continue
		}
		certificate, err := d.bank.Join(ctx, m)
		if err != nil {
			return err
		}
		if err := d.bank.StartNode(m); err != nil {
			return err
		}
		status, err := d.bank.AwaitPolicy(ctx, m, policies[m.Class])
		if err != nil {
			return err
		}
		d.printf("\n   %s: ", m.Name)
		d.printf("%s", strings.ReplaceAll(strings.TrimRight(certificate, "\n"), "\n", "\n   "))
		d.printf("\n     policy    %s, from %s\n     revision  %d acknowledged, bundle %.16s\n", status.Policy, status.Container, status.Revision, status.Digest)
		d.printf("     datapath  %s. %s\n", status.Backend, strings.Join(status.Notes[:min(1, len(status.Notes))], ""))
	}
	return nil
}

// pairs gives each cell of the matrix two machines that no other cell uses in any order.
func pairs() [][2]string {
	return [][2]string{
		{"guest1", "printer1"}, {"printer1", "ws1"}, {"printer1", "files1"}, {"printer1", "sql1"},
		{"ws1", "guest1"}, {"ws1", "ws2"}, {"ws1", "files1"}, {"ws1", "sql1"},
		{"files1", "guest1"}, {"files1", "ws2"}, {"files1", "files2"}, {"files1", "sql1"},
		{"sql1", "guest1"}, {"sql1", "ws2"}, {"sql1", "files2"}, {"sql1", "sql2"},
	}
}

// patience is how long an exchange may take: longer than the fallback's 3 s and the SYN that is repeated after it.
const patience = 9 * time.Second

func (d *demo) matrix(ctx context.Context) error {
	d.step("3. Who talks to whom: every cell is a real exchange, judged by a capture on the bridge")
	cells, err := d.measure(ctx, pairs())
	if err != nil {
		return err
	}
	d.showMatrix(cells)
	return nil
}

// measure runs the exchanges one after another; one that takes long goes on while the next ones run, so that none
// disturbs the first packet of another.
func (d *demo) measure(ctx context.Context, pairs [][2]string) ([]bank.Cell, error) {
	const long = 400 * time.Millisecond
	cells := make([]bank.Cell, len(pairs))
	errs := make([]error, len(pairs))
	var group sync.WaitGroup
	var mu sync.Mutex
	for i, p := range pairs {
		done := make(chan struct{})
		group.Go(func() {
			defer close(done)
			cells[i], errs[i] = d.bank.Measure(ctx, d.machine[p[0]], d.machine[p[1]], patience)
			mu.Lock()
			defer mu.Unlock()
			c := cells[i]
			d.note("%-8s -> %-8s  %-20s %9s   (%s)", p[0], p[1], c.Seen, delay(c.FirstPacket), c.Wire)
		})
		select {
		case <-done:
		case <-time.After(long):
		}
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for _, c := range cells {
		if !c.OK() {
			d.fail("%s (%s) to %s (%s) must be %q, was %q: %s; %s", c.Initiator.Name, c.From, c.Responder.Name, c.To, c.Expected, c.Seen, c.Wire, c.Err)
		}
	}
	return cells, nil
}

func delay(t time.Duration) string {
	if t == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", float64(t.Microseconds())/1000)
}

// showMatrix draws initiators as rows and responders as columns, seen above expected where they differ.
func (d *demo) showMatrix(cells []bank.Cell) {
	const width = 36
	d.printf("\n   %-16s", "from \\ to")
	for _, to := range bank.Classes() {
		d.printf("%-*s", width, to)
	}
	d.printf("\n")
	right := 0
	for _, from := range bank.Classes() {
		if !slices.ContainsFunc(cells, func(c bank.Cell) bool { return c.From == from }) {
			continue
		}
		d.printf("   %-16s", from)
		for _, to := range bank.Classes() {
			for _, c := range cells {
				if c.From != from || c.To != to {
					continue
				}
				text := fmt.Sprintf("%s, %s", c.Seen, delay(c.FirstPacket))
				if c.Seen == bank.Blocked {
					text = string(c.Seen)
				}
				if c.OK() {
					right++
					text = "ok " + text
				} else {
					text = fmt.Sprintf("BAD %s, not %s", c.Seen, c.Expected)
				}
				d.printf("%-*s", width, text)
			}
		}
		d.printf("\n")
	}
	d.printf("\n   %d of %d cells as expected; the time is that of the first packet's answer\n", right, len(cells))
}

// move puts ws2 among the secure servers.
func (d *demo) move(ctx context.Context) error {
	d.step("4. ws2 moves to OU=SecureServers in the directory; nobody touches the machine")
	ws2 := d.machine["ws2"]
	start := time.Now()
	if err := d.bank.Move(ws2, secureServers); err != nil {
		return err
	}
	status, err := d.bank.AwaitPolicy(ctx, ws2, secureServerPolicy)
	if err != nil {
		return err
	}
	took := time.Since(start)
	d.note("ws2 enforces %q from %s, revision %d, after %.0f ms", status.Policy, status.Container, status.Revision, float64(took.Milliseconds()))
	if took > time.Second && !d.slow {
		d.fail("the change took %s, more than a second", took.Round(time.Millisecond))
	}
	ws2.Class = bank.SecureServer
	d.machine["ws2"] = ws2
	cells, err := d.measure(ctx, [][2]string{{"ws2", "printer1"}, {"ws2", "ws1"}, {"ws2", "files2"}, {"ws2", "sql2"}})
	if err != nil {
		return err
	}
	d.showMatrix(cells)
	return nil
}

// loseController kills the controller under protected traffic, rekeys, and brings it back.
func (d *demo) loseController(ctx context.Context) error {
	d.step("5. The controller dies; protected traffic goes on, through a rekey; it comes back")
	from, to := d.machine["ws1"], d.machine["files1"]
	flow, err := d.bank.OpenFlow(ctx, from, to)
	if err != nil {
		return err
	}
	defer flow.Close()
	if err := d.bank.KillController(); err != nil {
		return err
	}
	d.note("controller killed; a TCP connection from %s to %s exchanges a message every 20 ms", from.Name, to.Name)
	before, after, err := d.bank.RekeyAll(ctx, to, from.Address)
	if err != nil {
		return err
	}
	d.note("IKE SA  %s -> %s", before.IKE, after.IKE)
	d.note("ESP SA  %s -> %s", before.Child, after.Child)
	const atLeast = 100
	if err := flow.Await(ctx, atLeast); err != nil {
		return err
	}
	report, err := flow.Close()
	if err != nil {
		d.fail("the connection broke: %v", err)
	}
	d.note("%d messages, none lost, longest wait %s; on the wire: %s", report.Messages, delay(report.LongestWait), report.Wire)
	if report.Wire.ClearTCP > 0 || report.Wire.ESP == 0 {
		d.fail("protected traffic was seen in clear: %s", report.Wire)
	}
	back := time.Now()
	if err := d.bank.StartController(ctx); err != nil {
		return err
	}
	for _, m := range bank.Machines() {
		if m.Node {
			if err := d.bank.AwaitSession(ctx, m); err != nil {
				return err
			}
		}
	}
	d.note("controller is back; every node has its session again after %.1f s", time.Since(back).Seconds())
	machines, err := d.bank.Admin(ctx, "get", "nodes")
	if err != nil {
		return err
	}
	d.indent(machines)
	return nil
}

// explore prints how to look around.
func (d *demo) explore() {
	d.step("The Bank keeps running until Ctrl-C. To explore it, in another terminal:")
	self, err := os.Executable()
	if err != nil {
		return
	}
	node := filepath.Join(filepath.Dir(self), "bailiwick-node")
	d.printf(`   export PATH=%s:$PATH
   bailiwick --socket %s get tree
   bailiwick --socket %[2]s explain machine ws2
   %s status --socket %s
   %[3]s sas --socket %[5]s
   ip netns exec bank-ws1 ping 10.83.0.11
   ip netns exec bank-switch tcpdump -ni br0
   logs and state: %[6]s
`, filepath.Dir(self), d.bank.AdminSocket(), node, d.bank.NodeSocket(d.machine["sql1"]), d.bank.NodeSocket(d.machine["ws1"]), d.dir)
}

// showLogs prints the end of every log, because they go with the demo.
func (d *demo) showLogs() {
	logs, err := filepath.Glob(filepath.Join(d.dir, "*.log"))
	if err != nil {
		return
	}
	for _, path := range logs {
		content, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimRight(string(content), "\n"), "\n")
		d.printf("\n-- %s\n%s\n", filepath.Base(path), strings.Join(lines[max(0, len(lines)-12):], "\n"))
	}
}
