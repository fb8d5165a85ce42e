package lab_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
)

func TestServeEcho(t *testing.T) {
	a, b := pair(t, "bwlab4-")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := b.ServeEcho(ctx, 7); err != nil {
		t.Fatal(err)
	}
	var conn net.Conn
	if err := a.Do(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", "10.9.0.2:7")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, payload := range []string{"first", "second"} {
		if err := lab.RoundTrip(conn, []byte(payload), time.Now().Add(5*time.Second)); err != nil {
			t.Errorf("%q: %v", payload, err)
		}
	}
	cancel()
	if err := lab.RoundTrip(conn, []byte("third"), time.Now().Add(5*time.Second)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the service ended: %v, want a closed connection", err)
	}
}

func TestRoundTripRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer string
		want   error
	}{
		{"other octets", "pinG", lab.ErrEcho},
		{"no answer", "", os.ErrDeadlineExceeded},
		{"half an answer", "pi", os.ErrDeadlineExceeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			near, far := net.Pipe()
			defer near.Close()
			defer far.Close()
			go func() {
				_, _ = io.CopyN(io.Discard, far, 4)
				_, _ = io.WriteString(far, c.answer)
			}()
			if err := lab.RoundTrip(near, []byte("ping"), time.Now().Add(100*time.Millisecond)); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}
