package bank

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
)

// serveEcho answers every connection on the host with what it sent, until ctx ends.
func serveEcho(ctx context.Context, host *lab.Host, port uint16) error {
	return host.Do(func() error {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
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
					_, _ = io.Copy(conn, conn)
				}()
			}
		}()
		return nil
	})
}

// connect opens a TCP connection from the host.
func connect(ctx context.Context, host *lab.Host, target netip.AddrPort) (conn net.Conn, err error) {
	err = host.Do(func() error {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", target.String())
		return err
	})
	return conn, err
}

// exchange connects, sends payload and reads it back. delay is the time until the connection stood.
func exchange(ctx context.Context, host *lab.Host, target netip.AddrPort, payload []byte) (delay time.Duration, err error) {
	start := time.Now()
	conn, err := connect(ctx, host, target)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	delay = time.Since(start)
	return delay, roundTrip(ctx, conn, payload)
}

func roundTrip(ctx context.Context, conn net.Conn, payload []byte) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if _, err := conn.Write(payload); err != nil {
		return err
	}
	answer := make([]byte, len(payload))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	if !bytes.Equal(answer, payload) {
		return errors.New("the answer differs from what was sent")
	}
	return nil
}
