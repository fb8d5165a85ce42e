package journal_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/journal"
)

var epoch = time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)

type failer interface {
	Helper()
	Fatal(...any)
}

func intention(serial string) journal.Record {
	return journal.Record{Time: epoch, Intention: &journal.Intention{
		Serial: serial, Profile: "machine", Subject: "bailiwick://bank.example/machine/1", Issuer: pki.KeyID{1}, Key: pki.KeyID{2},
		NotBefore: epoch, NotAfter: epoch.Add(time.Hour), TBS: journal.Sum([]byte(serial)),
	}}
}

func certificate(serial string) journal.Record {
	return journal.Record{Time: epoch, Certificate: &journal.Certificate{Serial: serial, Digest: journal.Sum([]byte("der " + serial))}}
}

func event(what string) journal.Record {
	return journal.Record{Time: epoch, Event: &journal.Event{Kind: "rotation", What: what, By: "root"}}
}

// write makes a journal of records.
func write(t failer, records ...journal.Record) (lines [][]byte, heads []journal.Head) {
	t.Helper()
	var head journal.Head
	for _, r := range records {
		line, next, err := journal.Append(head, r)
		if err != nil {
			t.Fatal(err)
		}
		lines, heads, head = append(lines, line), append(heads, next), next
	}
	return lines, heads
}

// audit reads lines and returns the first thing that is wrong.
func audit(lines [][]byte, remembered ...journal.Head) (*journal.Audit, error) {
	a := &journal.Audit{}
	for _, h := range remembered {
		if err := a.Expect(h); err != nil {
			return a, err
		}
	}
	for _, line := range lines {
		if _, err := a.Add(line); err != nil {
			return a, err
		}
	}
	return a, a.End()
}

func TestAuditAccountsForEverySerial(t *testing.T) {
	lines, heads := write(t, event("made"), intention("a1"), intention("b2"), certificate("a1"))
	a, err := audit(lines, heads[1], heads[3])
	if err != nil {
		t.Fatal(err)
	}
	if a.Head() != heads[3] {
		t.Errorf("head %v, want %v", a.Head(), heads[3])
	}
	if accounts := a.Accounts(); len(accounts) != 2 || accounts[0].Certified != 4 || accounts[1].Certified != 0 || accounts[1].Recorded != 3 {
		t.Errorf("accounts %+v, want a1 certified by record 4 and b2 intended by record 3", accounts)
	}
	if a1, ok := a.Account("a1"); !ok || a1.Digest != journal.Sum([]byte("der a1")) {
		t.Errorf("account of a1 is %+v", a1)
	}
}

// Whatever is changed, taken out, put in, doubled or swapped before a remembered head is noticed.
func TestNothingCanBeChangedUnnoticed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 12).Draw(t, "records")
		var records []journal.Record
		for i := range n {
			records = append(records, intention(fmt.Sprintf("%x", i+1)))
			if rapid.Bool().Draw(t, "certified") {
				records = append(records, certificate(fmt.Sprintf("%x", i+1)))
			}
		}
		lines, heads := write(t, records...)
		head := heads[len(heads)-1]
		if _, err := audit(lines, head); err != nil {
			t.Fatalf("the journal itself: %v", err)
		}
		i := rapid.IntRange(0, len(lines)-1).Draw(t, "at")
		changed := append([][]byte{}, lines...)
		switch what := rapid.SampledFrom([]string{"octet", "remove", "double", "swap", "cut", "rewrite"}).Draw(t, "what"); what {
		case "octet":
			line := bytes.Clone(lines[i])
			line[rapid.IntRange(0, len(line)-1).Draw(t, "octet")] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
			changed[i] = line
		case "remove":
			changed = append(changed[:i:i], changed[i+1:]...)
		case "double":
			changed = append(changed[:i+1:i+1], changed[i:]...)
		case "swap":
			j := rapid.IntRange(0, len(lines)-1).Filter(func(j int) bool { return j != i }).Draw(t, "with")
			changed[i], changed[j] = changed[j], changed[i]
		case "cut":
			changed = changed[:i]
		case "rewrite":
			// Somebody who can write writes the whole rest again, without one record: only the remembered head tells.
			rest := append(append([]journal.Record{}, records[:i]...), records[i+1:]...)
			changed = changed[:0]
			var h journal.Head
			for _, r := range rest {
				line, next, err := journal.Append(h, r)
				if err != nil {
					t.Fatal(err)
				}
				changed, h = append(changed, line), next
			}
		}
		if _, err := audit(changed, head); !errors.Is(err, journal.ErrJournal) {
			t.Fatalf("the change gave %v, want ErrJournal", err)
		}
	})
}

func TestAccountsThatContradict(t *testing.T) {
	for _, c := range []struct {
		name    string
		records []journal.Record
		want    string
	}{
		{"a serial number used twice", []journal.Record{intention("a"), intention("a")}, "record 2 intends the serial number a, which record 1 did already"},
		{"a certificate without an intention", []journal.Record{event("made"), certificate("a")}, "which was never intended"},
		{"two certificates", []journal.Record{intention("a"), certificate("a"), certificate("a")}, "which record 2 did already"},
	} {
		t.Run(c.name, func(t *testing.T) {
			lines, _ := write(t, c.records...)
			if _, err := audit(lines); err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, journal.ErrJournal) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestRecordsThatCannotBeWritten(t *testing.T) {
	for name, r := range map[string]journal.Record{
		"nothing":            {Time: epoch},
		"two things":         {Time: epoch, Event: &journal.Event{Kind: "x"}, Certificate: &journal.Certificate{Serial: "a"}},
		"no serial":          intention(""),
		"no kind":            {Time: epoch, Event: &journal.Event{What: "x"}},
		"a text too long":    {Time: epoch, Event: &journal.Event{Kind: "x", What: strings.Repeat("x", 1025)}},
		"text that is none":  {Time: epoch, Event: &journal.Event{Kind: "x", What: "\xff"}},
		"a year beyond JSON": {Time: epoch.AddDate(9000, 0, 0), Event: &journal.Event{Kind: "x"}},
	} {
		if line, _, err := journal.Append(journal.Head{}, r); !errors.Is(err, journal.ErrJournal) {
			t.Errorf("%s: wrote %q, error %v", name, line, err)
		}
	}
}

func TestHeads(t *testing.T) {
	_, heads := write(t, event("made"))
	for _, h := range []journal.Head{{}, heads[0]} {
		if read, err := journal.ParseHead(h.String()); err != nil || read != h {
			t.Errorf("head %v reads back as %v, %v", h, read, err)
		}
	}
	for _, text := range []string{"", "1", "1:", ":" + heads[0].Digest.String(), "01:" + heads[0].Digest.String(), "-1:" + heads[0].Digest.String(),
		"1:" + strings.ToUpper(heads[0].Digest.String()), heads[0].String() + " "} {
		if h, err := journal.ParseHead(text); !errors.Is(err, journal.ErrJournal) {
			t.Errorf("head %q reads as %v, %v", text, h, err)
		}
	}
	var a journal.Audit
	if err := a.Expect(heads[0]); err != nil {
		t.Fatal(err)
	}
	if err := a.Expect(journal.Head{Number: 1}); !errors.Is(err, journal.ErrJournal) {
		t.Errorf("two heads of one record that differ gave %v", err)
	}
}

func FuzzParse(f *testing.F) {
	lines, _ := write(f, event("made"), intention("a1"), certificate("a1"))
	for _, line := range lines {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := journal.Parse(line)
		if err != nil {
			return
		}
		if r.Number == 0 {
			return
		}
		again, head, err := journal.Append(journal.Head{Number: r.Number - 1, Digest: r.Previous}, r)
		if err != nil || !bytes.Equal(again, line) || head.Number != r.Number {
			t.Errorf("read %q, wrote %q, %v", line, again, err)
		}
	})
}

func FuzzParseHead(f *testing.F) {
	_, heads := write(f, event("made"))
	f.Add(heads[0].String())
	f.Add("0" + heads[0].String())
	f.Fuzz(func(t *testing.T, text string) {
		h, err := journal.ParseHead(text)
		if err != nil && !errors.Is(err, journal.ErrJournal) {
			t.Fatalf("refused with %v, want ErrJournal", err)
		}
		if err == nil && h.String() != text {
			t.Fatalf("%q is read as %q", text, h)
		}
	})
}
