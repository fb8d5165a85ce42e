package suite

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // RFC 7296 2.23 fixes SHA-1 for this hash, on which no security rests
	"crypto/sha256"
	"encoding/binary"
	"net/netip"

	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// NATHash is the data of a NAT_DETECTION_SOURCE_IP or NAT_DETECTION_DESTINATION_IP notify (RFC 7296 2.23):
// SHA-1(SPIi | SPIr | address | port) with the SPIs of the header of that message; spir is 0 in the first request.
func NATHash(spii, spir wire.SPI, at netip.AddrPort) []byte {
	b := spir.Append(spii.Append(make([]byte, 0, 2*8+16+2)))
	if addr := at.Addr().Unmap(); addr.Is4() {
		a := addr.As4()
		b = append(b, a[:]...)
	} else {
		a := addr.As16()
		b = append(b, a[:]...)
	}
	b = binary.BigEndian.AppendUint16(b, at.Port())
	sum := sha1.Sum(b)
	return sum[:]
}

// CookieLen is the length in octets of what Cookie returns.
const CookieLen = 1 + sha256.Size

// Cookie is the data of a COOKIE notify (RFC 7296 2.6): the version, which tells the secrets of the responder apart
// when they rotate, and a keyed hash over what the initiator must repeat: SPIi, Ni, its address and port. Compare with
// hmac.Equal.
func Cookie(secret sa.Secret, version byte, spii wire.SPI, ni []byte, from netip.AddrPort) []byte {
	m := hmac.New(sha256.New, secret.Expose())
	m.Write([]byte{version})
	m.Write(spii.Append(nil))
	addr := from.Addr().As16() // fixed lengths before Ni, so that no two inputs are the same octets
	m.Write(addr[:])
	m.Write(binary.BigEndian.AppendUint16(nil, from.Port()))
	m.Write(ni)
	return m.Sum([]byte{version})
}
