package wire

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func equalAnnouncements(a, b []AuthAnnouncement) bool {
	return slices.EqualFunc(a, b, func(x, y AuthAnnouncement) bool {
		return x.Method == y.Method && x.Linked == y.Linked && x.Link == y.Link && bytes.Equal(x.Algorithm, y.Algorithm)
	})
}

func TestAuthAnnouncements(t *testing.T) {
	// Of RFC 9593 3.2: a preshared key, ECDSA with P-256 for every CA, Ed25519 for the second CA.
	data := []byte{2, 2, 3, 9, 0, 10, 14, 2, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70}
	want := []AuthAnnouncement{
		{Method: AuthSharedKey}, {Method: AuthECDSA256, Linked: true},
		{Method: AuthDigitalSignature, Linked: true, Link: 2, Algorithm: data[8:]},
	}
	got, err := ParseAuthAnnouncements(data)
	if err != nil || !equalAnnouncements(got, want) || !bytes.Equal(AppendAuthAnnouncements(nil, got), data) {
		t.Errorf("read %+v, %v, want %+v", got, err, want)
	}
	for name, data := range map[string][]byte{
		"length 0": {0, 2}, "length 1": {1}, "cut": {3, 9}, "beyond the end": {2, 2, 5, 14, 0, 1},
		"too many": bytes.Repeat([]byte{2, 2}, limitAnnouncements+1),
	} {
		if got, err := ParseAuthAnnouncements(data); err == nil {
			t.Errorf("%s: read as %+v", name, got)
		}
	}
}

func TestAuthAnnouncementsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) AuthAnnouncement {
			a := AuthAnnouncement{Method: AuthMethod(rapid.Byte().Draw(t, "method")), Linked: rapid.Bool().Draw(t, "linked")}
			if a.Linked {
				a.Link, a.Algorithm = rapid.Byte().Draw(t, "link"), rapid.SliceOfN(rapid.Byte(), 0, 252).Draw(t, "algorithm")
			}
			return a
		}), 0, limitAnnouncements).Draw(t, "list")
		got, err := ParseAuthAnnouncements(AppendAuthAnnouncements(nil, want))
		if err != nil || !equalAnnouncements(got, want) {
			t.Fatalf("read %+v, %v, want %+v", got, err, want)
		}
	})
}

func FuzzAuthAnnouncements(f *testing.F) {
	f.Add([]byte{2, 2, 3, 9, 0, 10, 14, 2, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70})
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := ParseAuthAnnouncements(data)
		if err == nil && !bytes.Equal(AppendAuthAnnouncements(nil, list), data) {
			t.Fatalf("%x is read as %+v", data, list)
		}
	})
}
