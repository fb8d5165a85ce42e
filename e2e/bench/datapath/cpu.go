package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// daemonTime is what the daemons of the path have worked so far, the kernel's work in their name included
// (proc(5), schedstat). What else runs on the machine does not count, so that it compares where rates do not.
func (n *network) daemonTime() (time.Duration, error) {
	var sum time.Duration
	var pids []int
	for _, d := range n.daemons {
		pids = append(pids, d.Pids()...)
	}
	for _, pid := range pids {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil {
			return 0, err
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				continue // the thread has ended
			}
			first, _, _ := strings.Cut(string(b), " ")
			ns, err := strconv.ParseInt(first, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s holds %q: %w", f, b, err)
			}
			sum += time.Duration(ns)
		}
	}
	return sum, nil
}

// spent measures what the daemons work while f runs.
func (n *network) spent(f func() error) (time.Duration, error) {
	before, err := n.daemonTime()
	if err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	after, err := n.daemonTime()
	return after - before, err
}
