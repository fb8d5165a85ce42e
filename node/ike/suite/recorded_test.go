package suite

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/ike/sessiontest"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/node/vectortest"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

func loadSession(t testing.TB, path string) sessiontest.Session {
	t.Helper()
	s, err := sessiontest.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func recordings(t testing.TB) []string {
	t.Helper()
	paths, err := filepath.Glob("testdata/recorded/*.json")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no recorded sessions: %v", err)
	}
	return paths
}

func secret(b []byte) sa.Secret { return sa.NewSecret(bytes.Clone(b)) }

// TestRecordedSessions replays conversations of strongSwan: every key is derived anew, every protected message opened
// and sealed again, every AUTH verified.
func TestRecordedSessions(t *testing.T) {
	for _, path := range recordings(t) {
		s := loadSession(t, path)
		t.Run(s.Name, func(t *testing.T) { replay(t, s) })
	}
}

// TestAllRecordedSessions is TestRecordedSessions over the whole collection, as far as the algorithms are implemented.
func TestAllRecordedSessions(t *testing.T) {
	paths, _ := filepath.Glob(filepath.Join(vectortest.Dir(t), "recorded", "*.json"))
	replayed := 0
	for _, path := range paths {
		// PPK (RFC 8784) changes SK_d and SK_p after the schedule that is tested here.
		if base := filepath.Base(path); strings.HasPrefix(base, "ikev1-") || strings.HasPrefix(base, "ppk-") {
			continue
		}
		s := loadSession(t, path)
		if !slices.ContainsFunc(s.IKE, func(k sessiontest.SA) bool { return supported(k.Suite()) }) {
			continue
		}
		replayed++
		t.Run(s.Name, func(t *testing.T) { replay(t, s) })
	}
	if replayed < 35 {
		t.Errorf("replayed %d sessions, want at least 35", replayed)
	}
}

func supported(o proposal.IKE) bool {
	_, err := prfHash(o.PRF)
	_, _, err2 := keyLens(o.Encryption, o.KeyBits, o.Integrity)
	return err == nil && err2 == nil
}

func replay(t *testing.T, s sessiontest.Session) {
	type pair struct{ i, r wire.SPI }
	derived := map[pair]Keys{}
	suites := map[pair]proposal.IKE{}
	for _, k := range s.IKE {
		o := k.Suite()
		spii, spir := k.SPIs()
		var keys Keys
		var err error
		if len(k.RekeyedFrom) == 0 {
			keys, err = DeriveIKE(o, secret(k.Shared), k.NonceI, k.NonceR, spii, spir)
		} else {
			old := pair{wire.SPI(binary.BigEndian.Uint64(k.RekeyedFrom[0])), wire.SPI(binary.BigEndian.Uint64(k.RekeyedFrom[1]))}
			keys, err = RekeyIKE(o, suites[old].PRF, derived[old].D, secret(k.Shared), k.NonceI, k.NonceR, spii, spir)
		}
		if err != nil {
			t.Fatalf("derive the keys of %s: %v", spii, err)
		}
		derived[pair{spii, spir}], suites[pair{spii, spir}] = keys, o
		for _, c := range []struct {
			name string
			got  sa.Secret
			want sessiontest.Octets
		}{{"SK_d", keys.D, k.D}, {"SK_ai", keys.AI, k.AI}, {"SK_ar", keys.AR, k.AR}, {"SK_ei", keys.EI, k.EI},
			{"SK_er", keys.ER, k.ER}, {"SK_pi", keys.PI, k.PI}, {"SK_pr", keys.PR, k.PR}} {
			if !bytes.Equal(c.got.Expose(), c.want) {
				t.Errorf("%s of %s is %x, want %x", c.name, spii, c.got.Expose(), c.want)
			}
		}
	}
	for _, c := range s.Child {
		id := pair{wire.SPI(binary.BigEndian.Uint64(c.IKESPIi)), wire.SPI(binary.BigEndian.Uint64(c.IKESPIr))}
		i, r, err := DeriveChild(suites[id].PRF, derived[id].D, secret(c.Shared), c.NonceI, c.NonceR, c.Suite())
		if err != nil {
			t.Fatalf("derive the keys of a Child SA: %v", err)
		}
		for _, k := range []struct {
			name string
			got  sa.Secret
			want sessiontest.Octets
		}{{"encryption i", i.Encryption, c.EncrI}, {"integrity i", i.Integrity, c.IntegI},
			{"encryption r", r.Encryption, c.EncrR}, {"integrity r", r.Integrity, c.IntegR}} {
			if !bytes.Equal(k.got.Expose(), k.want) {
				t.Errorf("Child SA %s is %x, want %x", k.name, k.got.Expose(), k.want)
			}
		}
	}

	a := authReplay{psk: pskOf(s.ConfigA)}
	var reassembly []byte
	for n, p := range s.Packets {
		if p.Kind != "ike" {
			continue
		}
		m, err := wire.ParseMessage(p.Hex, wire.LimitAfterAuth)
		if err != nil {
			t.Fatalf("packet %d: %v", n, err)
		}
		a.seen(m, p)
		id := pair{m.Header.SPIi, m.Header.SPIr}
		keys, o := derived[id], suites[id]
		encr, integ := keys.ER, keys.AR
		if m.Header.FromInitiator() {
			encr, integ = keys.EI, keys.AI
		}
		if len(m.Payloads) == 0 {
			t.Fatalf("packet %d has no payloads", n)
		}
		var plain, inner []byte
		switch sk := m.Payloads[len(m.Payloads)-1].(type) {
		case wire.Encrypted:
			prot := mustProtect(t, o, encr, integ)
			if plain, err = prot.Open(p.Hex, sk); err != nil {
				t.Fatalf("packet %d: %v", n, err)
			}
			inner = plain
			sealAgain(t, prot, m.Header, p, plain, sk.Body)
			refuseChanged(t, prot, p.Hex)
		case wire.Fragment:
			prot := mustProtect(t, o, encr, integ)
			if plain, err = prot.OpenFragment(p.Hex, sk); err != nil {
				t.Fatalf("packet %d: %v", n, err)
			}
			sealAgain(t, prot, m.Header, p, plain, sk.Body)
			if sk.Number == 1 {
				reassembly = nil
			}
			if reassembly = append(reassembly, plain...); sk.Number == sk.Total {
				inner = reassembly
				if !bytes.Equal(inner, p.Reassembled) {
					t.Errorf("packet %d: reassembled to %x, want %x", n, inner, p.Reassembled)
				}
				p.FirstPayload = wire.TypeIDi
				if m.Header.Response() {
					p.FirstPayload = wire.TypeIDr
				}
			}
		default:
			continue
		}
		if !bytes.Equal(plain, p.Plaintext) {
			t.Errorf("packet %d: opened %x, want %x", n, plain, p.Plaintext)
		}
		if inner == nil {
			continue
		}
		payloads, err := wire.ParsePayloads(p.FirstPayload, inner)
		if err != nil {
			t.Fatalf("packet %d: %v", n, err)
		}
		if p.AuthVerified {
			a.verify(t, n, p, payloads, keys, o)
		}
	}
}

func mustProtect(t testing.TB, o proposal.IKE, encr, integ sa.Secret) *Protection {
	t.Helper()
	p, err := NewProtection(o, encr, integ)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// sealAgain checks that an AEAD, given the counter that charon used, writes the same datagram, and that CBC writes one
// that opens again (its padding is free).
func sealAgain(t *testing.T, p *Protection, h wire.Header, rec sessiontest.Packet, plain, body []byte) {
	t.Helper()
	var iv []byte
	if p.aead != nil {
		p.sealed = binary.BigEndian.Uint64(body)
		if p.sealed >= messagesPerKey { // charon masks its counter with a random value
			saved := p.salt
			defer func() { p.salt = saved }()
			direct := p.aead.Seal(nil, p.nonce(body[:aeadIVLen]), append(bytes.Clone(plain), 0), rec.Hex[:len(rec.Hex)-len(body)])
			if !bytes.Equal(direct, body[aeadIVLen:]) {
				t.Errorf("message %d: AEAD with the recorded IV differs", h.MessageID)
			}
			p.sealed = 0
		}
	} else {
		iv = body[:16]
	}
	var out []byte
	var err error
	if len(rec.Fragment) == 2 {
		out, err = p.SealFragment(nil, h, rec.FirstPayload, rec.Fragment[0], rec.Fragment[1], plain, iv)
	} else {
		out, err = p.Seal(nil, h, rec.FirstPayload, plain, iv)
		if want := p.MessageLen(len(plain)); err == nil && len(out) != want {
			t.Errorf("message %d: sealed to %d octets, MessageLen said %d", h.MessageID, len(out), want)
		}
	}
	if err != nil {
		t.Fatalf("seal message %d: %v", h.MessageID, err)
	}
	if p.aead != nil && len(out) != len(rec.Hex) {
		t.Errorf("message %d: sealed to %d octets, charon to %d", h.MessageID, len(out), len(rec.Hex))
	}
	m, err := wire.ParseMessage(out, wire.LimitAfterAuth)
	if err != nil {
		t.Fatalf("parse sealed message %d: %v", h.MessageID, err)
	}
	var again []byte
	switch sk := m.Payloads[len(m.Payloads)-1].(type) {
	case wire.Encrypted:
		again, err = p.Open(out, sk)
	case wire.Fragment:
		again, err = p.OpenFragment(out, sk)
	}
	if err != nil || !bytes.Equal(again, plain) {
		t.Errorf("message %d: sealed message opens to %x with error %v, want %x", h.MessageID, again, err, plain)
	}
}

// refuseChanged flips one bit in each octet of a recorded message: nothing of it may open.
func refuseChanged(t *testing.T, p *Protection, datagram []byte) {
	t.Helper()
	for i := range datagram {
		b := bytes.Clone(datagram)
		b[i] ^= 1 << (i % 8)
		m, err := wire.ParseMessage(b, wire.LimitAfterAuth)
		if err != nil || len(m.Payloads) == 0 {
			continue
		}
		if sk, ok := m.Payloads[len(m.Payloads)-1].(wire.Encrypted); ok {
			if _, err := p.Open(b, sk); !errors.Is(err, ErrIntegrity) {
				t.Fatalf("message with octet %d changed opened with error %v", i, err)
			}
		}
	}
}

// authReplay collects what AUTH covers while a conversation goes by.
type authReplay struct {
	psk   string
	init  [2][]byte // last IKE_SA_INIT of initiator and responder
	nonce [2][]byte
	certs [2]crypto.PublicKey
}

func (a *authReplay) seen(m wire.Message, p sessiontest.Packet) {
	if m.Header.Exchange != wire.IKESAInit {
		return
	}
	side := 0
	if m.Header.Response() {
		side = 1
	}
	if n, ok := wire.Find[wire.Nonce](m.Payloads, nil); ok {
		a.init[side], a.nonce[side] = p.Hex, n.Data
	}
}

func pskOf(config string) string {
	m := regexp.MustCompile(`ike-1 \{ secret = "([^"]+)"`).FindStringSubmatch(config)
	if m == nil {
		return ""
	}
	return m[1]
}

func (a *authReplay) verify(t *testing.T, n int, p sessiontest.Packet, payloads []wire.Payload, keys Keys, o proposal.IKE) {
	t.Helper()
	side, skp := 0, keys.PI
	if !p.FromInitiator {
		side, skp = 1, keys.PR
	}
	if c, ok := wire.Find[wire.Cert](payloads, nil); ok {
		cert, err := x509.ParseCertificate(c.Data)
		if err != nil {
			t.Fatalf("packet %d: certificate: %v", n, err)
		}
		a.certs[side] = cert.PublicKey
	}
	auth, ok := wire.Find[wire.Auth](payloads, nil)
	if !ok {
		t.Fatalf("packet %d: no AUTH payload", n)
	}
	toSign := []byte(p.SignedOctets)
	if id, ok := wire.Find(payloads, func(i wire.ID) bool { return i.Responder == (side == 1) }); ok && len(a.init[side]) > 0 {
		got, err := OctetsToSign(o.PRF, a.nonce[1-side], skp, id, a.init[side])
		if err != nil || !bytes.Equal(got, toSign) {
			t.Errorf("packet %d: octets to sign are %x with error %v, want %x", n, got, err, toSign)
		}
	}
	switch auth.Method {
	case wire.AuthSharedKey:
		if p.AuthSecret != "PSK" || a.psk == "" {
			return // EAP's MSK is not in the recording
		}
		if err := VerifyPSK(o.PRF, secret([]byte(a.psk)), toSign, auth.Data); err != nil {
			t.Errorf("packet %d: PSK: %v", n, err)
		}
		if err := VerifyPSK(o.PRF, secret([]byte(a.psk+"x")), toSign, auth.Data); !errors.Is(err, ErrSignature) {
			t.Errorf("packet %d: another PSK gives %v", n, err)
		}
	case wire.AuthDigitalSignature:
		if err := Verify(a.certs[side], auth.Method, auth.Data, toSign, SupportedHashes()); err != nil {
			t.Errorf("packet %d: signature: %v", n, err)
		}
		if err := Verify(a.certs[side], auth.Method, auth.Data, toSign, nil); !errors.Is(err, ErrAlgorithm) {
			t.Errorf("packet %d: a hash that was not announced gives %v", n, err)
		}
		if err := Verify(a.certs[side], auth.Method, auth.Data, append([]byte{1}, toSign...), SupportedHashes()); !errors.Is(err, ErrSignature) {
			t.Errorf("packet %d: other octets give %v", n, err)
		}
	case wire.AuthRSA:
		// charon signs method 1 with SHA-1.
		if err := Verify(a.certs[side], auth.Method, auth.Data, toSign, SupportedHashes()); !errors.Is(err, ErrSignature) {
			t.Errorf("packet %d: RSA with SHA-1 gives %v", n, err)
		}
	}
}
