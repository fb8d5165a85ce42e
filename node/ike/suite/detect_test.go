package suite

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/ike/sessiontest"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// TestNATHashOfRecordings compares with what charon sent. Only the destination hashes can be compared: charon was
// configured to force encapsulation, which it does with a wrong source hash.
func TestNATHashOfRecordings(t *testing.T) {
	compared := 0
	for _, path := range recordings(t) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var s struct {
			Packets []struct {
				Dst string
				Hex sessiontest.Octets
			}
		}
		if err := json.Unmarshal(b, &s); err != nil {
			t.Fatal(err)
		}
		for _, p := range s.Packets {
			m, err := wire.ParseMessage(p.Hex, wire.LimitAfterAuth)
			if err != nil {
				t.Fatal(err)
			}
			n, ok := wire.FindNotify(m.Payloads, wire.NotifyNATDetectionDestinationIP)
			if !ok {
				continue
			}
			to, err := netip.ParseAddrPort(p.Dst)
			if err != nil {
				t.Fatal(err)
			}
			if got := NATHash(m.Header.SPIi, m.Header.SPIr, to); !bytes.Equal(got, n.Data) {
				t.Errorf("%s, %s to %s: hash is %x, want %x", path, m, to, got, n.Data)
			}
			compared++
		}
	}
	if compared < 20 {
		t.Errorf("compared %d hashes", compared)
	}
}

func TestNATHashCoversEverything(t *testing.T) {
	at := netip.MustParseAddrPort("192.0.2.1:500")
	base := NATHash(1, 2, at)
	if got := NATHash(1, 2, netip.MustParseAddrPort("[::ffff:192.0.2.1]:500")); !bytes.Equal(got, base) {
		t.Error("a mapped address has another hash than the IPv4 address")
	}
	for name, other := range map[string][]byte{
		"SPIi": NATHash(3, 2, at), "SPIr": NATHash(1, 3, at),
		"port":    NATHash(1, 2, netip.MustParseAddrPort("192.0.2.1:4500")),
		"address": NATHash(1, 2, netip.MustParseAddrPort("192.0.2.2:500")),
		"family":  NATHash(1, 2, netip.MustParseAddrPort("[2001:db8::1]:500")),
	} {
		if bytes.Equal(base, other) {
			t.Errorf("the hash does not depend on the %s", name)
		}
	}
}

func TestCookieCoversEverything(t *testing.T) {
	secret, from, ni := sa.NewSecret([]byte("secret")), netip.MustParseAddrPort("192.0.2.1:500"), []byte("0123456789abcdef")
	base := Cookie(secret, 1, 2, ni, from)
	if len(base) != CookieLen || base[0] != 1 || CookieLen > 64 { // RFC 7296 2.6: 1 to 64 sessiontest.Octets
		t.Errorf("cookie %x has %d octets", base, len(base))
	}
	if !bytes.Equal(base, Cookie(secret, 1, 2, bytes.Clone(ni), from)) {
		t.Error("the cookie of the same request differs")
	}
	for name, other := range map[string][]byte{
		"secret":  Cookie(sa.NewSecret([]byte("other")), 1, 2, ni, from),
		"version": Cookie(secret, 2, 2, ni, from),
		"SPIi":    Cookie(secret, 1, 3, ni, from),
		"nonce":   Cookie(secret, 1, 2, ni[1:], from),
		"address": Cookie(secret, 1, 2, ni, netip.MustParseAddrPort("192.0.2.2:500")),
		"port":    Cookie(secret, 1, 2, ni, netip.MustParseAddrPort("192.0.2.1:501")),
	} {
		if bytes.Equal(base[1:], other[1:]) {
			t.Errorf("the cookie does not depend on the %s", name)
		}
	}
}

func TestPSKRefuses(t *testing.T) {
	psk := sa.NewSecret([]byte("a pre-shared key"))
	auth, err := PSKAuth(proposal.PRFHMACSHA256, psk, []byte("octets"))
	if err != nil || len(auth) != 32 {
		t.Fatalf("AUTH has %d octets, error %v", len(auth), err)
	}
	for _, bad := range [][]byte{nil, auth[1:], auth[:31], append([]byte{0}, auth...), make([]byte, 32)} {
		if err := VerifyPSK(proposal.PRFHMACSHA256, psk, []byte("octets"), bad); !errors.Is(err, ErrSignature) {
			t.Errorf("%d octets of AUTH give %v", len(bad), err)
		}
	}
	if _, err := PSKAuth(proposal.PRFHMACSHA256, sa.Secret{}, nil); !errors.Is(err, ErrEmptyKey) {
		t.Errorf("an empty key gives %v", err)
	}
	if err := VerifyPSK(proposal.PRFHMACSHA256, sa.Secret{}, nil, nil); !errors.Is(err, ErrEmptyKey) {
		t.Errorf("an empty key verifies with %v", err)
	}
	if _, err := PSKAuth(1, psk, nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("an unknown PRF gives %v", err)
	}
	if _, err := OctetsToSign(1, nil, psk, wire.ID{}, nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("an unknown PRF gives %v", err)
	}
}

// TestReservedOctetsOfIDAreSigned: the ID payload counts as received, reserved octets included (RFC 7296 2.15).
func TestReservedOctetsOfIDAreSigned(t *testing.T) {
	skp := sa.NewSecret(make([]byte, 32))
	id := wire.ID{Type: wire.IDFQDN, Data: []byte("a.test")}
	a, err := OctetsToSign(proposal.PRFHMACSHA256, []byte("nonce"), skp, id, []byte("message"))
	if err != nil {
		t.Fatal(err)
	}
	id.Reserved[1] = 7
	b, err := OctetsToSign(proposal.PRFHMACSHA256, []byte("nonce"), skp, id, []byte("message"))
	if err != nil || bytes.Equal(a, b) || !bytes.HasPrefix(b, []byte("messagenonce")) {
		t.Errorf("octets %x and %x, error %v", a, b, err)
	}
}
