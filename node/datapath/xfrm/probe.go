package xfrm

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// Probe reports why this machine cannot leave ESP to the kernel, in the network namespace of the calling thread; nil where
// it can. It asks by doing: kernels load the modules for it when they are asked.
func Probe() error {
	k, err := openKernel()
	if err != nil {
		return err
	}
	return errors.Join(k.probe(), k.close())
}

// probe installs, reads and deletes an SA with extended sequence numbers, of each family, between addresses that nobody has.
func (k *kernel) probe() error {
	const octets = 20
	t, err := transformOf(proposal.ESP{Encryption: proposal.EncrAESGCM16, KeyBits: 128, ESN: true})
	if err != nil {
		return err
	}
	for _, address := range []string{"192.0.2.1", "2001:db8::1"} { // RFC 5737, RFC 3849
		a := netip.MustParseAddr(address)
		if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil && a.Is6() {
			continue
		}
		s := state{
			spi: probeSPI, source: a.Next(), target: a, mode: sa.Transport, esn: true, replay: replay{window: 1024}, transform: t, set: sealedMark,
			key: sa.Keys{Encryption: sa.NewSecret(make([]byte, octets))}, hard: sa.Limits{Packets: 1},
		}
		err := k.addState(s, false)
		if err == nil {
			var got state
			if got, err = k.getState(a, probeSPI); err == nil && (!got.esn || got.replay.window != s.replay.window || got.set != s.set) {
				err = errors.New("the kernel does not keep extended sequence numbers, a window of 1024 packets and a mark")
			}
			err = errors.Join(err, k.deleteState(a, probeSPI))
		}
		if err != nil {
			return fmt.Errorf("no ESP in the kernel for %s: %w", familyName(a), err)
		}
	}
	return nil
}

// probeSPI is that of an SA that lives for a moment, between addresses that nobody has.
const probeSPI sa.SPI = 0xfffffffe

func familyName(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}
