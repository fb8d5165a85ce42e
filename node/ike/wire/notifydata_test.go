package wire

import (
	"bytes"
	"testing"
)

// FuzzNotifyData feeds the data of notifies that have a form of their own: whatever is read is written the same.
func FuzzNotifyData(f *testing.F) {
	f.Add([]byte{0, 2, 0, 3, 0, 4, 0, 5})
	f.Add(AppendHashAlgorithms(nil, []HashAlgorithm{HashSHA256, HashIdentity}))
	f.Add(PPKID{Type: PPKIDFixed, Data: []byte("fleet-2026")}.Append(nil))
	f.Add([]byte{PPKIDOpaque})
	f.Fuzz(func(t *testing.T, data []byte) {
		if list, err := ParseHashAlgorithms(data); err == nil && !bytes.Equal(AppendHashAlgorithms(nil, list), data) {
			t.Errorf("hash algorithms %x are read as %v", data, list)
		}
		id, err := ParsePPKID(data)
		if err == nil && (!bytes.Equal(id.Append(nil), data) || len(id.Data) == 0) {
			t.Errorf("PPK_IDENTITY %x is read as %+v", data, id)
		}
	})
}

// FuzzSameInit compares any two messages as a responder compares a repeated IKE_SA_INIT with the first one. A cookie makes
// no difference, and nothing else is overlooked.
func FuzzSameInit(f *testing.F) {
	request := Message{
		Header:   Header{SPIi: 7, Exchange: IKESAInit, Flags: FlagInitiator},
		Payloads: []Payload{Nonce{Data: make([]byte, 32)}, VendorID{Data: []byte("somebody")}},
	}
	plain := AppendMessage(nil, request)
	request.Payloads = append([]Payload{Notify{Type: NotifyCookie, Data: []byte("a cookie")}}, request.Payloads...)
	baked := AppendMessage(nil, request)
	f.Add(plain, plain)
	f.Add(plain, baked)
	f.Add(baked, plain[:40])
	f.Fuzz(func(t *testing.T, a, b []byte) {
		same := SameInit(a, b)
		if same != SameInit(b, a) {
			t.Fatalf("%x and %x: it depends on the order", a, b)
		}
		x, errA := ParseMessage(a, LimitBeforeAuth)
		y, errB := ParseMessage(b, LimitBeforeAuth)
		if errA != nil || errB != nil || !same {
			return
		}
		without := func(m Message) []byte {
			if n, ok := First(m.Payloads), len(m.Payloads) > 0; ok && n == TypeNotify && m.Payloads[0].(Notify).Type == NotifyCookie {
				m.Payloads = m.Payloads[1:]
			}
			return AppendPayloads(nil, m.Payloads)
		}
		if !bytes.Equal(without(x), without(y)) {
			t.Fatalf("%x and %x count as the same", a, b)
		}
	})
}
