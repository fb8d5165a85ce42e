package charon

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
)

// Pid is the process ID of the daemon; 0 in a guest, whose processes are its own.
func (d *Daemon) Pid() int {
	if p, ok := d.process.(*lab.Process); ok {
		return p.Pid()
	}
	return 0
}

// Counts are how many IKE SAs the daemon has.
type Counts struct {
	IKE      int // half-open ones included
	HalfOpen int
}

// Counts asks for the numbers of IKE SAs, which costs the daemon less than a list of them.
func (d *Daemon) Counts(ctx context.Context) (Counts, error) {
	m, err := d.call(ctx, "stats", nil)
	if err != nil {
		return Counts{}, err
	}
	values := m.sections["ikesas"].values
	total, err := strconv.Atoi(values["total"])
	if err != nil {
		return Counts{}, fmt.Errorf("count the associations of charon on host %s: total %q: %w", d.machine.name(), values["total"], err)
	}
	halfOpen, err := strconv.Atoi(values["half-open"])
	if err != nil {
		return Counts{}, fmt.Errorf("count the associations of charon on host %s: half-open %q: %w", d.machine.name(), values["half-open"], err)
	}
	return Counts{IKE: total, HalfOpen: halfOpen}, nil
}

// Burst starts the IKE SAs of these connections, without Child SAs, by several sessions at once, and waits for none of
// them. A connection that stands in the list twice is started twice.
func (d *Daemon) Burst(ctx context.Context, connections []string, sessions int) error {
	errs := make([]error, sessions)
	var wait sync.WaitGroup
	for i := range sessions {
		wait.Go(func() {
			s, err := d.dialPatiently(ctx)
			if err != nil {
				errs[i] = err
				return
			}
			defer s.conn.Close()
			for n := i; n < len(connections); n += sessions {
				if errs[i] = s.initiate(connections[n]); errs[i] != nil {
					return
				}
			}
		})
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("start %d associations of charon on host %s: %w", len(connections), d.machine.name(), err)
	}
	return nil
}

// dialPatiently dials again where the queue of the daemon's socket, which is short, was full.
func (d *Daemon) dialPatiently(ctx context.Context) (*session, error) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		s, err := d.dial(ctx)
		if !errors.Is(err, unix.EAGAIN) {
			return s, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		}
	}
}

// initiate starts an IKE SA and reads the answer, which comes at once.
func (s *session) initiate(connection string) error {
	if err := s.write(viciRequest, "initiate", []setting{{"ike", connection}, {"timeout", "-1"}}); err != nil {
		return err
	}
	kind, body, err := s.read()
	if err != nil {
		return err
	}
	if kind != viciResponse {
		return errVici
	}
	response, _, err := parseSection(body, 0)
	if err != nil {
		return err
	}
	if response.values["success"] == "no" {
		return fmt.Errorf("connection %s: %s", connection, response.values["errmsg"])
	}
	return nil
}
