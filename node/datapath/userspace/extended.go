package userspace

import (
	"errors"
	"fmt"

	"github.com/bailiwick-net/bailiwick/node/esp"
	"github.com/bailiwick-net/bailiwick/node/packet"
)

// Options of IPv4, hop-by-hop options and routing headers stay outside of ESP in transport mode (RFC 4303 3.1.1). The sockets
// of ESP write plain headers, so packets that have such are sent with their whole header. Who receives them has
// nothing to do: IP takes them off.

// errRewritten is about a packet whose header says another way than its SA: a NAT stands between.
var errRewritten = errors.New("a packet with options or extension headers does not pass a NAT in transport mode")

// sealWhole seals and sends one packet of transport mode with its own header. It returns the length of the ESP packet.
func (l *loop) sealWhole(a *association, out *esp.Outbound, pkt []byte, info *packet.Info) (int, error) {
	if info.Source != a.child.Local.Addr() || info.Destination != a.remote.Addr() {
		return 0, fmt.Errorf("send ESP to %s: %w", a.remote, errRewritten)
	}
	sealed, err := out.SealIP(nil, pkt, a.child.Local.Port(), a.remote.Port())
	if err != nil {
		return 0, err
	}
	if err := l.whole.send(sealed, *info); err != nil {
		l.counters[counterSendFailed]++
		a.discarded.Add(1)
		l.warn("cannot send ESP behind extension headers", err)
	}
	return len(sealed) - info.TransportOffset, nil
}
