package ikeload

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/transport"
)

// sockets carry IKE over the product's own sockets.
type sockets struct {
	*transport.Sockets
	datagrams chan ike.Datagram
	done      chan struct{}
}

// OnSockets starts a machine on the UDP ports of the network namespace that the calling thread is in.
func OnSockets(c MachineConfig) (*Machine, error) {
	open, err := transport.Listen(transport.Config{NoIPv6: true, NoRawESP: true, IKEOnly: true})
	if err != nil {
		return nil, fmt.Errorf("open the sockets: %w", err)
	}
	s := &sockets{open, make(chan ike.Datagram), make(chan struct{})}
	go s.read()
	c.Transport = s
	m, err := Start(c)
	if err != nil {
		close(s.done)
		return nil, errors.Join(err, open.Close())
	}
	m.close = func() error {
		close(s.done)
		return open.Close()
	}
	m.sockets = open
	return m, nil
}

func (s *sockets) read() {
	defer close(s.datagrams)
	buffer := make([]byte, 1<<16)
	for {
		n, local, remote, err := s.ReadIKE(buffer)
		if err != nil {
			return
		}
		select {
		case s.datagrams <- ike.Datagram{Local: local, Remote: remote, Bytes: bytes.Clone(buffer[:n])}:
		case <-s.done:
			return
		}
	}
}

// Datagrams implements driver.Transport.
func (s *sockets) Datagrams() <-chan ike.Datagram { return s.datagrams }
