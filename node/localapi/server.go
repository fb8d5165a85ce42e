package localapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/bailiwick-net/bailiwick/node/statistics"
)

// Source tells what the node does. Node implements it.
type Source interface {
	Status(ctx context.Context) (Status, error)
	Associations(ctx context.Context) (Associations, error)
	Filters(ctx context.Context) ([]Filter, error)
	Rekey(ctx context.Context, r Rekey) error
	AddRules(ctx context.Context, r AddRules) (Rules, error)
	DeleteRules(ctx context.Context, r DeleteRules) error
	Tracer
	Counters(ctx context.Context) ([]statistics.Figure, error)
}

// Listen opens the socket, for its owner only. A socket that a dead process left is replaced; one that answers is not.
func Listen(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the directory of the local socket: %w", err)
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != fs.ModeSocket {
			return nil, fmt.Errorf("local socket %s: there is something that is not a socket", path)
		}
		if conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path); err == nil {
			_ = conn.Close()
			return nil, fmt.Errorf("local socket %s: another bailiwick-node answers there", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("replace a stale local socket: %w", err)
		}
	}
	// The socket is made in a directory that only its owner can enter, so that nobody connects before its mode is set.
	private, err := os.MkdirTemp(filepath.Dir(path), ".socket")
	if err != nil {
		return nil, fmt.Errorf("make the local socket: %w", err)
	}
	defer os.RemoveAll(private)
	temporary := filepath.Join(private, "s")
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", temporary)
	if err != nil {
		return nil, fmt.Errorf("make the local socket: %w", err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(temporary, 0o600), os.Rename(temporary, path)); err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("make the local socket: %w", err)
	}
	return listener, nil
}

// Serve answers until ctx ends, then removes the socket.
func Serve(ctx context.Context, listener net.Listener, path string, source Source) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", answer(func(r *http.Request) (any, error) { return source.Status(r.Context()) }))
	mux.HandleFunc("GET /v1/sas", answer(func(r *http.Request) (any, error) { return source.Associations(r.Context()) }))
	mux.HandleFunc("GET /v1/filters", answer(func(r *http.Request) (any, error) { return source.Filters(r.Context()) }))
	mux.HandleFunc("POST /v1/rekey", answer(func(r *http.Request) (any, error) {
		var request Rekey
		if err := read(r, 4096, &request); err != nil {
			return nil, err
		}
		return struct{}{}, source.Rekey(r.Context(), request)
	}))
	mux.HandleFunc("POST /v1/rules/add", answer(func(r *http.Request) (any, error) {
		var request AddRules
		if err := read(r, maxRules, &request); err != nil {
			return nil, err
		}
		return source.AddRules(r.Context(), request)
	}))
	mux.HandleFunc("POST /v1/rules/delete", answer(func(r *http.Request) (any, error) {
		var request DeleteRules
		if err := read(r, 4096, &request); err != nil {
			return nil, err
		}
		return struct{}{}, source.DeleteRules(r.Context(), request)
	}))
	mux.HandleFunc("GET /v1/counters", answer(func(r *http.Request) (any, error) { return source.Counters(r.Context()) }))
	mux.HandleFunc("GET /v1/metrics", serveMetrics(source))
	mux.HandleFunc("GET /v1/ike/trace", serveTrace(source))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	err := server.Serve(listener)
	_ = os.Remove(path)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// maxRules bounds a request with rules: a file of policy documents, escaped.
const maxRules = 16 << 20

// read takes the request from the body.
func read(r *http.Request, most int64, request any) error {
	d := json.NewDecoder(http.MaxBytesReader(nil, r.Body, most))
	d.DisallowUnknownFields()
	if err := d.Decode(request); err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	return nil
}

// serveMetrics answers in the text format of Prometheus.
func serveMetrics(source Source) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		figures, err := source.Counters(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_ = statistics.WriteMetrics(w, figures)
	}
}

func answer(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		value, err := f(r)
		w.Header().Set("Content-Type", "application/json")
		if err != nil {
			w.WriteHeader(http.StatusUnprocessableEntity)
			value = failure{err.Error()}
		}
		_ = json.NewEncoder(w).Encode(value)
	}
}

// failure is the body of an answer that is not 200.
type failure struct {
	Error string `json:"error"`
}
