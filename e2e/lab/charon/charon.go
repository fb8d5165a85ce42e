// Package charon runs a real strongSwan (charon-systemd, with IPsec in user space by kernel-libipsec) on a host of a
// lab, and steers it over vici. It is Debian 12's, or that of another suite's root (Config.Root):
//
//	r, err := root.Open(ctx, root.StrongSwan) // strongSwan 6.1
//	d, err := charon.Start(ctx, charon.Config{Host: host, Dir: dir, Root: r, Plugins: map[string]string{"kernel-libipsec.raw_esp": "yes"}, ...})
//
// Its invariant: a daemon that Start returned answers vici and has loaded its whole configuration; it keeps all its
// files in its directory and dies with its host. With Config.Guest it runs in a guest of e2e/lab/guest, on the kernel's
// IPsec: transport mode, extended sequence numbers and AH are there. It needs root and the Debian packages charon-systemd,
// strongswan-swanctl and libcharon-extra-plugins. It leaves the network to e2e/lab and what an exchange means to the
// tests. Debian 12's libipsec does tunnel mode with UDP encapsulation and no extended sequence numbers, nothing else.
package charon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// daemonPath is where Debian puts the daemon.
const daemonPath = "/usr/sbin/charon-systemd"

// startTimeout bounds the time until a daemon answers; it takes a fraction of a second, in a guest a few seconds.
const startTimeout = 40 * time.Second

// Daemon is a running charon. It is not safe for use by several goroutines.
type Daemon struct {
	config  Config
	machine machine
	process process
}

// Start writes the configuration, starts the daemon on the host and loads connections, secrets and certificates.
func Start(ctx context.Context, config Config) (*Daemon, error) {
	d := &Daemon{config: config, machine: config.machine()}
	if err := errors.Join(d.config.write(), d.machine.provide(ctx, config.Dir)); err != nil {
		return nil, fmt.Errorf("configure charon on host %s: %w", d.machine.name(), err)
	}
	if err := d.Restart(ctx); err != nil {
		return nil, err
	}
	return d, nil
}

// Restart starts a daemon that has ended again, with the same configuration.
func (d *Daemon) Restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := d.machine.remove(ctx, d.socket()); err != nil {
		return fmt.Errorf("remove the socket of an earlier charon: %w", err)
	}
	process, err := d.machine.start(d.config.path("stderr"), d.settings(), daemonPath)
	if err != nil {
		return err
	}
	d.process = process
	if err := d.await(ctx); err != nil {
		return errors.Join(err, process.Kill())
	}
	if err := d.load(ctx); err != nil {
		return errors.Join(err, process.Kill())
	}
	return nil
}

// await polls until the daemon answers.
func (d *Daemon) await(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := d.call(ctx, "version", nil)
		if err == nil {
			return nil
		}
		select {
		case <-d.process.Done():
			return fmt.Errorf("charon on host %s ended at its start (%w):\n%s", d.machine.name(), d.process.Wait(), d.output())
		case <-ctx.Done():
			return fmt.Errorf("charon on host %s does not answer: %w: %w", d.machine.name(), ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// load hands the files to the daemon. swanctl reads keys and certificates as an administrator's would be.
func (d *Daemon) load(ctx context.Context) error {
	if _, err := d.Swanctl(ctx, "--load-all", "--file", d.config.path("swanctl.conf")); err != nil {
		return fmt.Errorf("load the configuration of charon on host %s: %w", d.machine.name(), err)
	}
	return nil
}

// Reload reads the configuration again.
func (d *Daemon) Reload(ctx context.Context) error { return d.load(ctx) }

// Swanctl runs swanctl(8) for this daemon and returns what it prints.
func (d *Daemon) Swanctl(ctx context.Context, args ...string) (string, error) {
	command := append([]string{"env"}, d.settings()...)
	command = append(command, "swanctl")
	command = append(command, args...)
	out, err := d.machine.run(ctx, append(command, "--uri", d.uri())...)
	if err != nil {
		return out, fmt.Errorf("%w\n%s", err, out)
	}
	return out, nil
}

// settings of the environment tell strongSwan's programs where their files are.
func (d *Daemon) settings() []string {
	return []string{"STRONGSWAN_CONF=" + d.config.path("strongswan.conf"), "SWANCTL_DIR=" + d.config.Dir}
}

func (d *Daemon) socket() string { return d.config.path("vici") }

func (d *Daemon) uri() string { return "unix://" + d.socket() }

func (d *Daemon) output() string {
	content, err := d.machine.read(d.config.path("stderr"))
	if err != nil {
		return err.Error()
	}
	return string(content)
}

// Log returns what the daemon has logged up to now, restarts included.
func (d *Daemon) Log() (string, error) {
	content, err := d.machine.read(d.config.path("charon.log"))
	return string(content), err
}

// Logged reports whether a line of the log contains the text.
func (d *Daemon) Logged(text string) (bool, error) {
	log, err := d.Log()
	return strings.Contains(log, text), err
}

// Kill ends the daemon at once: its peers hear nothing.
func (d *Daemon) Kill() error { return d.process.Kill() }

// Stop lets the daemon say goodbye to its peers and end.
func (d *Daemon) Stop() error { return d.process.Stop(5 * time.Second) }
