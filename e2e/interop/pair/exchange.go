package pair

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
)

// Side is one end of the pair.
type Side int

// The sides.
const (
	FromNode Side = iota
	FromPeer
)

// Sides are both, for tests that do the same from either.
var Sides = []Side{FromNode, FromPeer}

// String names the side.
func (s Side) String() string { return [...]string{"node", "peer"}[s] }

// Other is the other side.
func (s Side) Other() Side { return 1 - s }

// Marker is payload that would be recognised on the wire.
var Marker = bytes.Repeat([]byte("bailiwick-marker "), 40)

// Path is where an exchange goes.
type Path struct{ Node, Peer netip.Addr }

// The paths: between the networks behind the ends, and between the ends themselves.
var (
	Inner  = Path{NodeInner, PeerInner}
	Outer  = Path{NodeOuter, PeerOuter}
	Outer6 = Path{NodeOuter6, PeerOuter6}
)

func (p Policy) path() Path {
	switch {
	case p.Transport && p.V6:
		return Outer6
	case p.Transport:
		return Outer
	}
	return Inner
}

// Dial connects to the echo service of the other side, on the way that the policy protects.
func (p *Pair) Dial(from Side, timeout time.Duration) (conn net.Conn, err error) {
	dialer := net.Dialer{Timeout: timeout}
	target := netip.AddrPortFrom(p.Path.Peer, EchoPort).String()
	host := p.Node
	if from == FromPeer {
		target = netip.AddrPortFrom(p.Path.Node, EchoPort).String()
		if p.VM != nil {
			return p.dialGuest(target, timeout)
		}
		host = p.Peer
	}
	err = host.Do(func() error {
		conn, err = dialer.DialContext(p.Ctx, "tcp", target)
		return err
	})
	return conn, err
}

// dialGuest connects from the guest. The connection lives as long as the test, not as the attempt.
func (p *Pair) dialGuest(target string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithCancel(p.Ctx)
	attempt := time.AfterFunc(timeout, cancel)
	conn, err := p.VM.DialContext(ctx, "tcp", target)
	if err != nil || !attempt.Stop() {
		cancel()
		return nil, errors.Join(err, ctx.Err())
	}
	context.AfterFunc(p.Ctx, cancel)
	return conn, nil
}

// Exchange connects, sends the marker and reads it back.
func (p *Pair) Exchange(from Side, timeout time.Duration) error {
	conn, err := p.Dial(from, timeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	return lab.RoundTrip(conn, Marker, time.Now().Add(timeout))
}

// Talk requires that an exchange succeeds.
func (p *Pair) Talk(from Side) {
	p.T.Helper()
	if err := p.Exchange(from, 20*time.Second); err != nil {
		p.T.Fatalf("exchange from the %s: %v", from, err)
	}
}

// Silent requires that an exchange fails.
func (p *Pair) Silent(from Side) {
	p.T.Helper()
	if err := p.Exchange(from, time.Second); err == nil {
		p.T.Errorf("an exchange from the %s succeeds", from)
	}
}

// Refused requires that an attempt of a side to bring a Child SA up fails: ours by traffic, strongSwan by command.
func (p *Pair) Refused(initiator Side) {
	p.T.Helper()
	if initiator == FromNode {
		p.Silent(FromNode)
	} else if err := p.Charon.Initiate(p.Ctx, NetName); err == nil {
		p.T.Error("strongSwan says that it has the child")
	}
}

// Stream keeps a TCP connection busy until the returned function is called, which requires that every message was
// answered. The first one is answered when Stream returns, so that whatever the test does next meets traffic.
func (p *Pair) Stream(from Side) (stop func() int) {
	p.T.Helper()
	conn, err := p.Dial(from, 10*time.Second)
	if err != nil {
		p.T.Fatalf("connect from the %s: %v", from, err)
	}
	p.T.Cleanup(func() { _ = conn.Close() })
	if err := lab.RoundTrip(conn, Marker, time.Now().Add(20*time.Second)); err != nil {
		p.T.Fatalf("the first message from the %s: %v", from, err)
	}
	ended, result := make(chan struct{}), make(chan error, 1)
	messages := 1
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				result <- nil
				return
			case <-tick.C:
			}
			if err := lab.RoundTrip(conn, Marker, time.Now().Add(20*time.Second)); err != nil {
				result <- err
				return
			}
			messages++
		}
	}()
	return func() int {
		p.T.Helper()
		close(ended)
		if err := <-result; err != nil {
			p.T.Errorf("the TCP connection from the %s was lost after %d messages: %v", from, messages, err)
		}
		return messages
	}
}

// Ping requires that either side answers the other one's echo requests of the sizes in octets; large ones travel in
// fragments.
func (p *Pair) Ping(sizes ...int) {
	p.T.Helper()
	for _, size := range sizes {
		args := []string{"ping", "-c", "1", "-W", "10", "-s", strconv.Itoa(size), "-p", hex.EncodeToString(Marker[:16])}
		if _, err := p.Node.RunContext(p.Ctx, append(args, "-I", p.Path.Node.String(), p.Path.Peer.String())...); err != nil {
			p.T.Errorf("ping of %d octets from the node: %v", size, err)
		}
		var err error
		args = append(args, "-I", p.Path.Peer.String(), p.Path.Node.String())
		if p.VM != nil {
			_, err = p.VM.RunContext(p.Ctx, args...)
		} else {
			_, err = p.Peer.RunContext(p.Ctx, args...)
		}
		if err != nil {
			p.T.Errorf("ping of %d octets from the peer: %v", size, err)
		}
	}
}
