package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// ErrEcho means that an echo service answered with other octets than it was sent.
var ErrEcho = errors.New("the answer differs from what was sent")

// ServeEcho answers every TCP connection to the port, on any address of the host, with what it sends, until ctx ends.
func (h *Host) ServeEcho(ctx context.Context, port uint16) error {
	return h.Do(func() error {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return fmt.Errorf("serve echo on host %s: %w", h.Name, err)
		}
		context.AfterFunc(ctx, func() { _ = listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
					defer stop()
					_, _ = io.Copy(conn, conn) // the client sees what did not come back
				}()
			}
		}()
		return nil
	})
}

// RoundTrip sends payload to an echo service and reads it back before the deadline; the zero deadline is none. Other
// octets are ErrEcho.
func RoundTrip(conn net.Conn, payload []byte, deadline time.Time) error {
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := conn.Write(payload); err != nil {
		return err
	}
	answer := make([]byte, len(payload))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	if !bytes.Equal(answer, payload) {
		return ErrEcho
	}
	return nil
}
