package engine

import (
	"crypto/subtle"
	"net/netip"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// cookieLife is how long a secret makes cookies; they stay valid as long again (RFC 7296 2.6).
const cookieLife = time.Minute

// cookies are stateless: a keyed hash over what the initiator must repeat. Two secrets are valid at a time.
type cookies struct {
	current, previous sa.Secret
	version           byte
	made              time.Time
}

func (e *Engine) rotateCookies() {
	c := &e.cookies
	age := e.now.Sub(c.made)
	switch {
	case c.current.Len() == 0 || age >= 2*cookieLife:
		c.previous = sa.Secret{}
	case age < cookieLife:
		return
	default:
		c.previous = c.current
	}
	c.current = sa.NewSecret(e.Random(32))
	c.version++
	c.made = e.now
}

// cookieValid checks the cookie, which must be the first payload.
func (e *Engine) cookieValid(m wire.Message, ni []byte, from netip.AddrPort) bool {
	e.rotateCookies()
	n, ok := m.Payloads[0].(wire.Notify)
	if !ok || n.Type != wire.NotifyCookie || len(n.Data) == 0 {
		return false
	}
	c := &e.cookies
	secret, version := c.current, c.version
	if n.Data[0] == c.version-1 && c.previous.Len() > 0 {
		secret, version = c.previous, c.version-1
	}
	return subtle.ConstantTimeCompare(n.Data, suite.Cookie(secret, version, m.Header.SPIi, ni, from)) == 1
}

func (e *Engine) sendCookie(d ike.Datagram, m wire.Message, ni []byte) {
	e.rotateCookies()
	cookie := suite.Cookie(e.cookies.current, e.cookies.version, m.Header.SPIi, ni, d.Remote)
	e.answer(d, m.Header, wire.Notify{Type: wire.NotifyCookie, Data: cookie})
}
