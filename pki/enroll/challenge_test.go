package enroll_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/pki/enroll"
)

// der puts contents into a tag.
func der(tag byte, contents ...[]byte) []byte {
	var all []byte
	for _, c := range contents {
		all = append(all, c...)
	}
	out := []byte{tag}
	switch {
	case len(all) < 0x80:
		out = append(out, byte(len(all)))
	case len(all) < 0x100:
		out = append(out, 0x81, byte(len(all)))
	default:
		out = append(out, 0x82, byte(len(all)>>8), byte(len(all)))
	}
	return append(out, all...)
}

var challengeOID = []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x07}

// requestWith is a PKCS #10 request with the attributes, as far as ChallengePassword looks at it.
func requestWith(attributes ...[]byte) []byte {
	info := der(0x30, []byte{0x02, 0x01, 0x00}, der(0x30), der(0x30), der(0xa0, attributes...))
	return der(0x30, info, der(0x30), der(0x03, []byte{0}))
}

func challenge(values ...[]byte) []byte { return der(0x30, challengeOID, der(0x31, values...)) }

func TestChallengePassword(t *testing.T) {
	other := der(0x30, []byte{0x06, 0x01, 0x2a}, der(0x31, der(0x0c, []byte("x"))))
	for name, c := range map[string]struct {
		der  []byte
		want string
		ok   bool
	}{
		"none":                      {requestWith(), "", true},
		"without any attributes":    {der(0x30, der(0x30, []byte{0x02, 0x01, 0x00}, der(0x30), der(0x30)), der(0x30), der(0x03, []byte{0})), "", true},
		"printable, among others":   {requestWith(other, challenge(der(0x13, []byte("abc=")))), "abc=", true},
		"UTF-8":                     {requestWith(challenge(der(0x0c, []byte("abc/")))), "abc/", true},
		"two of them":               {requestWith(challenge(der(0x0c, []byte("a"))), challenge(der(0x0c, []byte("b")))), "", false},
		"two values":                {requestWith(challenge(der(0x0c, []byte("a")), der(0x0c, []byte("b")))), "", false},
		"no value":                  {requestWith(challenge()), "", false},
		"an empty value":            {requestWith(challenge(der(0x0c))), "", false},
		"too long":                  {requestWith(challenge(der(0x0c, []byte(strings.Repeat("a", 256))))), "", false},
		"a string of two octets":    {requestWith(challenge(der(0x1e, []byte{0, 'a'}))), "", false},
		"an integer":                {requestWith(challenge(der(0x02, []byte{1}))), "", false},
		"something behind":          {append(requestWith(), 0), "", false},
		"no request":                {[]byte("x"), "", false},
		"nothing":                   {nil, "", false},
		"more than is looked at":    {make([]byte, enroll.MaxRequestSize+1), "", false},
		"an attribute with a third": {requestWith(der(0x30, challengeOID, der(0x31, der(0x0c, []byte("a"))), der(0x30))), "", false},
	} {
		t.Run(name, func(t *testing.T) {
			got, present, err := enroll.ChallengePassword(c.der)
			if (err == nil) != c.ok || got != c.want || present != (c.want != "") {
				t.Errorf("got %q, present %v, error %v; want %q, ok %v", got, present, err, c.want, c.ok)
			}
			if err != nil && !errors.Is(err, enroll.ErrRequest) {
				t.Errorf("%v does not wrap ErrRequest", err)
			}
		})
	}
}

func TestChallengePasswordHasNoPrefixThatParses(t *testing.T) {
	whole := requestWith(challenge(der(0x0c, []byte("abc"))))
	for n := range len(whole) {
		if _, _, err := enroll.ChallengePassword(whole[:n]); err == nil {
			t.Errorf("%d of %d octets parse", n, len(whole))
		}
	}
}

func FuzzChallengePassword(f *testing.F) {
	f.Add(requestWith())
	f.Add(requestWith(challenge(der(0x13, []byte("abc=")))))
	f.Add(readPEM(f, "testdata/challenge-password.pem"))
	f.Fuzz(func(t *testing.T, in []byte) {
		password, present, err := enroll.ChallengePassword(in)
		if (err != nil || !present) && password != "" || present && (password == "" || len(password) > 255) {
			t.Errorf("password %q, present %v, error %v", password, present, err)
		}
	})
}

// A request that openssl made reads the same.
func TestChallengePasswordOfOpenSSL(t *testing.T) {
	in := readPEM(t, "testdata/challenge-password.pem")
	if password, present, err := enroll.ChallengePassword(in); password != "dGxzLXVuaXF1ZQ==" || !present || err != nil {
		t.Errorf("got %q, %v, %v", password, present, err)
	}
	r, err := enroll.ParseRequest(in)
	if err != nil || r.DNSName != "gw1.bank.example" || r.Subject != nil {
		t.Errorf("the request reads %+v, error %v; want the common name as DNS name", r, err)
	}
}
