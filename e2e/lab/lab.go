// Package lab builds small networks of Linux network namespaces: hosts, links, bridges, captures and processes, for
// tests and for the demo.
//
// Its invariant: everything it makes carries the prefix of its Lab in its name and lives in a namespace of that
// prefix, so that Close, or the next New with the same prefix after a crash, removes all of it. It needs root and
// iproute2. It leaves what runs on the hosts to its callers.
package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// ErrNotRoot means that the process may not create network namespaces.
var ErrNotRoot = errors.New("network namespaces need root")

// namespaces is where ip(8) binds named namespaces.
const namespaces = "/run/netns"

// Lab is a set of hosts. Its methods may be called from any goroutine.
type Lab struct {
	prefix string

	mu struct {
		sync.Mutex
		hosts map[string]*Host
	}
}

// New starts an empty lab. What an earlier lab of the same prefix left behind, namespaces with all their links and
// processes, is removed first. The prefix should end in a separator: "demo-".
func New(prefix string) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, ErrNotRoot
	}
	if len(prefix) < 3 || strings.ContainsAny(prefix, "/ \t\n*?[") {
		return nil, fmt.Errorf("lab prefix %q: want at least 3 characters without spaces, slashes and wildcards", prefix)
	}
	if err := sweep(prefix); err != nil {
		return nil, err
	}
	l := &Lab{prefix: prefix}
	l.mu.hosts = map[string]*Host{}
	return l, nil
}

// Close ends the processes of all hosts and removes them.
func (l *Lab) Close() error {
	l.mu.Lock()
	hosts := l.mu.hosts
	l.mu.hosts = map[string]*Host{}
	l.mu.Unlock()
	var errs []error
	for _, h := range hosts {
		errs = append(errs, h.close())
	}
	errs = append(errs, sweep(l.prefix))
	return errors.Join(errs...)
}

// Host adds a host with nothing but a loopback interface.
func (l *Lab) Host(name string) (*Host, error) {
	h := &Host{lab: l, Name: name, Namespace: l.prefix + name}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.mu.hosts[name]; ok {
		return nil, fmt.Errorf("host %q exists already in lab %q", name, l.prefix)
	}
	if err := ip("netns", "add", h.Namespace); err != nil {
		return nil, err
	}
	l.mu.hosts[name] = h
	if err := ip("-n", h.Namespace, "link", "set", "lo", "up"); err != nil {
		return nil, err
	}
	return h, nil
}

// sweep kills the processes in the namespaces of a prefix and removes their links and the namespaces.
func sweep(prefix string) error {
	paths, err := filepath.Glob(filepath.Join(namespaces, prefix+"*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range paths {
		name := filepath.Base(p)
		if err := killAll(name); err != nil {
			errs = append(errs, err)
		}
		errs = append(errs, unlink(name), ip("netns", "del", name))
	}
	return errors.Join(errs...)
}

// unlink removes the virtual Ethernet devices of a namespace, and with them their other ends. A namespace outlives its
// name as long as a socket is in it, such as a closed connection whose last segment was never acknowledged; its devices
// would go on answering on a switch, in place of the next host that has their addresses.
func unlink(namespace string) error {
	for {
		out, err := output("ip", "-n", namespace, "-brief", "link", "show", "type", "veth")
		if err != nil {
			return err
		}
		fields := strings.Fields(out)
		if len(fields) == 0 {
			return nil
		}
		// One after the other: both ends may be in this namespace. The name is printed as device@other.
		device, _, _ := strings.Cut(fields[0], "@")
		if err := ip("-n", namespace, "link", "del", device); err != nil {
			return err
		}
	}
}

// killAll ends every process of a namespace and waits until they are gone, for a few seconds. A process of this very
// lab, one of whose threads is in the namespace, is not among those that ip(8) reports unless its main thread is.
func killAll(namespace string) error {
	for deadline := time.Now().Add(5 * time.Second); ; {
		out, err := output("ip", "netns", "pids", namespace)
		if err != nil {
			return err
		}
		pids := 0
		for _, field := range strings.Fields(out) {
			var pid int
			if _, err := fmt.Sscan(field, &pid); err != nil || pid == os.Getpid() {
				continue
			}
			p, err := os.FindProcess(pid)
			if err != nil {
				continue
			}
			if p.Kill() == nil {
				pids++
			}
		}
		if pids == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d processes in network namespace %s do not end", pids, namespace)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// ip runs iproute2.
func ip(args ...string) error {
	_, err := output("ip", args...)
	return err
}

func output(name string, args ...string) (string, error) {
	return outputContext(context.Background(), name, args...)
}

func outputContext(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}
