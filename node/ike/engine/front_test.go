package engine

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

var frontOffer = proposal.IKE{Encryption: proposal.EncrAESGCM16, KeyBits: 256, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupX25519}

// firstMessage is an IKE_SA_INIT request of stranger i, with a cookie when it has one.
func firstMessage(i int, cookie []byte) ike.Datagram {
	nonce := make([]byte, 32)
	binary.BigEndian.PutUint64(nonce, uint64(i))
	m := wire.Message{
		Header: wire.Header{SPIi: wire.SPI(i + 1), Exchange: wire.IKESAInit, Flags: wire.FlagInitiator},
		Payloads: []wire.Payload{
			wire.SAFromIKE([]proposal.IKE{frontOffer}, 0), wire.KE{Group: proposal.GroupX25519, Data: bytes.Repeat([]byte{9}, 32)}, wire.Nonce{Data: nonce},
		},
	}
	if cookie != nil {
		m.Payloads = append([]wire.Payload{wire.Notify{Type: wire.NotifyCookie, Data: cookie}}, m.Payloads...)
	}
	return ike.Datagram{
		Local:  netip.MustParseAddrPort("192.0.2.1:500"),
		Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 500), Bytes: wire.AppendMessage(nil, m),
	}
}

// step does the jobs that a Step asks for at once.
func step(e *Engine, now time.Time, ev ike.Event) []ike.Action {
	actions := slices.Clone(e.Step(now, ev))
	for _, a := range slices.Clone(actions) {
		if j, ok := a.(ike.Job); ok {
			actions = append(actions, e.Step(now, ike.JobDone{ID: j.ID, Result: ike.Generated{Public: make([]byte, 32)}})...)
		}
	}
	return actions
}

func cookieIn(t *testing.T, answer []byte) []byte {
	t.Helper()
	m, err := wire.ParseMessage(answer, wire.LimitBeforeAuth)
	if err != nil || len(m.Payloads) != 1 {
		t.Fatalf("the answer %x cannot be read: %v", answer, err)
	}
	n, ok := m.Payloads[0].(wire.Notify)
	if !ok || n.Type != wire.NotifyCookie {
		t.Fatalf("the answer holds %v, want a cookie", m)
	}
	return bytes.Clone(n.Data)
}

func TestFrontAsksForCookies(t *testing.T) {
	e := New(ike.Config{Offers: []proposal.IKE{frontOffer}}, rand.NewChaCha8([32]byte{}))
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	front, room := e.Front(), make([]byte, 0, 128)
	screen := func(d ike.Datagram) (Class, []byte) { return front.Screen(d, room) }
	want := func(what string, d ike.Datagram, want Class) []byte {
		t.Helper()
		class, answer := screen(d)
		if class != want || len(answer) > 0 && class != ClassDone {
			t.Errorf("%s: %s with %d octets, want %s", what, class, len(answer), want)
		}
		return answer
	}
	for i := range cookieAbove {
		want("in peace", firstMessage(i, nil), ClassStranger)
		step(e, now, firstMessage(i, nil))
	}
	stranger := firstMessage(1000, nil)
	cookie := cookieIn(t, want("under load", stranger, ClassDone))
	want("with the cookie", firstMessage(1000, cookie), ClassNewcomer)
	want("with another's cookie", firstMessage(1001, cookie), ClassDone)
	want("with the cookie from another address", ike.Datagram{Remote: firstMessage(1002, nil).Remote, Bytes: firstMessage(1000, cookie).Bytes}, ClassDone)
	want("with half a cookie", firstMessage(1000, cookie[:10]), ClassDone)

	// The engine takes what the front made, and the other way round.
	step(e, now, firstMessage(1000, cookie))
	if e.table.halfOpen != cookieAbove+1 {
		t.Errorf("%d half-open IKE SAs, want %d", e.table.halfOpen, cookieAbove+1)
	}
	actions := step(e, now, firstMessage(1003, nil))
	send, ok := actions[0].(ike.Send)
	if !ok {
		t.Fatalf("the engine answers with %T", actions[0])
	}
	want("with the engine's cookie", firstMessage(1003, cookieIn(t, send.Bytes)), ClassNewcomer)

	// The secret is renewed by time alone, and the one before holds on for a while.
	old := cookieIn(t, want("before the renewal", stranger, ClassDone))
	now = now.Add(cookieLife + time.Second)
	step(e, now, ike.Timeout{})  // the half-open ones end
	for i := range cookieAbove { // others come
		step(e, now, firstMessage(5000+i, nil))
	}
	if fresh := cookieIn(t, want("after the renewal", stranger, ClassDone)); bytes.Equal(fresh, old) {
		t.Error("the secret was not renewed")
	}
	want("with the cookie of the secret before", firstMessage(1000, old), ClassNewcomer)
	v := e.Snapshot()
	if v.Counters["cookies_sent"] < 5 {
		t.Errorf("%d cookies are counted", v.Counters["cookies_sent"])
	}
}

func TestFrontKnowsTheClasses(t *testing.T) {
	e := New(ike.Config{Offers: []proposal.IKE{frontOffer}}, rand.NewChaCha8([32]byte{}))
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	step(e, now, firstMessage(1, nil))
	own := e.table.order.all()[0].sa.SPI()
	later := func(spi wire.SPI) ike.Datagram {
		m := wire.Message{Header: wire.Header{SPIi: 2, SPIr: spi, Exchange: wire.IKEAuth, Flags: wire.FlagInitiator, MessageID: 1}}
		return ike.Datagram{Remote: firstMessage(1, nil).Remote, Bytes: wire.AppendMessage(nil, m)}
	}
	for _, c := range []struct {
		name string
		d    ike.Datagram
		want Class
	}{
		{"an SA that is being made", later(own), ClassNewcomer},
		{"an unknown SPI", later(own + 1), ClassStranger},
		{"garbage", ike.Datagram{Bytes: []byte("garbage")}, ClassDone},
		{"a cut message", ike.Datagram{Bytes: later(own).Bytes[:27]}, ClassDone},
		{"nothing", ike.Datagram{}, ClassDone},
	} {
		if got, answer := e.Front().Screen(c.d, nil); got != c.want || len(answer) > 0 {
			t.Errorf("%s: %s with an answer of %d octets, want %s", c.name, got, len(answer), c.want)
		}
	}
	step(e, now.Add(time.Hour), ike.Timeout{})
	if got, _ := e.Front().Screen(later(own), nil); got != ClassStranger {
		t.Errorf("after its end: %s, want %s", got, ClassStranger)
	}
}

func TestFrontDoesNotAllocate(t *testing.T) {
	e := New(ike.Config{Offers: []proposal.IKE{frontOffer}}, rand.NewChaCha8([32]byte{}))
	for i := range cookieAbove {
		step(e, time.Unix(0, 0), firstMessage(i, nil))
	}
	d, room := firstMessage(1000, nil), make([]byte, 0, 128)
	if n := testing.AllocsPerRun(100, func() { e.Front().Screen(d, room) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// A copy of a first message can be accepted although another was asked for a cookie. The one with the cookie is the last
// that the initiator sent, and its AUTH covers that: both are one SA.
func TestRequestWithAndWithoutCookieIsOne(t *testing.T) {
	e := New(ike.Config{Offers: []proposal.IKE{frontOffer}}, rand.NewChaCha8([32]byte{}))
	now := time.Unix(0, 0)
	step(e, now, firstMessage(1, nil))
	only := e.table.order.all()[0]
	for i := range cookieAbove {
		step(e, now, firstMessage(100+i, nil))
	}
	many := e.table.halfOpen
	_, answer := e.Front().Screen(firstMessage(1, nil), nil)
	latest := firstMessage(1, cookieIn(t, answer))
	for _, c := range []struct {
		name string
		d    ike.Datagram
		want []byte
	}{
		{"with a wrong cookie", firstMessage(1, []byte("wrong")), firstMessage(1, nil).Bytes},
		{"with the cookie", latest, latest.Bytes},
		{"without it, late", firstMessage(1, nil), latest.Bytes},
	} {
		actions := step(e, now, c.d)
		sent := slices.ContainsFunc(actions, func(a ike.Action) bool { _, ok := a.(ike.Send); return ok })
		if !sent || e.table.halfOpen != many || !bytes.Equal(only.sa.InitRequest(), c.want) {
			t.Errorf("%s: answered: %v, %d half-open IKE SAs, want %d, and the request of %d octets, want %d",
				c.name, sent, e.table.halfOpen, many, len(only.sa.InitRequest()), len(c.want))
		}
	}
}
