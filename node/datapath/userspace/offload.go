package userspace

import (
	"fmt"

	"github.com/bailiwick-net/bailiwick/node/esp/aesgcm"
	"github.com/bailiwick-net/bailiwick/node/tun"
)

// missing names the offloads that the datapath has to do without, and the implementation of AES-GCM that was chosen:
// they change the speed and nothing else.
func (b *backend) missing() (notes []string) {
	segmentation, joining := b.cfg.Sockets.Offloads()
	if !segmentation {
		notes = append(notes, "The kernel or a device does not cut UDP into datagrams (UDP_SEGMENT): each ESP packet is sent by itself.")
	}
	if !joining {
		notes = append(notes, "The kernel does not join UDP datagrams (UDP_GRO): each ESP packet is received by itself.")
	}
	if lacks := tun.OffloadAll &^ b.device.Offloads(); lacks != 0 {
		notes = append(notes, fmt.Sprintf("The TUN device has no %s: such packets pass it one by one.", lacks))
	}
	if n := len(b.world.loops); n > 1 {
		notes = append(notes, fmt.Sprintf("Packet threads: %d, each with its own queue of the TUN and its own sockets. SAs that a filter action asks for with \"associations\" spread over them.", n))
	}
	return append(notes, fmt.Sprintf("Implementation of AES-GCM: %s.", aesgcm.Chosen()))
}
