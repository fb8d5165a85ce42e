package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

var errNotHere = errors.New("not on this machine")

// figures are what one path reached in one round.
type figures struct {
	One         float64 `json:"one_flow_gbit_s"`
	Four        float64 `json:"four_flows_gbit_s"`
	Large       float64 `json:"udp_1372_kpps"`
	Small       float64 `json:"udp_64_kpps"`
	RoundTrip   float64 `json:"round_trip_us"`         // one each millisecond: everything has gone to sleep in between
	InTurn      float64 `json:"round_trip_in_turn_us"` // the next one as soon as the last was answered
	Connections float64 `json:"connections_s"`
	Machine     float64 `json:"machine_cpu_s_per_gb"`  // of the whole machine, one flow
	Daemons     float64 `json:"daemons_cpu_s_per_gb"`  // of the daemons of both ends, one flow
	EachSmall   float64 `json:"daemons_cpu_us_per_64"` // of the daemons of both ends, for each packet of UDP 64 that arrived
	First       float64 `json:"first_packet_ms"`       // of a flow that nothing is there for yet, between daemons that have just started
	NewPeer     float64 `json:"new_peer_ms"`           // until a connection to one more address is there; 0 where the path is for one address
	WorstPeer   float64 `json:"worst_new_peer_ms"`     // the slowest of them: a lost first packet is sent again after a second
}

// load drives one path through everything that is measured.
func load(ctx context.Context, n *network, seconds int) (f figures, err error) {
	started := time.Now()
	if err := n.reach(ctx); err != nil {
		return f, err
	}
	f.First = float64(time.Since(started).Microseconds()) / 1e3
	if err := n.serve(ctx); err != nil {
		return f, err
	}
	busy, err := busyTime()
	if err != nil {
		return f, err
	}
	var octets, rate float64
	spent, err := n.spent(func() (err error) {
		octets, rate, err = n.tcp(ctx, 1, seconds)
		return err
	})
	if err != nil {
		return f, err
	}
	f.Daemons = spent.Seconds() / (octets / 1e9)
	after, err := busyTime()
	if err != nil {
		return f, err
	}
	f.One, f.Machine = rate/1e9, (after-busy).Seconds()/(octets/1e9)
	if _, rate, err = n.tcp(ctx, 4, seconds); err != nil {
		return f, err
	}
	f.Four = rate / 1e9
	if f.Large, err = n.udp(ctx, 1372, seconds); err != nil { // fits every path in one packet
		return f, err
	}
	spent, err = n.spent(func() (err error) {
		f.Small, err = n.udp(ctx, 64, seconds)
		return err
	})
	if err != nil {
		return f, err
	}
	f.EachSmall = float64(spent.Microseconds()) / (f.Small * 1e3 * float64(seconds))
	if f.RoundTrip, err = n.ping(ctx, "-i", "0.001"); err != nil {
		return f, err
	}
	if f.InTurn, err = n.ping(ctx, "-A"); err != nil {
		return f, err
	}
	if f.Connections, err = n.connect(ctx, time.Duration(seconds)*time.Second); err != nil {
		return f, err
	}
	if !n.meets {
		return f, nil
	}
	f.NewPeer, f.WorstPeer, err = n.meet(ctx)
	return f, err
}

// meet makes the first connection to one address of the second host after another, each of which is a peer that the first
// host has nothing for yet. The times are in milliseconds: the median, and the worst.
func (n *network) meet(ctx context.Context) (typical, worst float64, err error) {
	var times []float64
	for _, a := range more() {
		started := time.Now()
		if err := n.dial(ctx, outer[0], netip.AddrPortFrom(a, echoPort)); err != nil {
			return 0, 0, err
		}
		times = append(times, float64(time.Since(started).Microseconds())/1e3)
	}
	return median(times), slices.Max(times), nil
}

// serve starts the receivers, and waits for them.
func (n *network) serve(ctx context.Context) error {
	cmd := n.hosts[1].Command("iperf3", "--server")
	if _, err := n.hosts[1].Start(cmd); err != nil {
		return err
	}
	if err := n.hosts[1].ServeEcho(ctx, echoPort); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		err := n.dial(ctx, n.source(), netip.AddrPortFrom(n.target, 5201))
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("iperf3 does not answer: %w", err)
		}
	}
}

const echoPort = 7007

// dial makes a connection from the first host and closes it.
func (n *network) dial(ctx context.Context, from netip.Addr, to netip.AddrPort) error {
	return n.hosts[0].Do(func() error {
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: from.AsSlice()}}).DialContext(ctx, "tcp4", to.String())
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

type iperf struct {
	End struct {
		Received struct {
			Octets float64 `json:"bytes"`
			Rate   float64 `json:"bits_per_second"`
		} `json:"sum_received"`
		Sum struct {
			Packets float64 `json:"packets"`
			Lost    float64 `json:"lost_packets"`
			Seconds float64 `json:"seconds"`
		} `json:"sum"`
	} `json:"end"`
	Error string `json:"error"`
}

func (n *network) iperf(ctx context.Context, args ...string) (r iperf, err error) {
	args = append([]string{"iperf3", "--json", "--client", n.target.String(), "--bind", n.source().String()}, args...)
	out, err := n.hosts[0].RunContext(ctx, args...)
	if jsonErr := json.Unmarshal([]byte(out), &r); err == nil {
		err = jsonErr
	}
	if r.Error != "" {
		err = errors.New(r.Error)
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	return r, nil
}

func (n *network) tcp(ctx context.Context, flows, seconds int) (octets, rate float64, err error) {
	r, err := n.iperf(ctx, "--time", strconv.Itoa(seconds), "--parallel", strconv.Itoa(flows))
	return r.End.Received.Octets, r.End.Received.Rate, err
}

// udp sends as fast as the machine can; what arrives counts, in thousand packets a second.
func (n *network) udp(ctx context.Context, size, seconds int) (float64, error) {
	r, err := n.iperf(ctx, "--udp", "--bandwidth", "0", "--length", strconv.Itoa(size), "--time", strconv.Itoa(seconds))
	if err != nil {
		return 0, err
	}
	return (r.End.Sum.Packets - r.End.Sum.Lost) / r.End.Sum.Seconds / 1e3, nil
}

var pingTime = regexp.MustCompile(`time=([\d.]+) ms`)

// ping is the median of many round trips, in microseconds; pace is ping's option for when the next one goes.
func (n *network) ping(ctx context.Context, pace ...string) (float64, error) {
	args := append([]string{"ping", "-c", "2000", "-I", n.source().String()}, pace...)
	out, err := n.hosts[0].RunContext(ctx, append(args, n.target.String())...)
	if err != nil {
		return 0, err
	}
	var times []float64
	for _, m := range pingTime.FindAllStringSubmatch(out, -1) {
		ms, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return 0, err
		}
		times = append(times, ms*1e3)
	}
	if len(times) == 0 {
		return 0, fmt.Errorf("ping says %q", out)
	}
	return median(times), nil
}

// connect opens and closes connections one after another.
func (n *network) connect(ctx context.Context, d time.Duration) (float64, error) {
	start, count := time.Now(), 0
	for time.Since(start) < d {
		if err := n.dial(ctx, n.source(), netip.AddrPortFrom(n.target, echoPort)); err != nil {
			return 0, err
		}
		count++
	}
	return float64(count) / time.Since(start).Seconds(), nil
}

// busyTime is what all processors of the machine have worked so far (proc(5), /proc/stat).
func busyTime() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var ticks uint64
	for i, f := range fields[1:9] {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		if i != 3 && i != 4 { // idle, iowait
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
