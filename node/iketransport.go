package node

import (
	"bytes"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/transport"
)

// ikeTransport gives the IKE driver its datagrams as a channel.
type ikeTransport struct {
	*transport.Sockets
	datagrams chan ike.Datagram
	done      chan struct{}
}

// newIKETransport starts the reader. It ends with the sockets, or with stop.
func newIKETransport(sockets *transport.Sockets) *ikeTransport {
	t := &ikeTransport{sockets, make(chan ike.Datagram), make(chan struct{})}
	go t.read()
	return t
}

// stop says that nobody takes datagrams any more.
func (t *ikeTransport) stop() { close(t.done) }

// maxIKEMessage is the largest datagram, in octets.
const maxIKEMessage = 1 << 16

func (t *ikeTransport) read() {
	defer close(t.datagrams)
	buffer := make([]byte, maxIKEMessage)
	for {
		n, local, remote, err := t.ReadIKE(buffer)
		if err != nil {
			return
		}
		select {
		case t.datagrams <- ike.Datagram{Local: local, Remote: remote, Bytes: bytes.Clone(buffer[:n])}:
		case <-t.done:
			return
		}
	}
}

// Datagrams delivers what arrives (driver.Transport).
func (t *ikeTransport) Datagrams() <-chan ike.Datagram { return t.datagrams }
