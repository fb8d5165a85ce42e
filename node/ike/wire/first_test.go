package wire

import (
	"bytes"
	"testing"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

func firstMessage(cookie []byte) Message {
	m := Message{
		Header: Header{SPIi: 7, Exchange: IKESAInit, Flags: FlagInitiator},
		Payloads: []Payload{
			SAFromIKE([]proposal.IKE{{Encryption: proposal.EncrAESGCM16, KeyBits: 256, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupX25519}}, 0),
			KE{Group: proposal.GroupX25519, Data: make([]byte, 32)},
			Nonce{Data: bytes.Repeat([]byte{5}, 32)},
			Notify{Type: NotifyFragmentationSupported},
		},
	}
	if cookie != nil {
		m.Payloads = append([]Payload{Notify{Type: NotifyCookie, Data: cookie}}, m.Payloads...)
	}
	return m
}

func TestPeekInit(t *testing.T) {
	for _, cookie := range [][]byte{nil, {1, 2, 3}} {
		b := AppendMessage(nil, firstMessage(cookie))
		p, ok := PeekInit(b)
		if !ok || !bytes.Equal(p.Cookie, cookie) || !bytes.Equal(p.Nonce, bytes.Repeat([]byte{5}, 32)) {
			t.Errorf("cookie %x: have %+v, %v", cookie, p, ok)
		}
		for n := range b {
			if _, ok := PeekInit(b[:n]); ok {
				t.Fatalf("a prefix of %d of %d octets is accepted", n, len(b))
			}
		}
	}
	late := firstMessage(nil)
	late.Payloads = append(late.Payloads, Notify{Type: NotifyCookie, Data: []byte{1}})
	if p, ok := PeekInit(AppendMessage(nil, late)); !ok || p.Cookie != nil {
		t.Errorf("a cookie that is not the first payload counts: %+v, %v", p, ok)
	}
	without := firstMessage(nil)
	without.Payloads = without.Payloads[:2]
	if _, ok := PeekInit(AppendMessage(nil, without)); ok {
		t.Error("a message without nonce is accepted")
	}
}

// What PeekInit finds is what ParseMessage finds, in every message that ParseMessage accepts.
func FuzzPeekInit(f *testing.F) {
	f.Add(AppendMessage(nil, firstMessage(nil)))
	f.Add(AppendMessage(nil, firstMessage([]byte("cookie"))))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := PeekInit(b)
		m, err := ParseMessage(b, LimitBeforeAuth)
		if err != nil {
			return
		}
		nonce, has := Find[Nonce](m.Payloads, nil)
		if last := len(m.Payloads) - 1; last >= 0 {
			switch m.Payloads[last].(type) {
			case Encrypted, Fragment:
				return // no first message
			}
		}
		if ok != has || ok && !bytes.Equal(p.Nonce, nonce.Data) {
			t.Fatalf("peek finds %v %x, parse %v %x", ok, p.Nonce, has, nonce.Data)
		}
		var cookie []byte
		if len(m.Payloads) > 0 {
			if n, is := m.Payloads[0].(Notify); is && n.Type == NotifyCookie && len(n.Data) > 0 {
				cookie = n.Data
			}
		}
		if ok && !bytes.Equal(cookie, p.Cookie) {
			t.Fatalf("peek finds cookie %x, parse %x", p.Cookie, cookie)
		}
	})
}

func TestSameInit(t *testing.T) {
	request := func(spi SPI, nonce byte, cookies ...[]byte) []byte {
		m := Message{Header: Header{SPIi: spi, Exchange: IKESAInit, Flags: FlagInitiator}}
		for _, c := range cookies {
			m.Payloads = append(m.Payloads, Notify{Type: NotifyCookie, Data: c})
		}
		m.Payloads = append(m.Payloads, Nonce{Data: bytes.Repeat([]byte{nonce}, 32)}, Notify{Type: NotifyFragmentationSupported})
		return AppendMessage(nil, m)
	}
	plain := request(1, 1)
	for name, c := range map[string]struct {
		other []byte
		want  bool
	}{
		"itself":             {plain, true},
		"with a cookie":      {request(1, 1, []byte{1, 2, 3}), true},
		"with two cookies":   {request(1, 1, []byte{1}, []byte{2}), false},
		"another nonce":      {request(1, 2), false},
		"another SPI":        {request(2, 1), false},
		"another and cookie": {request(1, 2, []byte{1}), false},
		"nothing":            {nil, false},
	} {
		if got := SameInit(plain, c.other); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		if got := SameInit(c.other, plain); got != c.want {
			t.Errorf("%s, the other way round: %v, want %v", name, got, c.want)
		}
	}
	with := request(1, 1, []byte{1, 2, 3})
	for n := range with {
		if SameInit(plain, with[:n]) {
			t.Errorf("the same as the first %d octets", n)
		}
	}
}
