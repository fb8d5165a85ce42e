package ikesim

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

var updateStories = flag.Bool("ikesim.stories", false, "write what the stories of testdata/stories tell now")

// A story is a file of testdata/stories: what two nodes do, and what both sides then send, install, use and remove. Lines
// that begin with "#" say what it is about, lines that begin with ">" are commands, and the rest is what must happen:
// once for each side that has the lowest nonce where "> nonces" asks for that.
//
//	> up                                both have an IKE SA and a Child SA, for UDP, and rest
//	> NODE rekey-child                  its first Child SA; also delete-child, rekey-ike, delete-ike, lose-child, and
//	                                    acquire, for another one
//	> hold NODE EXCHANGE request        keep what NODE sends of that; also response. Several hold at once
//	> release, > drop                   deliver what is held, or forget it; hold nothing any more
//	> wait 100ms                        let time pass
//
// In what happens, a1 and b1 are the inbound SPIs of Child SAs in the order of their making on each side, and #1 is the
// first IKE SA of a side.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/stories/*.txt")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d stories, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			octets, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var head, commands, want []string
			for line := range strings.Lines(string(octets)) {
				switch line = strings.TrimRight(line, "\n"); {
				case strings.HasPrefix(line, ">"):
					commands, head = append(commands, strings.TrimPrefix(line, "> ")), append(head, line)
				case strings.HasPrefix(line, "#"):
					head = append(head, line)
				default:
					want = append(want, line)
				}
			}
			var got []string
			lows := []string{""}
			if slices.Contains(commands, "nonces") {
				lows = []string{"a", "b"}
			}
			for _, low := range lows {
				if low != "" {
					got = append(got, "", low+" has the lowest nonce:")
				} else {
					got = append(got, "")
				}
				got = append(got, tell(t, commands, low)...)
			}
			if *updateStories {
				if err := os.WriteFile(file, []byte(strings.Join(append(head, got...), "\n")+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if !slices.Equal(got, want) {
				t.Errorf("want%s\nhave%s", strings.Join(want, "\n  "), strings.Join(got, "\n  "))
			}
		})
	}
}

// teller plays one story.
type teller struct {
	t        *testing.T
	w        *World
	a, b     *Node
	dice     map[*Node]*loaded
	holds    []func(from *Node, exchange uint8, response bool) bool
	children map[string]string // SPI as it is written -> name
	made     map[string]int    // Child SAs and IKE SAs of each node so far
	sas      map[string]string // node and tag -> name
	used     map[string]string // what each node was told to use last
}

// tell plays the commands and returns what happened.
func tell(t *testing.T, commands []string, low string) []string {
	t.Helper()
	x := &teller{t: t, children: make(map[string]string), made: make(map[string]int), sas: make(map[string]string), used: make(map[string]string)}
	x.w, x.a, x.b = pair(1, Faults{Delay: 10 * time.Millisecond}, pskAuth, nil)
	for _, n := range []*Node{x.a, x.b} {
		n.Config.Liveness = time.Hour // nobody asks meanwhile
		n.boot()
	}
	x.dice = map[*Node]*loaded{x.a: x.a.load(), x.b: x.b.load()}
	shown := 0
	var got []string
	show := func() {
		for _, line := range x.w.Trace[shown:] {
			if s := x.line(line); s != "" {
				got = append(got, "  "+s)
			}
		}
		shown = len(x.w.Trace)
	}
	for _, c := range commands {
		x.perform(strings.Fields(c), low)
		if c == "up" {
			show()
			got = got[:0]
		}
	}
	x.w.Run(5 * time.Minute)
	show()
	x.w.CheckRest()
	verify(t, x.w)
	for _, n := range []*Node{x.a, x.b} {
		var list []string
		for s := range n.Engine.SAs() {
			if ike.IKESPI(s.SPI()) == n.ikeSPI() {
				list = append(list, x.ike(n, fmt.Sprintf("%04x", uint64(s.SPI())>>48)))
			}
		}
		for _, spi := range n.live() {
			list = append(list, x.child(n, spi.String()))
		}
		got = append(got, fmt.Sprintf("  at rest %s has %s", n.Name[:1], strings.Join(append(list, "nothing else"), ", ")))
	}
	return got
}

func (x *teller) node(name string) *Node {
	n, ok := map[string]*Node{"a": x.a, "b": x.b}[name]
	if !ok {
		x.t.Fatalf("there is no node %q", name)
	}
	return n
}

func (x *teller) perform(f []string, low string) {
	switch {
	case f[0] == "up":
		x.a.Do(ike.Acquire{Flow: protocol(flow(addrA, addrB), 17)})
		x.w.Run(time.Second)
		mirrored(x.t, x.w, x.a, x.b, 1)
	case f[0] == "nonces":
		for n, d := range x.dice {
			d.begin(n.Name[:1] == low)
		}
	case f[0] == "wait":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			x.t.Fatal(err)
		}
		x.w.Run(d)
	case f[0] == "hold":
		node, exchange, response := x.node(f[1]), exchangeNamed(x.t, f[2]), f[3] == "response"
		x.holds = append(x.holds, func(from *Node, e uint8, r bool) bool { return from == node && e == exchange && r == response })
		x.w.Hold(func(from, _ *Node, e uint8, r bool) bool {
			return slices.ContainsFunc(x.holds, func(h func(*Node, uint8, bool) bool) bool { return h(from, e, r) })
		})
	case f[0] == "release":
		x.holds = nil
		x.w.Release()
	case f[0] == "drop":
		x.holds = nil
		x.w.disturbed = true
		x.w.DropHeld()
	case len(f) == 2:
		x.does(x.node(f[0]), f[1])
	default:
		x.t.Fatalf("there is no command %q", f)
	}
}

func (x *teller) does(n *Node, what string) {
	switch what {
	case "rekey-child":
		n.rekeyChild()
	case "delete-child":
		n.deleteChild()
	case "rekey-ike":
		n.rekeyIKE()
	case "delete-ike":
		n.deleteIKE()
	case "lose-child": // the datapath has refused it
		n.Do(ike.InstallFailed{SPI: n.child()})
	case "acquire":
		n.Do(ike.Acquire{Flow: protocol(flow(n.Addr, map[*Node]*Node{x.a: x.b, x.b: x.a}[n].Addr), 6)})
	default:
		x.t.Fatalf("nobody can %s", what)
	}
}

// protocol is a flow of one protocol only.
func protocol(f ike.Flow, number uint8) ike.Flow {
	f.LocalTS.Protocol, f.RemoteTS.Protocol = number, number
	return f
}

func exchangeNamed(t *testing.T, name string) uint8 {
	t.Helper()
	for _, e := range []wire.ExchangeType{wire.CreateChildSA, wire.Informational, wire.IKEFollowupKE} {
		if e.String() == name {
			return uint8(e)
		}
	}
	t.Fatalf("there is no exchange %q", name)
	return 0
}

var (
	sentLine    = regexp.MustCompile(`([ab])\.example \[([0-9a-f]{4})\] (send .*|retransmit .*)$`)
	installLine = regexp.MustCompile(`([ab])\.example install in ([0-9a-f]{8})$`)
	switchLine  = regexp.MustCompile(`([ab])\.example switch to out ([0-9a-f]{8}) \(in ([0-9a-f]{8})\)$`)
	removeLine  = regexp.MustCompile(`([ab])\.example remove in ([0-9a-f]{8}): (.*)$`)
	stateLine   = regexp.MustCompile(`([ab])\.example (up|down) ([0-9a-f]{4})[0-9a-f]{12} (\S+)`)
)

// line is what a line of the trace tells, "" when that is of no interest here.
func (x *teller) line(s string) string {
	if m := sentLine.FindStringSubmatch(s); m != nil {
		if m[2] == "0000" || strings.Contains(m[3], "IKE_SA_INIT") || strings.Contains(m[3], "IKE_AUTH") {
			return ""
		}
		return fmt.Sprintf("%s %s %s", m[1], x.ike(x.node(m[1]), m[2]), m[3])
	}
	if m := installLine.FindStringSubmatch(s); m != nil {
		return fmt.Sprintf("%s installs %s", m[1], x.child(x.node(m[1]), m[2]))
	}
	if m := switchLine.FindStringSubmatch(s); m != nil {
		other := map[string]string{"a": "b", "b": "a"}[m[1]]
		uses := fmt.Sprintf("%s uses %s, sends on %s", m[1], x.child(x.node(m[1]), m[3]), x.child(x.node(other), m[2]))
		if x.used[m[1]] == uses { // told anew, because another one is gone
			return ""
		}
		x.used[m[1]] = uses
		return uses
	}
	if m := removeLine.FindStringSubmatch(s); m != nil {
		return fmt.Sprintf("%s removes %s: %s", m[1], x.child(x.node(m[1]), m[2]), m[3])
	}
	if m := stateLine.FindStringSubmatch(s); m != nil {
		if m[2] == "up" {
			return fmt.Sprintf("%s has IKE SA %s", m[1], x.ike(x.node(m[1]), m[3]))
		}
		return fmt.Sprintf("%s has no IKE SA %s any more: %s", m[1], x.ike(x.node(m[1]), m[3]), m[4])
	}
	if strings.Contains(s, "held: datagram of ") {
		return "  (held)"
	}
	return ""
}

func (x *teller) child(n *Node, spi string) string {
	if x.children[spi] == "" {
		x.made[n.Name]++
		x.children[spi] = fmt.Sprintf("%s%d", n.Name[:1], x.made[n.Name])
	}
	return x.children[spi]
}

func (x *teller) ike(n *Node, tag string) string {
	key := n.Name + tag
	if x.sas[key] == "" {
		x.made["ike "+n.Name]++
		x.sas[key] = fmt.Sprintf("#%d", x.made["ike "+n.Name])
	}
	return x.sas[key]
}
