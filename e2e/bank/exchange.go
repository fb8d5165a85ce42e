package bank

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
)

// connect opens a TCP connection from the host.
func connect(ctx context.Context, host *lab.Host, target netip.AddrPort) (conn net.Conn, err error) {
	err = host.Do(func() error {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", target.String())
		return err
	})
	return conn, err
}

// exchange connects, sends payload and reads it back, until the deadline of ctx. delay is the time until the connection stood.
func exchange(ctx context.Context, host *lab.Host, target netip.AddrPort, payload []byte) (delay time.Duration, err error) {
	start := time.Now()
	conn, err := connect(ctx, host, target)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	delay = time.Since(start)
	deadline, _ := ctx.Deadline()
	return delay, lab.RoundTrip(conn, payload, deadline)
}
