package suite

import (
	"bytes"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

func TestCookieMakerMakesCookies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secret := sa.NewSecret(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "secret"))
		version := rapid.Byte().Draw(t, "version")
		maker := NewCookieMaker(secret, version)
		for range 3 {
			spi := wire.SPI(rapid.Uint64().Draw(t, "SPI"))
			ni := rapid.SliceOfN(rapid.Byte(), 16, 256).Draw(t, "nonce")
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "address"))), rapid.Uint16().Draw(t, "port"))
			if got, want := maker.Append([]byte("x"), spi, ni, from), Cookie(secret, version, spi, ni, from); !bytes.Equal(got[1:], want) || got[0] != 'x' {
				t.Fatalf("got %x, want %x", got, want)
			}
		}
	})
}

func TestCookieMakerDoesNotAllocate(t *testing.T) {
	maker := NewCookieMaker(sa.NewSecret(make([]byte, 32)), 1)
	from, ni, room := netip.MustParseAddrPort("192.0.2.1:500"), make([]byte, 32), make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() { room = maker.Append(room[:0], 7, ni, from) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
