//go:build cgo

package pkcs11

import (
	"errors"
	"testing"

	"github.com/miekg/pkcs11"
)

// The last attempt that a token allows is left to a person.
func TestLastAttemptIsNotTaken(t *testing.T) {
	const usual = pkcs11.CKF_TOKEN_INITIALIZED | pkcs11.CKF_USER_PIN_INITIALIZED | pkcs11.CKF_LOGIN_REQUIRED
	for name, test := range map[string]struct {
		flags uint
		want  error
	}{
		"as usual":                 {usual, nil},
		"after a wrong PIN":        {usual | pkcs11.CKF_USER_PIN_COUNT_LOW, nil},
		"one attempt left":         {usual | pkcs11.CKF_USER_PIN_COUNT_LOW | pkcs11.CKF_USER_PIN_FINAL_TRY, ErrPIN},
		"locked":                   {usual | pkcs11.CKF_USER_PIN_LOCKED, ErrPIN},
		"the officer's is another": {usual | pkcs11.CKF_SO_PIN_FINAL_TRY | pkcs11.CKF_SO_PIN_LOCKED, nil},
	} {
		if err := mayLogIn(test.flags); !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}
