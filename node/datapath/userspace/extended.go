package userspace

import (
	"errors"
	"fmt"

	"github.com/bailiwick-net/bailiwick/node/packet"
)

// Options of IPv4, hop-by-hop options and routing headers stay outside of ESP in transport mode (RFC 4303 3.1.1). The sockets
// of ESP write plain headers, so packets that have such are sent with their whole header. Who receives them has
// nothing to do: IP takes them off.

// errRewritten is about a packet whose header says another way than its SA: a NAT stands between.
var errRewritten = errors.New("a packet with options or extension headers does not pass a NAT in transport mode")

// sealWhole seals and sends one packet of transport mode with its own header.
func (l *loop) sealWhole(a *association, pkt []byte, info *packet.Info) error {
	if info.Source != a.child.Local.Addr() || info.Destination != a.remote.Addr() {
		return fmt.Errorf("send ESP to %s: %w", a.remote, errRewritten)
	}
	sealed, err := a.out.SealIP(nil, pkt, a.child.Local.Port(), a.remote.Port())
	if err != nil {
		return err
	}
	a.outPackets++
	a.outOctets += uint64(len(sealed) - info.TransportOffset)
	if err := l.whole.send(sealed, *info); err != nil {
		l.counters[counterSendFailed]++
		a.discarded++
		l.warn("cannot send ESP behind extension headers", err)
	}
	return nil
}
