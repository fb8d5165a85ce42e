package engine

import (
	"crypto/subtle"
	"net/netip"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/impair"
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
	e.front.renew(*c)
}

// cookieValid checks the cookie of a request that has one.
func (e *Engine) cookieValid(cookie []byte, spii wire.SPI, ni []byte, from netip.AddrPort) bool {
	if len(cookie) == 0 {
		return false
	}
	e.rotateCookies()
	c := &e.cookies
	secret, version := c.current, c.version
	if cookie[0] == c.version-1 && c.previous.Len() > 0 {
		secret, version = c.previous, c.version-1
	}
	if impair.On(impair.CookieUnbound) {
		from = netip.AddrPort{}
	}
	return subtle.ConstantTimeCompare(cookie, suite.Cookie(secret, version, spii, ni, from)) == 1
}

// sendCookie asks for the request once more, with a cookie. A request shorter than the answer is not worth one.
func (e *Engine) sendCookie(d ike.Datagram, h wire.Header, ni []byte) {
	if len(d.Bytes) < wire.HeaderLen+8+suite.CookieLen {
		e.drop(d, ike.ReasonMalformed)
		return
	}
	e.rotateCookies()
	e.count("cookies_sent")
	from := d.Remote
	if impair.On(impair.CookieUnbound) {
		from = netip.AddrPort{}
	}
	cookie := suite.Cookie(e.cookies.current, e.cookies.version, h.SPIi, ni, from)
	e.answer(d, h, wire.Notify{Type: wire.NotifyCookie, Data: cookie})
}
