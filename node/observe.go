package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/node/audit"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/engine"
	"github.com/bailiwick-net/bailiwick/node/ike/trace"
	"github.com/bailiwick-net/bailiwick/node/localapi"
)

// observer sees every action of the IKE engine. It is called by the driver's loop and never waits.
type observer struct {
	trace *trace.Hub
	audit *audit.Log
}

func (o *observer) observe(a ike.Action) {
	now := time.Now()
	if t, ok := a.(*ike.Trace); ok {
		o.trace.Add(now, t)
	}
	o.audit.Observe(now, a)
}

// errNothing is the end of a history in which nothing was found.
var errNothing = errors.New("nothing is remembered")

// Trace answers the local window (localapi.Tracer).
func (n *Node) Trace(ctx context.Context, request localapi.TraceRequest, emit func(trace.Line) error) error {
	negotiated, err := n.driver.Snapshot(ctx)
	if err != nil {
		return err
	}
	filter := traceFilter(request, negotiated)
	before, reader := n.trace.Watch(filter)
	defer reader.Close()
	if request.History {
		if len(before) == 0 && !request.Follow {
			return nothingOf(request.Peer)
		}
		for _, r := range before {
			if err := emit(r.Line()); err != nil {
				return err
			}
		}
	}
	for request.Follow {
		select {
		case r := <-reader.Records():
			if err := emit(r.Line()); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

func nothingOf(peer string) error {
	if peer == "" {
		return fmt.Errorf("%w: no IKE message has been sent or received yet", errNothing)
	}
	return fmt.Errorf("%w of %q: want the name by which the peer authenticates, its address, or an SPI as sas shows it", errNothing, peer)
}

// traceFilter finds out what a caller means by a peer. An SPI of either side stands for the IKE SA that has it or that
// made the Child SA, and for lines that mention it, which may be all that is left of an SA that is gone.
func traceFilter(request localapi.TraceRequest, negotiated engine.Snapshot) trace.Filter {
	f := trace.Filter{}
	for _, a := range request.Addresses {
		f.Addresses = append(f.Addresses, a.Unmap().WithZone(""))
	}
	text := request.Peer
	if text == "" {
		return f
	}
	if a, err := netip.ParseAddr(text); err == nil {
		f.Addresses = append(f.Addresses, a.Unmap().WithZone(""))
		return f
	}
	if a, err := netip.ParseAddrPort(text); err == nil {
		f.Addresses = append(f.Addresses, a.Addr().Unmap().WithZone(""))
		return f
	}
	spi, err := strconv.ParseUint(text, 16, 64)
	if err != nil || len(text) != 8 && len(text) != 16 {
		f.Names = append(f.Names, text)
		return f
	}
	f.Mention = strings.ToLower(text)
	if len(text) == 16 {
		f.IKE = append(f.IKE, ike.IKESPI(spi))
	}
	for _, s := range negotiated.SAs {
		found := len(text) == 16 && s.PeerSPI == spi
		for _, c := range s.Children {
			found = found || len(text) == 8 && (uint64(c.In.SPI) == spi || uint64(c.Out.SPI) == spi)
		}
		if found {
			f.IKE = append(f.IKE, ike.IKESPI(s.SPI))
		}
	}
	return f
}
