package ikeload

import (
	"errors"
	"fmt"

	"github.com/bailiwick-net/bailiwick/node/carrier"
	"github.com/bailiwick-net/bailiwick/node/transport"
)

// OnSockets starts a machine on the UDP ports of the network namespace that the calling thread is in.
func OnSockets(c MachineConfig) (*Machine, error) {
	sockets, err := transport.Listen(transport.Config{NoIPv6: true, NoRawESP: true, IKEOnly: true})
	if err != nil {
		return nil, fmt.Errorf("open the sockets: %w", err)
	}
	carried := carrier.New(sockets)
	c.Transport = carried
	m, err := Start(c)
	if err != nil {
		carried.Stop()
		return nil, errors.Join(err, sockets.Close())
	}
	m.close = func() error {
		carried.Stop()
		return sockets.Close()
	}
	m.sockets = sockets
	return m, nil
}
