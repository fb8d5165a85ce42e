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
