package localapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"

	"github.com/bailiwick-net/bailiwick/node/ike/trace"
)

// ErrEnded says that the daemon ended while a trace was read.
var ErrEnded = errors.New("bailiwick-node has ended")

// TraceRequest asks for the trace of IKE.
type TraceRequest struct {
	// Peer is a name, an address, or the SPI of an IKE SA or of an ESP SA; empty means every peer.
	Peer string
	// Addresses are further addresses of the peer, for one whose name the node does not know (yet).
	Addresses []netip.Addr
	History   bool // what is remembered
	Follow    bool // what happens from now on, until the caller ends it
}

// Tracer gives the trace of IKE. Node implements it.
type Tracer interface {
	// Trace calls emit for every line, until there are no more, emit fails, or ctx ends, which is no error.
	Trace(ctx context.Context, request TraceRequest, emit func(trace.Line) error) error
}

// maxAddresses bounds the addresses of a request.
const maxAddresses = 32

// serveTrace streams lines as JSON objects, one a line.
func serveTrace(source Tracer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		request, err := readTraceRequest(r.URL.Query())
		flush := http.NewResponseController(w)
		begun := false
		begin := func() {
			if !begun {
				begun = true
				w.Header().Set("Content-Type", "application/x-ndjson")
				w.WriteHeader(http.StatusOK)
			}
		}
		encoder := json.NewEncoder(w)
		if err == nil {
			if request.Follow { // the caller learns at once that the node listens
				begin()
				_ = flush.Flush()
			}
			err = source.Trace(r.Context(), request, func(l trace.Line) error {
				begin()
				if err := encoder.Encode(l); err != nil {
					return err
				}
				return flush.Flush()
			})
		}
		switch {
		case err != nil && !begun:
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnprocessableEntity)
			_ = encoder.Encode(failure{err.Error()})
		case err != nil:
			panic(http.ErrAbortHandler) // so that the caller does not take it for the end
		default:
			begin()
		}
	}
}

func readTraceRequest(q url.Values) (TraceRequest, error) {
	request := TraceRequest{Peer: q.Get("peer"), History: q.Get("history") == "true", Follow: q.Get("follow") == "true"}
	if len(q["address"]) > maxAddresses {
		return request, fmt.Errorf("trace of %d addresses, want at most %d", len(q["address"]), maxAddresses)
	}
	for _, text := range q["address"] {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return request, fmt.Errorf("trace of a peer with the address %q: %w", text, err)
		}
		request.Addresses = append(request.Addresses, a)
	}
	return request, nil
}

// Trace asks for the trace of IKE and calls emit for every line. It returns nil when there are no more lines or when ctx
// ends, and ErrEnded when the daemon ended before.
func (c *Client) Trace(ctx context.Context, request TraceRequest, emit func(trace.Line) error) error {
	q := url.Values{"peer": {request.Peer}, "history": {fmt.Sprint(request.History)}, "follow": {fmt.Sprint(request.Follow)}}
	for _, a := range request.Addresses {
		q.Add("address", a.String())
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://node/v1/ike/trace?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	endless := *c.http
	endless.Timeout = 0
	response, err := c.do(&endless, r)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var l trace.Line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return fmt.Errorf("read a line of the trace: %w", err)
		}
		if err := emit(l); err != nil {
			return err
		}
	}
	switch {
	case ctx.Err() != nil:
		return nil
	case lines.Err() != nil:
		return fmt.Errorf("%w, or the connection to it: %w", ErrEnded, lines.Err())
	case request.Follow:
		return ErrEnded
	}
	return nil
}
