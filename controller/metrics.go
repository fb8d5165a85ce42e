package controller

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/mirror"
)

// MetricsConfig says where Prometheus reads figures.
type MetricsConfig struct {
	// Listen is host:port on a loopback address; empty means that there is no such listener. The path is /metrics.
	Listen string `yaml:"listen"`
}

// sourceStatus is a directory source with its name.
type sourceStatus struct {
	name   string
	status mirror.Status
}

// figure is one metric of the directories.
type figure struct {
	name, kind, help string
	value            func(s mirror.Status, now time.Time) (float64, bool)
}

func always(v func(mirror.Status) float64) func(mirror.Status, time.Time) (float64, bool) {
	return func(s mirror.Status, _ time.Time) (float64, bool) { return v(s), true }
}

// stampOf leaves out what never happened.
func stampOf(at func(mirror.Status) time.Time) func(mirror.Status, time.Time) (float64, bool) {
	return func(s mirror.Status, _ time.Time) (float64, bool) {
		t := at(s)
		return float64(t.UnixMilli()) / 1000, !t.IsZero()
	}
}

// counted is how many containers, machines and groups are in force.
func counted(pick func(containers, machines, groups int) int) func(mirror.Status, time.Time) (float64, bool) {
	return func(s mirror.Status, _ time.Time) (float64, bool) {
		if s.View == nil {
			return 0, false
		}
		return float64(pick(s.View.Snapshot.Len())), true
	}
}

// figures are the metrics of each directory source, in the order in which they are written.
func figures() []figure {
	flag := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	return []figure{
		{"up", "gauge", "Whether the latest read succeeded.", always(func(s mirror.Status) float64 {
			return flag(s.Source.LastError == "" && !s.Source.LastRead.IsZero())
		})},
		{"last_read_timestamp_seconds", "gauge", "When the directory was last seen to be what is known.", stampOf(func(s mirror.Status) time.Time { return s.Source.LastRead })},
		{"last_full_read_timestamp_seconds", "gauge", "When the directory was last read entry by entry.", stampOf(func(s mirror.Status) time.Time { return s.Source.LastFull })},
		{"lag_seconds", "gauge", "For how long the directory has not been seen to be what is known.", func(s mirror.Status, now time.Time) (float64, bool) {
			lag, ok := s.Source.Lag(now)
			return lag.Seconds(), ok
		}},
		{"read_duration_seconds", "gauge", "How long the latest complete read took.", always(func(s mirror.Status) float64 { return s.Source.LastDuration.Seconds() })},
		{"consecutive_failures", "gauge", "Reads that failed since the last success.", always(func(s mirror.Status) float64 { return float64(s.Source.Failures) })},
		{"containers", "gauge", "Containers in force.", counted(func(c, _, _ int) int { return c })},
		{"machines", "gauge", "Machines in force.", counted(func(_, m, _ int) int { return m })},
		{"groups", "gauge", "Groups in force.", counted(func(_, _, g int) int { return g })},
		{"problems", "gauge", "Entries and values that cannot be used.", always(func(s mirror.Status) float64 { return float64(s.Source.Problems) })},
		{"vanished_machines", "gauge", "Machines that are missing and within their grace time.", func(s mirror.Status, _ time.Time) (float64, bool) {
			if s.View == nil {
				return 0, false
			}
			return float64(len(s.View.Vanished)), true
		}},
		{"held", "gauge", "Whether a change waits for an administrator.", always(func(s mirror.Status) float64 { return flag(s.Waits()) })},
		{"held_machines", "gauge", "Machines that what is held affects.", always(func(s mirror.Status) float64 {
			n := 0
			for _, held := range s.AllHeld() {
				n += held.Affected()
			}
			return float64(n)
		})},
		{"raised", "gauge", "Whether an announced change may pass the guard.", always(func(s mirror.Status) float64 { return flag(s.Raised != nil) })},
		{"unstored", "gauge", "Whether the latest attempt to store what is in force failed.", always(func(s mirror.Status) float64 { return flag(s.Unstored != "") })},
		{"reads_total", "counter", "Reads that succeeded.", always(func(s mirror.Status) float64 { return float64(s.Counts.Reads) })},
		{"failures_total", "counter", "Reads that failed.", always(func(s mirror.Status) float64 { return float64(s.Counts.Failures) })},
		{"changes_total", "counter", "Changes that came into force.", always(func(s mirror.Status) float64 { return float64(s.Counts.Changes) })},
		{"held_total", "counter", "Changes that the guard held.", always(func(s mirror.Status) float64 { return float64(s.Counts.Held) })},
		{"vanished_total", "counter", "Machines that vanished.", always(func(s mirror.Status) float64 { return float64(s.Counts.Vanished) })},
		{"expired_total", "counter", "Vanished machines that lost their policy.", always(func(s mirror.Status) float64 { return float64(s.Counts.Expired) })},
	}
}

// writeMetrics writes the figures in the text format of Prometheus, version 0.0.4.
func writeMetrics(w io.Writer, sources []sourceStatus, now time.Time) error {
	var b bytes.Buffer
	const prefix = "bailiwick_directory_"
	fmt.Fprintf(&b, "# HELP %[1]sinfo The source and how its changes are noticed.\n# TYPE %[1]sinfo gauge\n", prefix)
	for _, s := range sources {
		fmt.Fprintf(&b, "%sinfo{source=%s,kind=%s,protocol=%s} 1\n", prefix, label(s.name), label(s.status.Source.Kind), label(s.status.Source.Protocol))
	}
	for _, f := range figures() {
		fmt.Fprintf(&b, "# HELP %s%s %s\n# TYPE %s%s %s\n", prefix, f.name, f.help, prefix, f.name, f.kind)
		for _, s := range sources {
			if v, ok := f.value(s.status, now); ok {
				fmt.Fprintf(&b, "%s%s{source=%s} %s\n", prefix, f.name, label(s.name), strconv.FormatFloat(v, 'f', -1, 64))
			}
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

// label quotes a value as the format wants it.
func label(value string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(value) + `"`
}

// sourceStatuses asks every mirror.
func (c *Controller) sourceStatuses() []sourceStatus {
	var out []sourceStatus
	for _, name := range c.mirror.Sources() {
		if st, err := c.mirror.Status(name); err == nil {
			out = append(out, sourceStatus{name, st})
		}
	}
	return out
}

// serveMetrics answers Prometheus until ctx ends.
func (c *Controller) serveMetrics(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		err := errors.Join(writeMetrics(w, c.sourceStatuses(), c.config.Now()), c.connections.writeMetrics(w))
		if err == nil {
			_, err = w.Write(append(c.ends.text(r.Context()), listFigures(c.revoked.Health())...))
		}
		if err != nil {
			c.log.Debug("metrics could not be sent", "error", err)
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(c.metricsLs); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// MetricsAddress is where Prometheus reads figures; nil without such a listener.
func (c *Controller) MetricsAddress() net.Addr {
	if c.metricsLs == nil {
		return nil
	}
	return c.metricsLs.Addr()
}
