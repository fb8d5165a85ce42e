package guard

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/directory"
)

// TestRestartChangesNoDecision has two guards see the same story, of which one is replaced before every step by another one
// that knows only its record.
func TestRestartChangesNoDecision(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := Limits{Share: 0.3, Floor: 1, Window: time.Minute}
		below := ContainerLimits{Container: directory.MustParseDN("ou=b,dc=bank,dc=example"), Share: 0.5}
		lasting, err := New(limits, nil, below)
		if err != nil {
			t.Fatal(err)
		}
		other, now := lasting, start
		restart := func() *Guard {
			r, err := ParseRecord(other.Record().Append(nil))
			if err != nil {
				t.Fatal(err)
			}
			g, err := New(limits, other.Applied(), below)
			if err != nil {
				t.Fatal(err)
			}
			if err := g.Restore(r); err != nil {
				t.Fatal(err)
			}
			return g
		}
		var next *directory.Snapshot
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			now = now.Add(rapid.SampledFrom([]time.Duration{0, 20 * time.Second, 2 * time.Minute}).Draw(t, "pause"))
			before := other
			if other = restart(); next != nil {
				// The directory is read after a restart before anybody can decide.
				if _, waited := before.Held(); waited {
					other.Offer(now, next)
					lasting.Offer(now, next)
				}
			}
			if held, waits := lasting.Held(); waits {
				switch rapid.IntRange(0, 4).Draw(t, "act") {
				case 0:
					if a, b := lasting.Discard(now, held.ID), other.Discard(now, held.ID); a != nil || b != nil {
						t.Fatal(a, b)
					}
				case 1:
					_, a := lasting.Release(held.ID)
					if _, b := other.Release(held.ID); a != nil || b != nil {
						t.Fatal(a, b)
					}
				}
			}
			if rapid.IntRange(0, 4).Draw(t, "announce") == 0 {
				r := Raise{rapid.IntRange(1, 6).Draw(t, "raise"), now.Add(time.Hour)}
				if a, b := lasting.Raise(now, r), other.Raise(now, r); a != nil || b != nil {
					t.Fatal(a, b)
				}
			}
			f := fleet{}
			for i := range 6 {
				f[fmt.Sprintf("m%03d", i)] = rapid.SampledFrom([]string{"OU=A", "OU=A", "OU=A", "OU=B", "OU=A!", ""}).Draw(t, "fate")
			}
			if next == nil || rapid.Bool().Draw(t, "another") {
				next = f.snapshot(t)
			}
			if a, b := fmt.Sprintf("%#v", verdict(lasting.Offer(now, next))), fmt.Sprintf("%#v", verdict(other.Offer(now, next))); a != b {
				t.Fatalf("decided %s, and after a restart %s", a, b)
			}
		}
	})
}

// verdict is what counts of a decision.
func verdict(d Decision) any {
	switch d := d.(type) {
	case Stopped:
		h := d.Held
		return []any{"held", h.ID, h.Since.Unix(), h.Discarded.Unix(), h.Recent, h.Allowed, len(h.Exceeded), d.Fresh}
	case Admitted:
		return []any{"admitted", d.Raised, d.Snapshot.Digest()}
	}
	return "unchanged"
}

func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		when := func(name string) time.Time { return time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, name), 0).UTC() }
		var r Record
		for i := range rapid.IntRange(0, 3).Draw(t, "recent") {
			name := rapid.SampledFrom([]string{"cn=a,dc=x", `cn=a\,b,dc=x`, "cn=Größe,dc=x"}).Draw(t, "dn")
			r.Recent = append(r.Recent, Recent{directory.UUID{byte(i + 1)}, when("at"), name})
		}
		if rapid.Bool().Draw(t, "raised") {
			r.Raise = &Raise{rapid.IntRange(1, 1<<20).Draw(t, "machines"), when("until")}
		}
		if rapid.Bool().Draw(t, "held") {
			r.Held = &Mark{ID: ID{1, rapid.Byte().Draw(t, "id")}, Since: when("since")}
		}
		text := r.Append(nil)
		got, err := ParseRecord(text)
		if err != nil || !bytes.Equal(got.Append(nil), text) || len(got.Recent) != len(r.Recent) || (got.Raise == nil) != (r.Raise == nil) || (got.Held == nil) != (r.Held == nil) {
			t.Fatalf("%s became %+v, error %v", text, got, err)
		}
		for n := range text {
			if _, err := ParseRecord(text[:n]); !errors.Is(err, ErrRecord) {
				t.Fatalf("the first %d octets gave %v", n, err)
			}
		}
	})
}

var badRecords = []string{
	"", "null x", "[]", `{} {}`, `{"other":1}`, `{"recent":[{"machine":"x","at":"2026-01-01T00:00:00Z","dn":"dc=x"}]}`,
	`{"recent":[{"machine":"01000000-0000-0000-0000-000000000000","at":"2026-01-01T00:00:00Z","dn":"no name"}]}`,
	`{"held":{"id":"12","since":"2026-01-01T00:00:00Z"}}`, `{"raise":{"machines":"many"}}`,
}

func TestRecordsThatAreNone(t *testing.T) {
	for _, bad := range badRecords {
		if r, err := ParseRecord([]byte(bad)); !errors.Is(err, ErrRecord) {
			t.Errorf("%s gave %+v, %v, want ErrRecord", bad, r, err)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	for _, bad := range badRecords {
		f.Add([]byte(bad))
	}
	f.Add(Record{
		Recent: []Recent{{directory.UUID{1}, start, "cn=a,dc=x"}}, Raise: &Raise{5, start}, Held: &Mark{ID: ID{7}, Since: start, Discarded: start},
	}.Append(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseRecord(data)
		if err != nil {
			return
		}
		text := r.Append(nil)
		again, err := ParseRecord(text)
		if err != nil || !bytes.Equal(again.Append(nil), text) {
			t.Errorf("%s became %s, %v", data, again.Append(nil), err)
		}
		g, err := New(Default(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Restore(r); err != nil {
			t.Errorf("what parses does not restore: %v", err)
		}
	})
}
