package suite

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"net/netip"

	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// CookieMaker makes the cookies of one secret, many a second: it gives what Cookie gives, and allocates nothing. It belongs
// to one goroutine.
type CookieMaker struct {
	mac     hash.Hash
	version byte
	scratch []byte
}

// NewCookieMaker takes the secret and the version that its cookies begin with.
func NewCookieMaker(secret sa.Secret, version byte) *CookieMaker {
	return &CookieMaker{mac: hmac.New(sha256.New, secret.Expose()), version: version}
}

// Append appends the cookie to dst.
func (c *CookieMaker) Append(dst []byte, spii wire.SPI, ni []byte, from netip.AddrPort) []byte {
	c.mac.Reset()
	addr := from.Addr().As16()
	b := append(c.scratch[:0], c.version)
	b = spii.Append(b)
	b = append(b, addr[:]...)
	b = binary.BigEndian.AppendUint16(b, from.Port())
	b = append(b, ni...)
	c.scratch = b
	c.mac.Write(b)
	return c.mac.Sum(append(dst, c.version))
}
