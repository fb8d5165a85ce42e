package ldap

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
)

// secret is a bind password. It shows itself to nobody.
type secret struct{ text []byte }

const redacted = "[redacted]"

func (secret) String() string               { return redacted }
func (secret) GoString() string             { return redacted }
func (secret) Format(f fmt.State, _ rune)   { _, _ = io.WriteString(f, redacted) }
func (secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
func (secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Equal compares in constant time.
func (s secret) Equal(o secret) bool { return subtle.ConstantTimeCompare(s.text, o.text) == 1 }

// wipe overwrites the password; the copies that the LDAP client made are beyond reach.
func (s secret) wipe() { clear(s.text) }

// readSecret reads a password file; one newline at its end is not part of the password.
func readSecret(path string) (secret, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return secret{}, fmt.Errorf("read bind password: %w", err)
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if len(b) == 0 {
		// RFC 4513 5.1.2: a bind with a name and no password is anonymous and succeeds; the server would then show less.
		return secret{}, fmt.Errorf("read bind password: %w", errors.New("file "+path+" is empty"))
	}
	return secret{b}, nil
}
