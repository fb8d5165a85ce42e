package ikev2

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// IntAuth of two exchanges (RFC 9242 3.3.2), against a value that was computed apart from this program: the messages as if
// they were neither encrypted nor fragmented, each under SK_p of its time, chained, and the Message ID of IKE_AUTH.
func TestIntAuth(t *testing.T) {
	s := &SA{hs: &handshake{}}
	s.suite.PRF = proposal.PRFHMACSHA256
	keys := func(i, r byte) suite.Keys {
		return suite.Keys{PI: sa.NewSecret(bytes.Repeat([]byte{i}, 32)), PR: sa.NewSecret(bytes.Repeat([]byte{r}, 32))}
	}
	message := func(id uint32, response bool, data byte) (wire.Header, plaintext) {
		h := wire.Header{SPIi: 0x0102030405060708, SPIr: 0x1112131415161718, Exchange: wire.IKEIntermediate, MessageID: id, Flags: wire.FlagInitiator}
		if response {
			h.Flags = wire.FlagResponse
		}
		payloads := []wire.Payload{wire.KE{Group: 36, Data: bytes.Repeat([]byte{data}, 5)}}
		return h, plaintext{wire.First(payloads), wire.AppendPayloads(nil, payloads)}
	}
	if got := s.hs.appendIntAuth([]byte("octets"), 1); string(got) != "octets" {
		t.Errorf("without IKE_INTERMEDIATE AUTH covers %x", got)
	}
	for round, k := range []suite.Keys{keys(1, 2), keys(3, 4)} {
		s.keys = k
		for _, response := range []bool{false, true} {
			h, p := message(uint32(round+1), response, byte(16*round+1))
			if err := s.cover(h, p); err != nil {
				t.Fatal(err)
			}
		}
	}
	const want = "b4e247e40f85744845a4b7ff341a512564ab7ff678412d69831089e81dba1571fcd7e7b8de5c0444aa0d5e0f9c717df39ec7b9f1df160f070b0865a21682bfc700000003"
	got := s.hs.appendIntAuth(nil, 3)
	if hex.EncodeToString(got) != want {
		t.Errorf("IntAuth is %x, want %s", got, want)
	}
	// A header that came from the wire of a fragment counts as that of the whole message.
	other := &SA{hs: &handshake{}, keys: keys(1, 2)}
	other.suite.PRF = s.suite.PRF
	h, p := message(1, false, 1)
	h.NextPayload, h.Length, h.Version = wire.TypeSKF, 1228, wire.Version2
	if err := other.cover(h, p); err != nil {
		t.Fatal(err)
	}
	again := &SA{hs: &handshake{}, keys: keys(1, 2)}
	again.suite.PRF = s.suite.PRF
	h, p = message(1, false, 1)
	if err := again.cover(h, p); err != nil || !bytes.Equal(other.hs.ofInitiator, again.hs.ofInitiator) {
		t.Errorf("a fragmented message gives %x, the whole one %x, %v", other.hs.ofInitiator, again.hs.ofInitiator, err)
	}
}

func TestSignedInit(t *testing.T) {
	hs := &handshake{request: []byte("request"), response: []byte("response")}
	covered := func(initiator bool) string { return string(bytes.Join(hs.signedInit(initiator), nil)) }
	if i, r := covered(true), covered(false); i != "request" || r != "response" {
		t.Errorf("AUTH covers %q and %q", i, r)
	}
	hs.transcript = true
	zeros := string(make([]byte, 8))
	if i, r := covered(true), covered(false); i != zeros+"responserequest" || r != zeros+"requestresponse" {
		t.Errorf("AUTH covers %q and %q", i, r)
	}
}
