package directory

import (
	"errors"
	"testing"
)

func TestParseUUID(t *testing.T) {
	const text = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
	u, err := ParseUUID("6BA7B810-9dad-11d1-80b4-00c04fd430C8")
	if err != nil || u.String() != text {
		t.Errorf("ParseUUID = %s, %v; want %s", u, err, text)
	}
	for _, bad := range []string{
		"", text[1:], text + "0", "{" + text[:34] + "}", "6ba7b8109-dad-11d1-80b4-00c04fd430c8",
		"6ba7b810-9dad-11d1-80b4-00c04fd430cg", "00000000-0000-0000-0000-000000000000", "urn:uuid:6ba7b810-9dad-11d1-80b4-000",
	} {
		if u, err := ParseUUID(bad); !errors.Is(err, ErrSyntax) || !u.IsZero() {
			t.Errorf("ParseUUID(%q) = %s, %v; want a syntax error", bad, u, err)
		}
	}
}

// TestUUIDFromObjectGUID: the first three fields are little-endian (MS-DTYP 2.3.4.2).
func TestUUIDFromObjectGUID(t *testing.T) {
	b := []byte{0x27, 0x18, 0x0b, 0x3f, 0x5d, 0x9e, 0xd3, 0x4c, 0x8a, 0x71, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06}
	u, err := UUIDFromObjectGUID(b)
	if want := "3f0b1827-9e5d-4cd3-8a71-010203040506"; err != nil || u.String() != want {
		t.Errorf("UUIDFromObjectGUID = %s, %v; want %s", u, err, want)
	}
	for _, bad := range [][]byte{nil, b[:15], append(b[:16:16], 0), make([]byte, 16)} {
		if _, err := UUIDFromObjectGUID(bad); !errors.Is(err, ErrSyntax) {
			t.Errorf("UUIDFromObjectGUID(%x): %v, want a syntax error", bad, err)
		}
	}
}

func TestDerivedUUIDIgnoresCaseAndSeparatesKinds(t *testing.T) {
	a := deriveUUID("machine", "bank.example", "WS1")
	if b := deriveUUID("machine", "bank.example", "ws1"); a != b {
		t.Errorf("spelling changes the identity: %s and %s", a, b)
	}
	for _, other := range []UUID{deriveUUID("group", "bank.example", "ws1"), deriveUUID("machine", "other.example", "ws1"), deriveUUID("machine", "bank.example", "ws2")} {
		if a == other {
			t.Errorf("two entries have the derived identity %s", a)
		}
	}
}
