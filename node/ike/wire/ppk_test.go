package wire

import (
	"bytes"
	"testing"
)

func TestPPKID(t *testing.T) {
	good := []byte("\x02ppk.test") // as strongSwan 5.9.8 sends it
	p, err := ParsePPKID(good)
	if err != nil || p.Type != PPKIDFixed || string(p.Data) != "ppk.test" || !bytes.Equal(p.Append(nil), good) {
		t.Errorf("read %+v, %v", p, err)
	}
	for name, data := range map[string][]byte{"empty": nil, "only a type": {2}, "too long": make([]byte, 257)} {
		if _, err := ParsePPKID(data); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
