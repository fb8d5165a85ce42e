package wire

import (
	"bytes"
	"testing"
)

func TestAppendCookieMessageIsAMessage(t *testing.T) {
	request := Header{SPIi: 7, Exchange: IKESAInit, Flags: FlagInitiator}
	data := bytes.Repeat([]byte{0xc0}, 33)
	got := AppendCookieMessage([]byte("x"), request, len(data), func(b []byte) []byte { return append(b, data...) })
	want := AppendMessage(nil, Message{
		Header:   Header{SPIi: 7, Exchange: IKESAInit, Flags: FlagResponse},
		Payloads: []Payload{Notify{Type: NotifyCookie, Data: data}},
	})
	if !bytes.Equal(got[1:], want) || got[0] != 'x' {
		t.Errorf("got %x, want %x", got[1:], want)
	}
	if len(want) != CookieMessageLen(len(data)) {
		t.Errorf("the message has %d octets, CookieMessageLen says %d", len(want), CookieMessageLen(len(data)))
	}
}
