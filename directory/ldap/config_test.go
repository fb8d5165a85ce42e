package ldap

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
)

func TestConfig(t *testing.T) {
	simple := Simple{DN: "cn=reader,dc=bank,dc=example", PasswordFile: "/etc/bailiwick/ldap-password"}
	derived := directory.OpenLDAP()
	derived.DeriveIdentity = true
	for name, tc := range map[string]struct {
		c    Config
		want string // "" is accepted
	}{
		"LDAPS":                         {Config{URL: "ldaps://dc1.bank.example", Bind: simple}, ""},
		"LDAPS, port, slash":            {Config{URL: "ldaps://dc1.bank.example:3269/", Bind: simple}, ""},
		"LDAPS, IPv6":                   {Config{URL: "ldaps://[2001:db8::1]", Bind: simple}, ""},
		"StartTLS":                      {Config{URL: "ldap://dc1.bank.example", StartTLS: true, Bind: simple}, ""},
		"ldapi, EXTERNAL":               {Config{URL: "ldapi://%2Frun%2Fslapd%2Fldapi", Bind: External{}}, ""},
		"ldapi, plain path":             {Config{URL: "ldapi:///run/slapd/ldapi", Bind: External{}}, ""},
		"clear, loopback, allowed":      {Config{URL: "ldap://127.0.0.1", Bind: simple, AllowClear: true}, ""},
		"clear, IPv6 loopback, allowed": {Config{URL: "ldap://[::1]:3389", Bind: simple, AllowClear: true}, ""},

		"clear":                     {Config{URL: "ldap://dc1.bank.example", Bind: simple}, "clear text"},
		"clear, allowed":            {Config{URL: "ldap://dc1.bank.example", Bind: simple, AllowClear: true}, "clear text"},
		"clear, anonymous":          {Config{URL: "ldap://dc1.bank.example", AllowClear: true}, "clear text"},
		"clear, loopback":           {Config{URL: "ldap://127.0.0.1", Bind: simple}, "clear text"},
		"clear, a name":             {Config{URL: "ldap://localhost", Bind: simple, AllowClear: true}, "clear text"},
		"ldapi, simple":             {Config{URL: "ldapi://%2Frun%2Fldapi", Bind: simple}, "ldapi"},
		"ldapi, StartTLS":           {Config{URL: "ldapi://%2Frun%2Fldapi", Bind: External{}, StartTLS: true}, "StartTLS"},
		"ldapi, no path":            {Config{URL: "ldapi://", Bind: External{}}, "socket"},
		"ldapi, relative":           {Config{URL: "ldapi://run", Bind: External{}}, "socket"},
		"LDAPS, StartTLS":           {Config{URL: "ldaps://a", StartTLS: true}, "StartTLS"},
		"EXTERNAL, no certificate":  {Config{URL: "ldaps://a", Bind: External{}}, "client certificate"},
		"EXTERNAL, clear":           {Config{URL: "ldap://127.0.0.1", Bind: External{}, AllowClear: true}, "EXTERNAL"},
		"certificate without key":   {Config{URL: "ldaps://a", ClientCert: "a.pem"}, "key"},
		"simple without file":       {Config{URL: "ldaps://a", Bind: Simple{DN: "cn=a"}}, "password file"},
		"simple without DN":         {Config{URL: "ldaps://a", Bind: Simple{PasswordFile: "f"}}, "DN"},
		"no scheme":                 {Config{URL: "dc1.bank.example"}, "scheme"},
		"http":                      {Config{URL: "http://a"}, "scheme"},
		"no host":                   {Config{URL: "ldaps://"}, "host"},
		"base in the URL":           {Config{URL: "ldaps://a/dc=bank"}, "base DN"},
		"filter in the URL":         {Config{URL: "ldaps://a?sub"}, "base DN"},
		"credentials in the URL":    {Config{URL: "ldaps://cn=a:hunter2@a"}, "credentials"},
		"credentials in a bad URL":  {Config{URL: "ldaps://cn=a:hunter2@a:b"}, "cannot be parsed"},
		"derived identities":        {Config{URL: "ldaps://a", Schema: &derived}, "UUID"},
		"interval in the wrong way": {Config{URL: "ldaps://a", Interval: -time.Second}, "interval"},
		"interval too short":        {Config{URL: "ldaps://a", Interval: time.Millisecond}, "interval"},
		"page too large":            {Config{URL: "ldaps://a", PageSize: 1001}, "page size"},
	} {
		t.Run(name, func(t *testing.T) {
			tc.c.Base = base
			err := tc.c.Validate()
			if tc.want == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Validate: %v; want ErrConfig and %q", err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error %q shows a password", err)
			}
			if s, err := Open(tc.c); s != nil || err == nil {
				t.Error("Open accepts what Validate refuses")
			}
		})
	}
	if err := (Config{URL: "ldaps://a"}).Validate(); !errors.Is(err, ErrConfig) {
		t.Errorf("no base DN: %v", err)
	}
}

func TestSecretShowsItselfToNobody(t *testing.T) {
	s := secret{[]byte("hunter2")}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("bind", "password", s)
	j, err := json.Marshal(map[string]any{"password": s})
	if err != nil {
		t.Fatal(err)
	}
	for how, text := range map[string]string{
		"%v": fmt.Sprintf("%v", s), "%+v": fmt.Sprintf("%+v", s), "%#v": fmt.Sprintf("%#v", s), "%s": fmt.Sprintf("%s", s),
		"%x": fmt.Sprintf("%x", s), "%q": fmt.Sprintf("%q", s), "%v in a struct": fmt.Sprintf("%v", struct{ S secret }{s}), "slog": log.String(), "JSON": string(j),
	} {
		if !strings.Contains(text, redacted) || strings.Contains(text, "hunter2") || strings.Contains(text, "68756e74") {
			t.Errorf("%s shows %q", how, text)
		}
	}
	if !s.Equal(secret{[]byte("hunter2")}) || s.Equal(secret{[]byte("hunter3")}) {
		t.Error("Equal does not compare")
	}
	s.wipe()
	if string(s.text) != "\x00\x00\x00\x00\x00\x00\x00" {
		t.Error("a wiped password is still there")
	}
}

func TestParseRange(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want valueRange
		ok   bool
	}{
		{"member;range=0-1499", valueRange{"member", 0, 1499}, true},
		{"member;Range=1500-*", valueRange{"member", 1500, -1}, true},
		{"member", valueRange{}, false},
		{"cn;lang-de", valueRange{}, false},
		{"member;range=", valueRange{"member", -1, -1}, true},
		{"member;range=0", valueRange{"member", -1, -1}, true},
		{"member;range=0-x", valueRange{"member", -1, -1}, true},
		{"member;range=0--5", valueRange{"member", -1, -1}, true},
		{"member;range=0-5x", valueRange{"member", -1, -1}, true},
		{"member;range=*-5", valueRange{"member", -1, -1}, true},
	} {
		if got, ok := parseRange(tc.in); got != tc.want || ok != tc.ok {
			t.Errorf("parseRange(%q) = %+v, %v; want %+v, %v", tc.in, got, ok, tc.want, tc.ok)
		}
	}
}
