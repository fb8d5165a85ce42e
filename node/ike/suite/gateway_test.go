package suite

import (
	"bytes"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/ike/sessiontest"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/node/vectortest"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// TestGatewaySessions checks key exchange, key schedule and message protection against sessions of Android's IKE tests
// with a gateway that is not strongSwan; the private values are known there.
func TestGatewaySessions(t *testing.T) {
	var file struct {
		Sessions []struct {
			sessiontest.SA
			Class    string             `json:"test_class"`
			ISPI     sessiontest.Octets `json:"ispi"`
			RSPI     sessiontest.Octets `json:"rspi"`
			Private  sessiontest.Octets `json:"initiator_dh_private"`
			PublicI  sessiontest.Octets `json:"initiator_ke"`
			PublicR  sessiontest.Octets `json:"responder_ke"`
			NonceI   sessiontest.Octets `json:"initiator_nonce"`
			NonceR   sessiontest.Octets `json:"responder_nonce"`
			Messages []struct {
				Name           string
				Hex, Plaintext sessiontest.Octets
			}
		}
	}
	vectortest.Decode(t, "aosp/cts_handshakes.json", &file)
	exchanges, schedules, opened := 0, 0, 0
	for _, s := range file.Sessions {
		o := s.Suite()
		if o.Group == proposal.GroupMODP2048 {
			p, public, err := KeyExchangeFrom(o.Group, secret(s.Private))
			if err != nil || !bytes.Equal(public, s.PublicI) {
				t.Errorf("%s: public value %x with error %v, want %x", s.Class, public, err, s.PublicI)
				continue
			}
			shared, err := Agree(p, s.PublicR)
			if err != nil || !bytes.Equal(shared.Expose(), s.Shared) {
				t.Errorf("%s: shared secret %x with error %v, want %x", s.Class, shared.Expose(), err, s.Shared)
			}
			exchanges++
		}
		if !supported(o) || len(s.Shared) == 0 {
			continue
		}
		s.SPIi, s.SPIr = s.ISPI, s.RSPI
		spii, spir := s.SPIs()
		keys, err := DeriveIKE(o, secret(s.Shared), s.NonceI, s.NonceR, spii, spir)
		if err != nil {
			t.Fatalf("%s: %v", s.Class, err)
		}
		for name, k := range map[string]struct {
			got  sa.Secret
			want sessiontest.Octets
		}{"SK_d": {keys.D, s.D}, "SK_ai": {keys.AI, s.AI}, "SK_ar": {keys.AR, s.AR}, "SK_ei": {keys.EI, s.EI},
			"SK_er": {keys.ER, s.ER}, "SK_pi": {keys.PI, s.PI}, "SK_pr": {keys.PR, s.PR}} {
			if !bytes.Equal(k.got.Expose(), k.want) {
				t.Errorf("%s: %s is %x, want %x", s.Class, name, k.got.Expose(), k.want)
			}
		}
		schedules++
		prot := mustProtect(t, o, keys.ER, keys.AR)
		for _, m := range s.Messages {
			msg, err := wire.ParseMessage(m.Hex, wire.LimitAfterAuth)
			if err != nil || len(m.Plaintext) == 0 || msg.Header.SPIi != spii {
				continue
			}
			plain, err := openOnly(prot, m.Hex)
			if err != nil || !bytes.Equal(plain, m.Plaintext) {
				t.Errorf("%s %s opens to %x with error %v, want %x", s.Class, m.Name, plain, err, m.Plaintext)
			}
			opened++
		}
	}
	if exchanges != 3 || schedules < 5 || opened < 15 {
		t.Errorf("checked %d key exchanges, %d key schedules and %d messages", exchanges, schedules, opened)
	}
}
