package proof

import (
	"bytes"
	"crypto/rand"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func party(t testing.TB) *Party {
	p, err := New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPayloadsShowTheirSender(t *testing.T) {
	p, other := party(t), party(t)
	rapid.Check(t, func(t *rapid.T) {
		size, number := rapid.IntRange(Header, 4000).Draw(t, "size"), rapid.Uint64().Draw(t, "number")
		b := p.Append(nil, size, number)
		if got, ours := p.Number(b); !ours || got != number || len(b) != size {
			t.Fatalf("payload %d of %d octets is read as %d of %d, ours: %v", number, size, got, len(b), ours)
		}
		if _, ours := other.Number(b); ours {
			t.Fatal("somebody else's payload passes")
		}
		i := rapid.IntRange(0, size-1).Draw(t, "octet")
		b[i] ^= 1
		if _, ours := p.Number(b); ours {
			t.Fatalf("octet %d was altered, and it passes", i)
		}
		if _, ours := p.Number(b[:rapid.IntRange(0, Header-1).Draw(t, "length")]); ours {
			t.Fatal("a part of the header passes")
		}
	})
}

func TestEveryFragmentHoldsTheMarker(t *testing.T) {
	p := party(t)
	b := p.Append(nil, 3000, 7)
	if len(p.Marker()) != markerSize || strings.TrimSpace(p.Marker()) == "" {
		t.Fatalf("the marker is %q", p.Marker())
	}
	for i := 0; i+72 <= len(b); i++ {
		if !bytes.Contains(b[i:i+72], []byte(p.Marker())) {
			t.Fatalf("octets %d to %d are without the marker", i, i+72)
		}
	}
}
