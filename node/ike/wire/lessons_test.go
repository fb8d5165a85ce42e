package wire

import (
	"bytes"
	"testing"
)

// Vulnerabilities of other implementations of IKE, as far as a parser can have them.

// CVE-2025-9242 (WatchGuard): an identity that is longer than the buffer for it, before the certificate is looked at.
func TestCVE_2025_9242_IdentityHasALimit(t *testing.T) {
	body := func(n int) []byte { return append([]byte{byte(IDFQDN), 0, 0, 0}, bytes.Repeat([]byte{'a'}, n)...) }
	for n, good := range map[int]bool{1: true, limitID: true, limitID + 1: false, 30_000: false} {
		for _, kind := range []PayloadType{TypeIDi, TypeIDr} {
			_, err := parseID(kind, body(n), 0)
			if (err == nil) != good {
				t.Errorf("%s of %d octets: %v", kind, n, err)
			}
		}
	}
}

// CVE-2026-35328 and CVE-2026-35330 (strongSwan): elements of a list that say to be empty keep its parser busy for ever.
func TestCVE_2026_35328_ListsEnd(t *testing.T) {
	for _, data := range [][]byte{{0}, {0, 0}, {0, 0, 0, 0}, {1, 1, 1, 1}, {2, 2, 0, 0}} {
		if list, err := ParseAuthAnnouncements(data); err == nil {
			t.Errorf("announcements %x are read as %+v", data, list)
		}
	}
	if _, err := ParseHashAlgorithms(make([]byte, 3)); err == nil {
		t.Error("half a hash number is accepted")
	}
}

// CVE-2026-35329 (strongSwan): a container of PKCS #7 that the peer chose crashed its parser. Here only the encoding of
// X.509 certificates is looked into; everything else is kept as octets.
func TestCVE_2026_35329_ContainersAreNotOpened(t *testing.T) {
	p, err := ParsePayloads(TypeCert, []byte{0, 0, 0, 9, 1, 0x30, 0x82, 0xff, 0xff})
	if err != nil || len(p) != 1 {
		t.Fatalf("%+v, %v", p, err)
	}
	if c, ok := p[0].(Cert); !ok || c.Encoding == CertX509Signature || !bytes.Equal(c.Data, []byte{0x30, 0x82, 0xff, 0xff}) {
		t.Errorf("read as %+v", p[0])
	}
}
