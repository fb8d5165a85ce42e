package controller

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// ConnectionConfig bounds how many connections callers may hold, and for how long. The zero value of each field means the default.
type ConnectionConfig struct {
	// Total is how many there are at once on all listeners for nodes and administrators with certificates; default 50,000.
	Total int `yaml:"total"`
	// Strangers is how many of them are of callers who have not shown a certificate that is believed; default 8,192.
	Strangers int `yaml:"strangers"`
	// StrangerTime is how long such a caller may hold a connection; default 1 min, 10 s to 1 h.
	StrangerTime time.Duration `yaml:"strangerTime"`
	// IdleTime is how long anybody may hold one without a call; default 10 min, 1 s to 24 h. A node's session is a call.
	IdleTime time.Duration `yaml:"idleTime"`
	// HTTP is how many there are at once on the listener for EST, and on that for revocation lists and OCSP; default 2,048.
	HTTP int `yaml:"http"`
}

func (c *ConnectionConfig) complete() error {
	var errs []error
	for _, n := range []struct {
		name  string
		value *int
		other int
	}{{"total", &c.Total, 50_000}, {"strangers", &c.Strangers, 8192}, {"http", &c.HTTP, 2048}} {
		if *n.value == 0 {
			*n.value = n.other
		}
		if *n.value < 1 || *n.value > 1_000_000 {
			errs = append(errs, fmt.Errorf("connections.%s %d, wanted 1 to 1000000", n.name, *n.value))
		}
	}
	for _, d := range []struct {
		name                  string
		value                 *time.Duration
		other, least, longest time.Duration
	}{
		{"strangerTime", &c.StrangerTime, time.Minute, 10 * time.Second, time.Hour},
		{"idleTime", &c.IdleTime, 10 * time.Minute, time.Second, 24 * time.Hour},
	} {
		if *d.value == 0 {
			*d.value = d.other
		}
		if *d.value < d.least || *d.value > d.longest {
			errs = append(errs, fmt.Errorf("connections.%s %v, wanted %v to %v", d.name, *d.value, d.least, d.longest))
		}
	}
	return errors.Join(errs...)
}

// callers bounds the connections of some listeners. Who connects is a stranger until a certificate was believed: there are few
// strangers at once, none for long, and they leave room for nodes, whose sessions last. Who is too many is refused at once, so
// that nobody waits behind others in the kernel's queue. It is safe for concurrent use.
type callers struct {
	total, strangers int
	// patience is how long a stranger may stay; 0 means that somebody else sees to that.
	patience time.Duration
	guarded  struct {
		sync.Mutex
		held      map[string]*caller
		strangers int
	}
	refused, overdue atomic.Uint64
}

func newCallers(total, strangers int, patience time.Duration) *callers {
	c := &callers{total: total, strangers: strangers, patience: patience}
	c.guarded.held = map[string]*caller{}
	return c
}

// A caller is a connection that counts until it is closed.
type caller struct {
	net.Conn
	of   *callers
	name string
	// known and gone are guarded by of; due ends a stranger's patience.
	known, gone bool
	due         *time.Timer
}

// nameOf names a connection among those of all listeners.
func nameOf(local, remote net.Addr) string { return local.String() + " " + remote.String() }

// over counts the connections that a listener accepts.
func (c *callers) over(l net.Listener) net.Listener { return callerListener{l, c} }

type callerListener struct {
	net.Listener
	callers *callers
}

// Accept implements net.Listener. Whoever is too many is closed, and not returned.
func (l callerListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if admitted := l.callers.admit(conn); admitted != nil {
			return admitted, nil
		}
		conn.Close()
	}
}

// admit takes a stranger in; nil where there is no room.
func (c *callers) admit(conn net.Conn) *caller {
	c.guarded.Lock()
	defer c.guarded.Unlock()
	if len(c.guarded.held) >= c.total || c.guarded.strangers >= c.strangers {
		c.refused.Add(1)
		return nil
	}
	one := &caller{Conn: conn, of: c, name: nameOf(conn.LocalAddr(), conn.RemoteAddr())}
	c.guarded.held[one.name] = one
	c.guarded.strangers++
	if c.patience > 0 {
		one.due = time.AfterFunc(c.patience, one.expire)
	}
	return one
}

// know is told that the certificate of whoever has this connection was believed.
func (c *callers) know(local, remote net.Addr) {
	if c == nil || local == nil || remote == nil {
		return
	}
	c.guarded.Lock()
	defer c.guarded.Unlock()
	if one, ok := c.guarded.held[nameOf(local, remote)]; ok && !one.known {
		one.known = true
		c.guarded.strangers--
		if one.due != nil {
			one.due.Stop()
		}
	}
}

// expire ends the connection of a stranger who stayed too long.
func (c *caller) expire() {
	c.of.guarded.Lock()
	over := !c.known && !c.gone
	c.of.guarded.Unlock()
	if over {
		c.of.overdue.Add(1)
		c.Close()
	}
}

// Close implements net.Conn.
func (c *caller) Close() error {
	c.of.guarded.Lock()
	if !c.gone {
		c.gone = true
		if c.of.guarded.held[c.name] == c {
			delete(c.of.guarded.held, c.name)
		}
		if !c.known {
			c.of.guarded.strangers--
		}
		if c.due != nil {
			c.due.Stop()
		}
	}
	c.of.guarded.Unlock()
	return c.Conn.Close()
}

// counts are the connections that are held, and how many of them are of strangers.
func (c *callers) counts() (held, strangers int) {
	c.guarded.Lock()
	defer c.guarded.Unlock()
	return len(c.guarded.held), c.guarded.strangers
}

// connections are the bounds of each group of listeners.
type connections struct{ grpc, est, lists *callers }

func newConnections(c ConnectionConfig) connections {
	return connections{
		grpc: newCallers(c.Total, c.Strangers, c.StrangerTime),
		// Servers of HTTP have bounds of their own for how long a request and the pause between two may last.
		est: newCallers(c.HTTP, c.HTTP, 0), lists: newCallers(c.HTTP, c.HTTP, 0),
	}
}

// writeMetrics writes the figures in the text format of Prometheus.
func (c connections) writeMetrics(w io.Writer) error {
	groups := []struct {
		name    string
		callers *callers
	}{{"grpc", c.grpc}, {"est", c.est}, {"lists", c.lists}}
	for _, f := range []struct {
		name, kind, help string
		value            func(*callers) uint64
	}{
		{"connections", "gauge", "Connections that are held.", func(c *callers) uint64 { held, _ := c.counts(); return uint64(held) }},
		{"connections_strangers", "gauge", "Connections of callers without a certificate that was believed.", func(c *callers) uint64 { _, s := c.counts(); return uint64(s) }},
		{"connections_refused_total", "counter", "Connections that were closed at once, because there were too many.", func(c *callers) uint64 { return c.refused.Load() }},
		{"connections_overdue_total", "counter", "Connections of strangers that were closed because they lasted too long.", func(c *callers) uint64 { return c.overdue.Load() }},
	} {
		if _, err := fmt.Fprintf(w, "# HELP bailiwick_%[1]s %[2]s\n# TYPE bailiwick_%[1]s %[3]s\n", f.name, f.help, f.kind); err != nil {
			return err
		}
		for _, g := range groups {
			if _, err := fmt.Fprintf(w, "bailiwick_%s{listener=%s} %d\n", f.name, label(g.name), f.value(g.callers)); err != nil {
				return err
			}
		}
	}
	return nil
}
