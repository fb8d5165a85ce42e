package control

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/bailiwick-net/bailiwick/pki"
)

// maxMessage bounds what a controller may send in one message, in octets: a bundle of thousands of rules fits.
const maxMessage = 16 << 20

// network opens connections that carry the mark which the node's own rules let pass, and tells which addresses the
// controller has.
type network struct {
	mark     int
	resolved func([]netip.AddrPort)
}

// dial connects to host:port, trying each address in turn.
func (n network) dial(ctx context.Context, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("controller address %q: %w; write host:port", address, err)
	}
	number, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
	if err != nil {
		return nil, fmt.Errorf("controller address %q: %w", address, err)
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("find the addresses of controller %q: %w", host, err)
	}
	var targets []netip.AddrPort
	for _, a := range addrs {
		targets = append(targets, netip.AddrPortFrom(a.Unmap(), uint16(number)))
	}
	if n.resolved != nil {
		n.resolved(targets)
	}
	dialer := net.Dialer{Timeout: 5 * time.Second, Control: n.setMark}
	var failures []error
	for _, target := range targets {
		conn, err := dialer.DialContext(ctx, "tcp", target.String())
		if err == nil {
			return conn, nil
		}
		failures = append(failures, err)
	}
	return nil, errors.Join(failures...)
}

// setMark marks the socket. A process that may not do so is not the daemon (a join by hand, a test): its connection is
// treated like any other.
func (n network) setMark(_, _ string, raw syscall.RawConn) error {
	if n.mark == 0 {
		return nil
	}
	var err error
	if controlErr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, n.mark)
	}); controlErr != nil {
		return controlErr
	}
	if errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}

// client makes a gRPC connection to one address. It is lazy: errors come with the first call.
func (n network) client(address string, config *tls.Config) (*grpc.ClientConn, error) {
	config.MinVersion = tls.VersionTLS13
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithContextDialer(n.dial),
		grpc.WithDisableServiceConfig(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
	)
	if err != nil {
		return nil, fmt.Errorf("prepare connection to controller %s: %w", address, err)
	}
	return conn, nil
}

// controllerOnly refuses, after verify, whoever holds a certificate of the fleet but is not a controller.
func controllerOnly(verify func(tls.ConnectionState) error) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		if err := verify(state); err != nil {
			return err
		}
		subject, err := pki.SubjectFromCertificate(state.PeerCertificates[0])
		if err != nil {
			return fmt.Errorf("certificate of the controller: %w", err)
		}
		if _, ok := subject.(pki.Controller); !ok {
			return fmt.Errorf("the server shows a certificate of %s, which is not a controller", subject)
		}
		return nil
	}
}
