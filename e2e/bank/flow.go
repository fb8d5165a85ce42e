package bank

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/node/localapi"
)

// Flow is one TCP connection that exchanges a message every 20 ms, and a capture of the bridge.
type Flow struct {
	from, to Machine
	payload  []byte
	conn     net.Conn
	capture  *lab.Capture
	stop     context.CancelFunc
	done     chan struct{}
	messages atomic.Int64
	report   FlowReport
	err      error
	closed   bool
}

// FlowReport is what a Flow saw.
type FlowReport struct {
	Messages    int
	LongestWait time.Duration
	Wire        Evidence
	// Frames is everything that crossed the bridge meanwhile; Payload is what every message held.
	Frames  []lab.Frame
	Payload []byte
}

// OpenFlow starts a Flow.
func (b *Bank) OpenFlow(ctx context.Context, from, to Machine) (*Flow, error) {
	marker := make([]byte, 20)
	if _, err := rand.Read(marker); err != nil {
		return nil, err
	}
	dialContext, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := connect(dialContext, b.Host(from), netip.AddrPortFrom(to.Address, EchoPort))
	if err != nil {
		return nil, fmt.Errorf("connect %s to %s: %w", from.Name, to.Name, err)
	}
	capture, err := b.Capture()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	ctx, stop := context.WithCancel(ctx)
	f := &Flow{from: from, to: to, payload: []byte(base32.StdEncoding.EncodeToString(marker)), conn: conn, capture: capture, stop: stop, done: make(chan struct{})}
	go f.run(ctx)
	return f, nil
}

func (f *Flow) run(ctx context.Context) {
	defer close(f.done)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		start := time.Now()
		if err := lab.RoundTrip(f.conn, f.payload, start.Add(15*time.Second)); err != nil {
			f.err = fmt.Errorf("message %d from %s to %s: %w", f.report.Messages+1, f.from.Name, f.to.Name, err)
			return
		}
		f.report.Messages++
		f.messages.Add(1)
		f.report.LongestWait = max(f.report.LongestWait, time.Since(start))
	}
}

// Await waits until count messages have been exchanged, or the flow has failed.
func (f *Flow) Await(ctx context.Context, count int) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for f.messages.Load() < int64(count) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %d messages: %w", count, ctx.Err())
		case <-f.done:
			return nil
		case <-tick.C:
		}
	}
	return nil
}

// Close ends the flow and reports. A second Close does nothing.
func (f *Flow) Close() (FlowReport, error) {
	if f.closed {
		return f.report, f.err
	}
	f.closed = true
	f.stop()
	<-f.done
	_ = f.conn.Close()
	frames, err := f.capture.Stop()
	f.report.Frames, f.report.Payload = frames, f.payload
	f.report.Wire = evidence(frames, f.from.Address, f.to.Address, EchoPort, f.payload)
	f.err = errors.Join(f.err, err)
	return f.report, f.err
}

// SPIs names the associations between two machines.
type SPIs struct{ IKE, Child string }

// RekeyAll rekeys the Child SA and then the IKE SA that a machine has with a peer, and waits for the new ones.
func (b *Bank) RekeyAll(ctx context.Context, m Machine, peer netip.Addr) (before, after SPIs, err error) {
	client := b.Node(m)
	if before, err = associations(ctx, client, peer); err != nil {
		return before, after, err
	}
	for _, request := range []localapi.Rekey{{Child: before.Child}, {IKE: before.IKE}} {
		if err := client.Rekey(ctx, request); err != nil {
			return before, after, fmt.Errorf("rekey on %s: %w", m.Name, err)
		}
		err := b.until(ctx, fmt.Sprintf("%s has rekeyed %+v", m.Name, request), func(ctx context.Context) (bool, error) {
			var err error
			after, err = associations(ctx, client, peer)
			return err == nil && (request.Child == "" || after.Child != before.Child) && (request.IKE == "" || after.IKE != before.IKE), nil
		})
		if err != nil {
			return before, after, err
		}
	}
	return before, after, nil
}

// associations finds the one IKE SA and the one current Child SA with a peer.
func associations(ctx context.Context, client *localapi.Client, peer netip.Addr) (SPIs, error) {
	all, err := client.Associations(ctx)
	if err != nil {
		return SPIs{}, err
	}
	var found SPIs
	for _, s := range all.IKE {
		if hasAddress(s.Remote, peer) && !s.Established.IsZero() {
			found.IKE = s.SPI
		}
	}
	for _, c := range all.Children {
		if hasAddress(c.Remote, peer) && c.Current {
			found.Child = c.In
		}
	}
	if found.IKE == "" || found.Child == "" {
		return found, fmt.Errorf("no association with %s", peer)
	}
	return found, nil
}

func hasAddress(endpoint string, address netip.Addr) bool {
	return endpoint == address.String() || strings.HasPrefix(endpoint, address.String()+":") || strings.HasPrefix(endpoint, "["+address.String()+"]:")
}
