package controller

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// addressed is one end of a pipe that has the address of a caller.
type addressed struct {
	net.Conn
	remote *net.TCPAddr
}

func (a addressed) LocalAddr() net.Addr  { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 7443} }
func (a addressed) RemoteAddr() net.Addr { return a.remote }

// door is a listener that a test knocks at.
type door struct {
	net.Listener
	knocks chan net.Conn
	last   int
}

func (d *door) Accept() (net.Conn, error) {
	conn, ok := <-d.knocks
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

// knock connects, and returns what the caller has of it.
func (d *door) knock() net.Conn {
	ours, theirs := net.Pipe()
	d.last++
	d.knocks <- addressed{ours, &net.TCPAddr{IP: net.IPv4(198, 51, 100, 1), Port: d.last}}
	return theirs
}

// shut reports whether the other side closed a connection.
func shut(conn net.Conn) bool {
	_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := conn.Read(make([]byte, 1))
	return errors.Is(err, io.EOF)
}

func wantCounts(t *testing.T, c *callers, held, strangers int) {
	t.Helper()
	if h, s := c.counts(); h != held || s != strangers {
		t.Errorf("%d connections are held, %d of strangers; want %d and %d", h, s, held, strangers)
	}
}

// Strangers hold a few connections for a while; who showed a certificate stays, and has room beside them.
func TestStrangersDoNotHoldConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, d := newCallers(4, 2, time.Minute), &door{knocks: make(chan net.Conn)}
		accepted := make(chan net.Conn, 10)
		go func() {
			for l := c.over(d); ; {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				accepted <- conn
			}
		}()
		defer close(d.knocks)
		know := func() net.Conn {
			conn := <-accepted
			c.know(conn.LocalAddr(), conn.RemoteAddr())
			return conn
		}
		node := d.knock()
		session := know()
		defer session.Close()
		wantCounts(t, c, 1, 0)
		first, second := d.knock(), d.knock()
		<-accepted
		<-accepted
		if third := d.knock(); !shut(third) {
			t.Error("a third stranger was let in")
		}
		wantCounts(t, c, 3, 2)

		<-time.After(time.Minute) // on the clock of the test
		synctest.Wait()
		if !shut(first) || !shut(second) || shut(node) {
			t.Error("after a minute the strangers are still there, or the node is not")
		}
		wantCounts(t, c, 1, 0)

		// Known ones are bounded as well: beside the node there is room for three.
		for range 3 {
			d.knock()
			defer know().Close()
		}
		if another := d.knock(); !shut(another) {
			t.Error("more were let in than the total")
		}
		session.Close()
		session.Close() // counts once
		wantCounts(t, c, 3, 0)
		d.knock()
		defer know().Close()

		var b bytes.Buffer
		if err := (connections{c, newCallers(1, 1, 0), newCallers(1, 1, 0)}).writeMetrics(&b); err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]int{"connections": 4, "connections_strangers": 0, "connections_refused_total": 2, "connections_overdue_total": 2} {
			if line := fmt.Sprintf("\nbailiwick_%s{listener=\"grpc\"} %d\n", name, value); !strings.Contains(b.String(), line) {
				t.Errorf("the metrics lack %q:\n%s", line, b.String())
			}
		}
	})
}

// Where a server of HTTP bounds the time itself, the number alone is bounded.
func TestNoPatienceWithoutABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCallers(1, 1, 0)
		ours, _ := net.Pipe()
		one := c.admit(addressed{ours, &net.TCPAddr{Port: 1}})
		<-time.After(time.Hour)
		wantCounts(t, c, 1, 1)
		one.Close()
		wantCounts(t, c, 0, 0)
	})
}

func TestConnectionBounds(t *testing.T) {
	var c ConnectionConfig
	if err := c.complete(); err != nil || c.Total < 2*10_000 || c.Strangers >= c.Total {
		t.Errorf("by default %+v, error %v; a fleet of 10,000 must fit twice, and strangers not fill it", c, err)
	}
	for _, bad := range []ConnectionConfig{{Total: -1}, {Strangers: 1_000_001}, {HTTP: -1}, {StrangerTime: time.Second}, {IdleTime: time.Millisecond}} {
		if bad.complete() == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

// A stranger who hangs up at the very moment at which his time is over did not stay too long.
func TestWhoHangsUpIsNotOverdue(t *testing.T) {
	c := newCallers(10, 10, time.Hour)
	ours, theirs := net.Pipe()
	defer theirs.Close()
	one := c.admit(addressed{ours, &net.TCPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 1}})
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	one.expire() // its timer had begun
	wantCounts(t, c, 0, 0)
	if n := c.overdue.Load(); n != 0 {
		t.Errorf("%d connections were closed for lasting too long, want none", n)
	}
}
