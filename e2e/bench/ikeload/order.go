package ikeload

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
)

// Order is what a machine in a process of its own is told to do: one JSON object a line.
type Order struct {
	Do          string // "start", "initiate", "await", "memory", "state" or "stop"
	Plan        *Plan  `json:",omitempty"`
	Responder   bool   `json:",omitempty"`
	EveryChain  bool   `json:",omitempty"`
	Name        string `json:",omitempty"` // of the identity
	Certificate []byte `json:",omitempty"`
	Key         []byte `json:",omitempty"` // PKCS #8
	Root        []byte `json:",omitempty"`
	From, Until int    `json:",omitempty"` // pairs to initiate
	In, Out     int64  `json:",omitempty"` // halves to await
}

// Answer is what came of an Order.
type Answer struct {
	Error    string            `json:",omitempty"`
	Heap     uint64            `json:",omitempty"` // octets in use after a collection
	Resident uint64            `json:",omitempty"` // octets
	Counters map[string]uint64 `json:",omitempty"`
	SAs      int               `json:",omitempty"` // IKE SAs, half-open ones included
	HalfOpen int               `json:",omitempty"`
	Dropped  uint64            `json:",omitempty"` // messages that found the queue behind the sockets full
}

// Obey runs the machine of a process: it reads orders until the end of in and answers each.
func Obey(in io.Reader, out io.Writer) error {
	orders, answers := json.NewDecoder(in), json.NewEncoder(out)
	var m *Machine
	for {
		var o Order
		if err := orders.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read an order: %w", err)
		}
		var a Answer
		if err := o.obey(&m, &a); err != nil {
			a.Error = err.Error()
		}
		if err := answers.Encode(a); err != nil {
			return fmt.Errorf("write an answer: %w", err)
		}
	}
}

func (o Order) obey(m **Machine, a *Answer) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), BurstLimit)
	defer cancel()
	if o.Do == "start" {
		*m, err = o.start()
		return err
	}
	if *m == nil {
		return fmt.Errorf("order %q before start", o.Do)
	}
	switch o.Do {
	case "initiate":
		return (*m).Initiate(ctx, o.From, o.Until)
	case "await":
		return (*m).Await(ctx, func(c Counters) bool { return c.In >= o.In && c.Out >= o.Out })
	case "memory":
		a.Heap, a.Resident, err = Memory()
		return err
	case "state":
		v, err := (*m).Snapshot(ctx)
		if err != nil {
			return err
		}
		a.Counters, a.SAs = v.Counters, len(v.SAs)
		for _, s := range v.SAs {
			if s.Established.IsZero() {
				a.HalfOpen++
			}
		}
		a.Dropped = (*m).sockets.Stats().IKEDropped
		return nil
	case "stop":
		err := (*m).Stop()
		*m = nil
		return err
	}
	return fmt.Errorf("unknown order %q", o.Do)
}

func (o Order) start() (*Machine, error) {
	if o.Plan == nil {
		return nil, errors.New("order to start without a plan")
	}
	c := MachineConfig{Plan: *o.Plan, Responder: o.Responder, EveryChain: o.EveryChain, Root: o.Root}
	if len(o.Key) > 0 {
		key, err := x509.ParsePKCS8PrivateKey(o.Key)
		if err != nil {
			return nil, fmt.Errorf("read the key of %s: %w", o.Name, err)
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return nil, fmt.Errorf("the key of %s, a %T, does not sign", o.Name, key)
		}
		c.Identity = &Identity{Name: o.Name, DER: o.Certificate, Key: signer}
	}
	return OnSockets(c)
}

// Memory is what this process uses, in octets: the heap after a collection, and what is resident.
func Memory() (heap, resident uint64, err error) {
	runtime.GC()
	runtime.GC() // what finalizers held
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	resident, err = Resident(os.Getpid())
	return s.HeapAlloc, resident, err
}

// Resident is the resident memory of a process in octets.
func Resident(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read the memory of process %d: %w", pid, err)
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("read the memory of process %d: no VmRSS", pid)
}

// Remote is a machine in a process of its own, on a host of a lab. One goroutine gives it orders.
type Remote struct {
	Pid     int
	process *lab.Process
	orders  *json.Encoder
	answers *json.Decoder
	stdin   io.Closer
}

// Launch starts a process that runs Obey on its standard input and output.
func Launch(h *lab.Host, command ...string) (*Remote, error) {
	cmd := h.Command(command...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("launch a machine on host %s: %w", h.Name, err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("launch a machine on host %s: %w", h.Name, err)
	}
	cmd.Stderr = os.Stderr
	p, err := h.Start(cmd)
	if err != nil {
		return nil, err
	}
	return &Remote{p.Pid(), p, json.NewEncoder(stdin), json.NewDecoder(stdout), stdin}, nil
}

// Order gives an order and waits for what came of it.
func (r *Remote) Order(o Order) (Answer, error) {
	if err := r.Begin(o); err != nil {
		return Answer{}, err
	}
	return r.Finish(o)
}

// Begin gives an order; Finish waits for what came of it.
func (r *Remote) Begin(o Order) error {
	if err := r.orders.Encode(o); err != nil {
		return fmt.Errorf("order process %d to %s: %w", r.Pid, o.Do, err)
	}
	return nil
}

// Finish waits for the answer to the order of Begin.
func (r *Remote) Finish(o Order) (Answer, error) {
	var a Answer
	if err := r.answers.Decode(&a); err != nil {
		return a, fmt.Errorf("process %d, ordered to %s: %w", r.Pid, o.Do, err)
	}
	if a.Error != "" {
		return a, fmt.Errorf("process %d, ordered to %s: %s", r.Pid, o.Do, a.Error)
	}
	return a, nil
}

// Close ends the process.
func (r *Remote) Close() error { return errors.Join(r.stdin.Close(), r.process.Wait()) }
