package preshared

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/policies/spd"
)

func TestKeysAreBounded(t *testing.T) {
	for _, tt := range []struct {
		text string
		kind Kind
		want int // octets, 0 for an error
	}{
		{strings.Repeat("x", MinLength), PSK, MinLength},
		{strings.Repeat("x", MinLength) + " \t\r\n\n", PSK, MinLength},
		{" " + strings.Repeat("x", MinLength), PSK, MinLength + 1},
		{strings.Repeat("x", MinLength-1) + "   ", PSK, 0},
		{strings.Repeat("x", MinPPK-1), PPK, 0},
		{strings.Repeat("x", MinPPK), PPK, MinPPK},
		{strings.Repeat("x", MaxLength), PSK, MaxLength},
		{strings.Repeat("x", MaxLength+1), PSK, 0},
		{"", PSK, 0},
	} {
		key, err := ParseKey([]byte(tt.text), tt.kind)
		if key.Len() != tt.want || (err == nil) != (tt.want > 0) || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%d octets as %v: %d octets, error %v; wanted %d", len(tt.text), tt.kind, key.Len(), err, tt.want)
		}
	}
}

func TestKeysNeverPrint(t *testing.T) {
	const text = "do not print this key"
	key, err := ParseKey([]byte(text), PSK)
	if err != nil {
		t.Fatal(err)
	}
	hidden := []struct{ key Key }{{key}}
	inJSON, err := json.Marshal(map[string]any{"k": key, "s": struct{ K Key }{key}})
	if err != nil {
		t.Fatal(err)
	}
	for _, printed := range []string{
		fmt.Sprint(key), fmt.Sprintf("%s %v %+v %#v %q %x %d", key, key, key, key, key, key, key), fmt.Sprintf("%+v", []Key{key}),
		fmt.Sprintf("%v %+v %#v", hidden, hidden, hidden) + redacted, string(inJSON),
	} {
		if strings.Contains(printed, "print") || strings.Contains(printed, fmt.Sprintf("%x", text)) || strings.Contains(printed, strings.Trim(fmt.Sprintf("%d", []byte(text)), "[]")) || !strings.Contains(printed, redacted) {
			t.Errorf("printed as %s", printed)
		}
	}
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "Branch_1.psk-2": true, strings.Repeat("x", maxName): true,
		"": false, strings.Repeat("x", maxName+1): false, "../x": false, ".x": false, "a/b": false, "a b": false, "ä": false, "a\x00": false,
	} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("name %q: %v", name, err)
		}
	}
}

func TestUsesAndTheirMachines(t *testing.T) {
	psk := func(name string) spd.Auth { return spd.Auth{Method: spd.AuthPSK, Secret: name} }
	branch := spd.Policy{
		Rules: []spd.Rule{
			{Auth: []spd.Auth{{Method: spd.AuthCertificate, PPK: "quantum"}, psk("branch")}},
			{Auth: []spd.Auth{psk("branch"), psk("quantum")}},
		},
		DefaultResponse: spd.DefaultResponse{Auth: []spd.Auth{psk("default")}},
	}
	want := []Use{{"branch", PSK}, {"default", PSK}, {"quantum", PSK}, {"quantum", PPK}}
	if got := Uses(branch); !reflect.DeepEqual(got, want) {
		t.Errorf("uses are %v, wanted %v", got, want)
	}
	all := map[string]spd.Policy{"a": branch, "b": {Rules: branch.Rules[1:]}, "c": {}}
	counted := Count(map[string]int{"a": 2, "b": 3, "c": 9}, func(p string) []Use { return Uses(all[p]) })
	if wanted := map[Use]int{{"branch", PSK}: 5, {"default", PSK}: 2, {"quantum", PSK}: 5, {"quantum", PPK}: 2}; !reflect.DeepEqual(counted, wanted) {
		t.Errorf("machines are %v, wanted %v", counted, wanted)
	}
}
