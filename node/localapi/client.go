package localapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/bailiwick-net/bailiwick/node/statistics"
)

// ErrNotRunning says that nobody answers at the socket.
var ErrNotRunning = errors.New("bailiwick-node is not running, or this user may not ask it")

// Client asks a running node.
type Client struct {
	path string
	http *http.Client
}

// NewClient makes a client for the socket at path.
func NewClient(path string) *Client {
	return &Client{path, &http.Client{
		Timeout: 15 * time.Second,
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}},
	}}
}

// Status asks for the state of the node.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/status", nil, &s)
	return s, err
}

// Associations asks for the associations.
func (c *Client) Associations(ctx context.Context) (a Associations, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/sas", nil, &a)
	return a, err
}

// Filters asks for the filters in force.
func (c *Client) Filters(ctx context.Context) (f []Filter, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/filters", nil, &f)
	return f, err
}

// Counters asks for the figures.
func (c *Client) Counters(ctx context.Context) (f []statistics.Figure, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/counters", nil, &f)
	return f, err
}

// Rekey asks for a rekey.
func (c *Client) Rekey(ctx context.Context, r Rekey) error {
	return c.call(ctx, http.MethodPost, "/v1/rekey", r, &struct{}{})
}

// AddRules asks for rules beside the policy.
func (c *Client) AddRules(ctx context.Context, r AddRules) (added Rules, err error) {
	err = c.call(ctx, http.MethodPost, "/v1/rules/add", r, &added)
	return added, err
}

// DeleteRules asks for the end of rules beside the policy.
func (c *Client) DeleteRules(ctx context.Context, r DeleteRules) error {
	return c.call(ctx, http.MethodPost, "/v1/rules/delete", r, &struct{}{})
}

func (c *Client) call(ctx context.Context, method, path string, body, out any) error {
	var encoded bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&encoded).Encode(body); err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://node"+path, &encoded)
	if err != nil {
		return err
	}
	response, err := c.do(c.http, request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	return json.NewDecoder(response.Body).Decode(out)
}

// do sends a request; an answer that is not 200 is an error.
func (c *Client) do(client *http.Client, request *http.Request) (*http.Response, error) {
	response, err := client.Do(request)
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return nil, fmt.Errorf("%w (socket %s: %w)", ErrNotRunning, c.path, op.Err)
	}
	if err != nil {
		return nil, fmt.Errorf("ask bailiwick-node at %s: %w", c.path, err)
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()
	var f failure
	if err := json.NewDecoder(response.Body).Decode(&f); err != nil || f.Error == "" {
		return nil, fmt.Errorf("bailiwick-node answered %s", response.Status)
	}
	return nil, errors.New(f.Error)
}
