package enroll_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
)

// sample is a token whose text is written out, and was made with other software, so that a change of the format is
// noticed.
func sample() enroll.Token {
	var entropy [enroll.EntropySize]byte
	for i := range entropy {
		entropy[i] = byte(i)
	}
	var pin pki.KeyID
	for i := range pin {
		pin[i] = byte(0x80 + i)
	}
	return enroll.NewToken(entropy, pin)
}

const sampleText = "bw1.aaaqeayeaudaocaj.bifqydiob4ibceqtcqkrmfyydenbwha5.qcayfa4eqwdipcejrkfyzdmor6ijdeutsskznf4ytgnjxhe5t2pq.2hsibdhu"

func TestTokenText(t *testing.T) {
	text := sample().Text()
	if text != sampleText {
		t.Errorf("text %q, want %q", text, sampleText)
	}
	got, err := enroll.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != sample().ID || !got.Secret.Equal(sample().Secret) || got.Pin != sample().Pin {
		t.Error("the token differs after its text")
	}
}

func TestTokenRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(n int, label string) []byte { return rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, label) }
		want := enroll.NewToken([enroll.EntropySize]byte(draw(enroll.EntropySize, "entropy")), pki.KeyID(draw(32, "pin")))
		got, err := enroll.ParseToken(want.Text())
		if err != nil {
			t.Fatal(err)
		}
		if got.ID != want.ID || !got.Secret.Equal(want.Secret) || got.Pin != want.Pin {
			t.Fatal("the token differs after its text")
		}
	})
}

func TestParseTokenRefuses(t *testing.T) {
	good := sampleText
	for n := range len(good) {
		if _, err := enroll.ParseToken(good[:n]); !errors.Is(err, enroll.ErrTokenFormat) {
			t.Fatalf("the first %d characters give %v, want ErrTokenFormat", n, err)
		}
	}
	for i := range len(good) {
		changed := []byte(good)
		if changed[i]++; changed[i] == '3'-1 {
			changed[i]++
		}
		if _, err := enroll.ParseToken(string(changed)); !errors.Is(err, enroll.ErrTokenFormat) {
			t.Errorf("character %d changed gives %v, want ErrTokenFormat", i, err)
		}
	}
	for name, c := range map[string]struct{ text, says string }{
		"empty":             {"", "start"},
		"another version":   {"bw2" + good[3:], "start"},
		"capital letters":   {strings.ToUpper(good), "start"},
		"trailing newline":  {good + "\n", "characters"},
		"cut":               {good[:60], "cut"},
		"another separator": {strings.Replace(good, ".q", ":q", 1), "parts"},
		"a capital letter":  {strings.Replace(good, "bifq", "bifQ", 1), "secret"},
		"another pin":       {strings.Replace(good, "qcay", "qcaz", 1), "checksum"},
		"padding bits set":  {strings.Replace(good, "2pq.", "2pr.", 1), "pin"},
	} {
		_, err := enroll.ParseToken(c.text)
		if !errors.Is(err, enroll.ErrTokenFormat) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s gives %v, want ErrTokenFormat that says %q", name, err, c.says)
		}
		if err != nil && strings.Contains(err.Error(), "bif") {
			t.Errorf("%s: the error shows the secret: %v", name, err)
		}
	}
}

func TestTokenDoesNotPrintItsSecret(t *testing.T) {
	token := sample()
	secret := strings.Split(sampleText, ".")[2]
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "token", token, "secret", token.Secret)
	asJSON, err := json.Marshal(map[string]any{"t": token, "s": token.Secret, "p": &token})
	if err != nil {
		t.Fatal(err)
	}
	outputs := []string{log.String(), string(asJSON)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		outputs = append(outputs, fmt.Sprintf(verb, token), fmt.Sprintf(verb, &token), fmt.Sprintf(verb, token.Secret), fmt.Sprintf(verb, []enroll.Token{token}))
	}
	for _, out := range outputs {
		// The secret's octets are 0a 0b 0c ... 1d.
		for _, leak := range []string{secret, "0a0b0c", "10 11 12", "10,11,12", "0xa, 0xb", "a b c"} {
			if strings.Contains(out, leak) {
				t.Errorf("%q shows the secret", out)
			}
		}
		if !strings.Contains(out, "[redacted]") {
			t.Errorf("%q does not say that something was left out", out)
		}
	}
}

func TestVerifyToken(t *testing.T) {
	created := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	token, machine := sample(), pki.UUID{1}
	stored := enroll.NewStored(created, token, machine, time.Hour)
	other := enroll.NewToken([enroll.EntropySize]byte{}, token.Pin)
	guessed := other
	guessed.ID = token.ID
	for _, c := range []struct {
		name      string
		now       time.Time
		stored    enroll.Stored
		presented enroll.Token
		want      error
		says      string
	}{
		{"fresh", created, stored, token, nil, ""},
		{"last moment", created.Add(time.Hour - 1), stored, token, nil, ""},
		{"expired", created.Add(time.Hour), stored, token, enroll.ErrTokenExpired, "good until 2026-11-20T01:00:00Z, the controller's clock says 2026-11-20T01:00:00Z"},
		{"used", created, stored.MarkUsed(created.Add(time.Minute), pki.KeyID{1}), token, enroll.ErrTokenUsed, "used at 2026-11-20T00:01:00Z"},
		{"used and expired", created.Add(2 * time.Hour), stored.MarkUsed(created, pki.KeyID{1}), token, enroll.ErrTokenUsed, ""},
		{"another token", created, stored, other, enroll.ErrTokenUnknown, ""},
		{"guessed secret", created, stored, guessed, enroll.ErrTokenUnknown, ""},
		{"guessed secret of a used token", created, stored.MarkUsed(created, pki.KeyID{1}), guessed, enroll.ErrTokenUnknown, ""},
		{"guessed secret of an expired token", created.Add(2 * time.Hour), stored, guessed, enroll.ErrTokenUnknown, ""},
		{"empty record", created, enroll.Stored{}, enroll.Token{}, enroll.ErrTokenUnknown, ""},
		{"bound to nobody", created, enroll.NewStored(created, token, pki.UUID{}, time.Hour), token, enroll.ErrTokenUnknown, "no machine"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := enroll.Verify(c.now, c.stored, c.presented)
			if !errors.Is(err, c.want) {
				t.Fatalf("error %v, want %v", err, c.want)
			}
			if err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %q does not say %q", err, c.says)
			}
		})
	}
}

// What the controller keeps survives its encoding, and does not hold the secret.
func TestStoredEncoding(t *testing.T) {
	created := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	for _, want := range []enroll.Stored{
		enroll.NewStored(created, sample(), pki.UUID{1}, time.Hour),
		enroll.NewStored(created, sample(), pki.UUID{1}, time.Hour).MarkUsed(created, pki.KeyID{9}),
	} {
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), strings.Split(sampleText, ".")[2]) {
			t.Errorf("%s holds the secret", text)
		}
		var got enroll.Stored
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("read back %+v, want %+v", got, want)
		}
	}
	for _, text := range []string{`{"id":"x"}`, `{"secretHash":"00"}`, `{"machine":"x"}`, `{"usedBy":"x"}`} {
		if err := json.Unmarshal([]byte(text), new(enroll.Stored)); err == nil {
			t.Errorf("%s is accepted", text)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(sampleText)
	f.Add(sampleText[:40])
	f.Add("bw1....")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := enroll.ParseToken(text)
		if err != nil {
			if !errors.Is(err, enroll.ErrTokenFormat) {
				t.Fatalf("error %v does not wrap ErrTokenFormat", err)
			}
			return
		}
		if token.Text() != text {
			t.Fatalf("%q reads as the token with the text %q", text, token.Text())
		}
	})
}
