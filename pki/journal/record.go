package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
)

// ErrJournal is wrapped by every error of this package: a record, a line or a head that is not as it must be.
var ErrJournal = errors.New("issuing journal does not hold together")

// MaxLine is the largest line, in octets, without its line feed.
const MaxLine = 8 << 10

// maxText bounds each text of an event, in octets.
const maxText = 1024

// Digest is a SHA-256.
type Digest [sha256.Size]byte

// Sum is the digest of octets.
func Sum(octets []byte) Digest { return sha256.Sum256(octets) }

// String returns 64 hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText implements encoding.TextMarshaler with the form of String.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; it takes the form of String alone.
func (d *Digest) UnmarshalText(text []byte) error {
	var parsed Digest
	if len(text) != hex.EncodedLen(len(parsed)) {
		return fmt.Errorf("digest of %d characters, wanted %d: %w", len(text), hex.EncodedLen(len(parsed)), ErrJournal)
	}
	if _, err := hex.Decode(parsed[:], text); err != nil || parsed.String() != string(text) {
		return fmt.Errorf("digest %q is not %d hexadecimal digits in lower case: %w", text, len(text), ErrJournal)
	}
	*d = parsed
	return nil
}

// Head stands for a journal up to a record: the record's number and the digest of its line. The zero Head is that of an
// empty journal.
type Head struct {
	Number uint64 `json:"number"`
	Digest Digest `json:"digest"`
}

// String returns "number:digest", which ParseHead reads.
func (h Head) String() string { return strconv.FormatUint(h.Number, 10) + ":" + h.Digest.String() }

// ParseHead reads the form of String. Errors wrap ErrJournal.
func ParseHead(text string) (Head, error) {
	number, digest, ok := strings.Cut(text, ":")
	n, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil {
		return Head{}, fmt.Errorf("head %.100q is not NUMBER:DIGEST: %w", text, ErrJournal)
	}
	h := Head{Number: n}
	if err := h.Digest.UnmarshalText([]byte(digest)); err != nil {
		return Head{}, err
	}
	if h.String() != text {
		return Head{}, fmt.Errorf("head %.100q is not in the form of %q: %w", text, h, ErrJournal)
	}
	return h, nil
}

// Intention is a certificate that is about to be signed.
type Intention struct {
	// Serial is the serial number in lower-case hexadecimal.
	Serial string `json:"serial"`
	// Issuer is the key that is to sign.
	Issuer pki.KeyID `json:"issuer"`
	// Profile is the kind of certificate, and Subject the identity.
	Profile string `json:"profile"`
	Subject string `json:"subject"`
	// Key is the key to be certified.
	Key       pki.KeyID `json:"key"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	// TBS is the digest of the octets to be signed.
	TBS Digest `json:"tbs"`
}

// Certificate tells that an intended certificate was signed.
type Certificate struct {
	Serial string `json:"serial"`
	// Digest is that of the DER certificate.
	Digest Digest `json:"digest"`
}

// Event is anything else that belongs into the history of a CA: its making, the steps of a rotation, a revocation.
type Event struct {
	// Kind is a short word, as "rotation" or "revocation".
	Kind string `json:"kind"`
	// What happened, to what, in words.
	What string `json:"what"`
	// By is the administrator, or empty when the controller did it by itself.
	By string `json:"by,omitempty"`
	// Serial or Key name the certificate or key that the event is about, where there is one.
	Serial string    `json:"serial,omitempty"`
	Key    pki.KeyID `json:"key,omitzero"`
}

// Record is one line. Exactly one of Intention, Certificate and Event is set.
type Record struct {
	Number   uint64 `json:"number"`
	Previous Digest `json:"previous"`
	// Time is when the record was written, on the writer's clock. It orders nothing: clocks are set back, numbers are not.
	Time        time.Time    `json:"time"`
	Intention   *Intention   `json:"intention,omitempty"`
	Certificate *Certificate `json:"certificate,omitempty"`
	Event       *Event       `json:"event,omitempty"`
}

func (r Record) check() error {
	bodies := 0
	if r.Intention != nil {
		bodies++
		if r.Intention.Serial == "" {
			return fmt.Errorf("record %d: intention without a serial number: %w", r.Number, ErrJournal)
		}
	}
	if r.Certificate != nil {
		bodies++
		if r.Certificate.Serial == "" {
			return fmt.Errorf("record %d: certificate without a serial number: %w", r.Number, ErrJournal)
		}
	}
	if e := r.Event; e != nil {
		bodies++
		if e.Kind == "" || len(e.Kind) > maxText || len(e.What) > maxText || len(e.By) > maxText || len(e.Serial) > maxText {
			return fmt.Errorf("record %d: event without a kind, or with a text of more than %d octets: %w", r.Number, maxText, ErrJournal)
		}
	}
	if bodies != 1 {
		return fmt.Errorf("record %d tells %d things, wanted one: %w", r.Number, bodies, ErrJournal)
	}
	return nil
}

// Append makes the record that follows head: it sets number and previous, and returns the line, without a line feed, and
// the new head. Errors wrap ErrJournal.
func Append(head Head, r Record) (line []byte, next Head, err error) {
	r.Number, r.Previous, r.Time = head.Number+1, head.Digest, r.Time.UTC()
	if err := r.check(); err != nil {
		return nil, Head{}, err
	}
	line, err = json.Marshal(r)
	if err != nil {
		return nil, Head{}, fmt.Errorf("encoding record %d: %w: %w", r.Number, ErrJournal, err)
	}
	// What cannot be read back must not be written: invalid UTF-8, for one, would come back as something else.
	if read, err := Parse(line); err != nil {
		return nil, Head{}, err
	} else if read.Number != r.Number {
		return nil, Head{}, fmt.Errorf("record %d reads back as %d: %w", r.Number, read.Number, ErrJournal)
	}
	return line, Head{r.Number, Sum(line)}, nil
}

// Parse reads a line of Append, without its line feed, and nothing in another spelling. Errors wrap ErrJournal.
func Parse(line []byte) (Record, error) {
	if len(line) > MaxLine {
		return Record{}, fmt.Errorf("line of %d octets, more than %d: %w", len(line), MaxLine, ErrJournal)
	}
	var r Record
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r); err != nil {
		return Record{}, fmt.Errorf("reading a line: %w: %w", ErrJournal, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Record{}, fmt.Errorf("record %d is followed by something on its line: %w", r.Number, ErrJournal)
	}
	if err := r.check(); err != nil {
		return Record{}, err
	}
	if again, err := json.Marshal(r); err != nil || !bytes.Equal(again, line) {
		return Record{}, fmt.Errorf("record %d is not in the spelling of the journal: %w", r.Number, ErrJournal)
	}
	return r, nil
}
