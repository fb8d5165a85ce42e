package engine

import (
	"crypto/subtle"
	"sync"
	"sync/atomic"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

// Class is how urgent a datagram is, by what can be known of it without parsing it or asking the engine.
type Class uint8

// The classes, the most urgent first.
const (
	// ClassPeer has the SPI of an SA whose peer is authenticated. Only who has seen its messages knows that.
	ClassPeer Class = iota + 1
	// ClassNewcomer has the SPI of an SA that is being made, or a valid cookie: it can receive at its address.
	ClassNewcomer
	// ClassStranger can come from anybody who invents an address.
	ClassStranger
	// ClassDone needs the engine no more: it was answered here, or is no message at all.
	ClassDone
)

// String names the class.
func (c Class) String() string {
	switch c {
	case ClassPeer:
		return "peer"
	case ClassNewcomer:
		return "newcomer"
	case ClassStranger:
		return "stranger"
	case ClassDone:
		return "done"
	}
	return "no class"
}

// Front stands before an engine, where datagrams arrive: it tells the urgent from the others, so that a flood of first
// messages takes the place of nobody, and while the engine wants cookies it asks for them itself. That costs a hash and
// no memory, however many come. It decides nothing else, and what it lets through the engine judges anew. It is the one
// part of an engine that any goroutine may call.
type Front struct {
	demand           atomic.Bool // the engine wants cookies
	asked, malformed atomic.Uint64
	mu               struct {
		sync.RWMutex
		known map[wire.SPI]Class
	}
	cookies struct {
		sync.Mutex
		current, previous *suite.CookieMaker
		version           byte
		room              []byte
	}
}

func newFront() *Front {
	f := &Front{}
	f.mu.known = make(map[wire.SPI]Class)
	return f
}

// Front returns what stands before the engine.
func (e *Engine) Front() *Front { return e.front }

// Screen classes a datagram. With ClassDone it appends to room the answer to send from d.Local to d.Remote, if any.
func (f *Front) Screen(d ike.Datagram, room []byte) (Class, []byte) {
	h, err := wire.ParseHeader(d.Bytes)
	if err != nil || h.SPIi == 0 || uint64(h.Length) != uint64(len(d.Bytes)) {
		f.malformed.Add(1)
		return ClassDone, room
	}
	own := h.SPIi
	if h.FromInitiator() {
		own = h.SPIr
	}
	if own != 0 {
		f.mu.RLock()
		defer f.mu.RUnlock()
		if c, ok := f.mu.known[own]; ok {
			return c, room
		}
		return ClassStranger, room
	}
	if !f.demand.Load() || h.Exchange != wire.IKESAInit || h.Response() || h.MessageID != 0 || h.Version>>4 != wire.Version2>>4 {
		return ClassStranger, room
	}
	// A request shorter than the answer is not worth one.
	parts, ok := wire.PeekInit(d.Bytes)
	if !ok || len(d.Bytes) < wire.CookieMessageLen(suite.CookieLen) {
		f.malformed.Add(1)
		return ClassDone, room
	}
	return f.judge(d, h, parts, room)
}

// judge lets a request with a valid cookie through, and asks for one otherwise (RFC 7296 2.6).
func (f *Front) judge(d ike.Datagram, h wire.Header, parts wire.InitParts, room []byte) (Class, []byte) {
	c := &f.cookies
	c.Lock()
	defer c.Unlock()
	if c.current == nil { // the engine has made no secret yet
		return ClassStranger, room
	}
	if len(parts.Cookie) > 0 {
		maker := c.current
		if parts.Cookie[0] == c.version-1 && c.previous != nil {
			maker = c.previous
		}
		c.room = maker.Append(c.room[:0], h.SPIi, parts.Nonce, d.Remote)
		if subtle.ConstantTimeCompare(parts.Cookie, c.room) == 1 {
			return ClassNewcomer, room
		}
	}
	f.asked.Add(1)
	return ClassDone, wire.AppendCookieMessage(room, h, suite.CookieLen, func(b []byte) []byte {
		return c.current.Append(b, h.SPIi, parts.Nonce, d.Remote)
	})
}

// file tells what is known of an SPI.
func (f *Front) file(x *entry, in filing) {
	class := ClassNewcomer
	if !x.sa.EstablishedAt().IsZero() {
		class = ClassPeer
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if in == (filing{}) {
		delete(f.mu.known, x.sa.SPI())
		return
	}
	f.mu.known[x.sa.SPI()] = class
}

// renew takes over new secrets.
func (f *Front) renew(k cookies) {
	c := &f.cookies
	c.Lock()
	defer c.Unlock()
	c.version = k.version
	c.current, c.previous = suite.NewCookieMaker(k.current, k.version), nil
	if k.previous.Len() > 0 {
		c.previous = suite.NewCookieMaker(k.previous, k.version-1)
	}
}

// addTo adds what was answered and dropped here, as the engine counts the same.
func (f *Front) addTo(counters map[string]uint64) {
	asked, malformed := f.asked.Load(), f.malformed.Load()
	for name, n := range map[string]uint64{"init_received": asked, "cookies_sent": asked, dropCounters[ike.ReasonMalformed]: malformed} {
		if n > 0 {
			counters[name] += n
		}
	}
}

// wantsCookies tells whether first messages from anywhere need a cookie.
func (e *Engine) wantsCookies() bool {
	return e.table.halfOpen >= cookieAbove || len(e.jobs) >= cookieAboveJobs
}

// instruct tells the front whether cookies are wanted, and sees to it that their secret is not too old.
func (e *Engine) instruct() {
	demand := e.wantsCookies()
	if demand {
		e.rotateCookies()
	}
	if demand != e.front.demand.Load() {
		e.front.demand.Store(demand)
	}
	e.tellGuard(demand)
}
