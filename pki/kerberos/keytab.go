package kerberos

import (
	"fmt"
	"io"
	"log/slog"
	"slices"

	"github.com/jcmturner/gokrb5/v8/keytab"
)

// MaxKeytab bounds a keytab, in octets.
const MaxKeytab = 1 << 20

// keySizes are the encryption types that are spoken, with the length of their keys in octets: AES of RFC 3962 and RFC 8009.
var keySizes = map[int32]int{17: 16, 18: 32, 19: 16, 20: 32}

// EncryptionTypes are the encryption types that are spoken, strongest first.
func EncryptionTypes() []int32 { return []int32{20, 18, 19, 17} }

// Keytab is a table of keys. It does not print.
type Keytab struct{ table *keytab.Keytab }

// ParseKeytab reads a keytab as MIT krb5 writes it, and keeps the keys of AES alone. Errors wrap ErrMalformed, or
// ErrEncryption where no key is left.
func ParseKeytab(content []byte) (Keytab, error) {
	if len(content) > MaxKeytab {
		return Keytab{}, fmt.Errorf("reading a keytab: %d octets, more than %d: %w", len(content), MaxKeytab, ErrMalformed)
	}
	table := new(keytab.Keytab)
	if err := contained(func() error { return table.Unmarshal(content) }); err != nil {
		// The library's own words may hold what it read.
		return Keytab{}, fmt.Errorf("reading a keytab of %d octets: %w", len(content), ErrMalformed)
	}
	all := len(table.Entries)
	kept := table.Entries[:0]
	for _, e := range table.Entries {
		if size, ok := keySizes[e.Key.KeyType]; ok && len(e.Key.KeyValue) == size {
			kept = append(kept, e)
		}
	}
	table.Entries = kept
	if len(kept) == 0 {
		return Keytab{}, fmt.Errorf("reading a keytab of %d keys, none of which is of AES; make one with aes256-cts-hmac-sha1-96 or stronger: %w", all, ErrEncryption)
	}
	return Keytab{table}, nil
}

// Principals are those that the keytab has keys of AES for, each once, in its order.
func (k Keytab) Principals() []Principal {
	var out []Principal
	if k.table == nil {
		return nil
	}
	for _, e := range k.table.Entries {
		p := Principal{Components: e.Principal.Components, Realm: e.Principal.Realm}
		if p.sound() && !slices.ContainsFunc(out, p.Equal) {
			out = append(out, p)
		}
	}
	return out
}

// Table is the keytab for the client of the library.
func (k Keytab) Table() *keytab.Keytab { return k.table }

const redactedKeytab = "keytab [redacted]"

// String returns "keytab [redacted]".
func (Keytab) String() string { return redactedKeytab }

// GoString is String.
func (Keytab) GoString() string { return redactedKeytab }

// Format writes String whatever the verb.
func (Keytab) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redactedKeytab) }

// LogValue is String.
func (Keytab) LogValue() slog.Value { return slog.StringValue(redactedKeytab) }

// MarshalText writes String.
func (Keytab) MarshalText() ([]byte, error) { return []byte(redactedKeytab), nil }

// contained runs what the library makes of octets of others, and takes a panic for an error: the library looks into what it
// parsed without asking whether it is there.
func contained(f func() error) (err error) {
	defer func() {
		if recover() != nil {
			err = ErrMalformed
		}
	}()
	return f()
}
