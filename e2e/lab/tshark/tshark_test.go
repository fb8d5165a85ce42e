package tshark

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gopacket/gopacket/pcapgo"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
)

const (
	sessionKeys = "testdata/session.keys"
	espCount    = 12
	ikeCount    = 16 // without IKE_SA_INIT
)

// session is a recorded session of two strongSwan daemons: AES-GCM, a ping, a rekey of each kind.
func session(t *testing.T) []lab.Frame {
	t.Helper()
	f, err := os.Open("testdata/session.pcap")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var frames []lab.Frame
	for {
		data, info, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return frames
		}
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, lab.Frame{Time: info.Timestamp, Data: data})
	}
}

func TestKeysOpenARecordedSession(t *testing.T) {
	right, err := ReadKeys(sessionKeys)
	if err != nil {
		t.Fatal(err)
	}
	// One bit of every ESP key, and of every IKE key of the initiator, is another one.
	wrong := make(Keys, len(right))
	for i, line := range right {
		wrong[i] = strings.NewReplacer(",319d", ",309d", `"0x666f`, `"0x676f`).Replace(line)
	}
	for _, c := range []struct {
		name      string
		keys      Keys
		esp, good int
		ike       int
	}{
		{"right keys", right, espCount, espCount, ikeCount},
		{"no keys", nil, espCount, 0, 0},
	} {
		frames := session(t)
		esp, err := Run(t.Context(), Query{Frames: frames, Keys: c.keys, Filter: "esp", Fields: []string{"esp.icv_good"}})
		if err != nil {
			t.Fatal(err)
		}
		good := 0
		for _, p := range esp {
			if len(p[0]) == 1 && p[0][0] == "1" {
				good++
			}
		}
		if len(esp) != c.esp || good != c.good {
			t.Errorf("%s: %d ESP packets, %d of them good; want %d and %d", c.name, len(esp), good, c.esp, c.good)
		}
		ike, err := Run(t.Context(), Query{Frames: frames, Keys: c.keys, Filter: "isakmp.enc.decrypted", Fields: []string{"frame.number"}})
		if err != nil {
			t.Fatal(err)
		}
		if len(ike) != c.ike {
			t.Errorf("%s: %d IKE messages are decrypted, want %d", c.name, len(ike), c.ike)
		}
	}
	// A judge that is content with wrong keys is none.
	bad, err := Run(t.Context(), Query{
		Frames: session(t), Keys: wrong, Filter: "isakmp.ikev2.integrity_checksum || esp.icv_bad == 1", Fields: []string{"esp.icv_bad"},
	})
	if err != nil {
		t.Fatal(err)
	}
	ikeBad, espBad := 0, 0
	for _, p := range bad {
		if len(p[0]) > 0 {
			espBad++
		} else {
			ikeBad++
		}
	}
	if ikeBad == 0 || espBad == 0 {
		t.Errorf("with wrong keys tshark complains about %d IKE messages and %d ESP packets, want both", ikeBad, espBad)
	}
}

func TestReadKeys(t *testing.T) {
	once, err := ReadKeys(sessionKeys)
	if err != nil {
		t.Fatal(err)
	}
	twice, err := ReadKeys(sessionKeys, sessionKeys)
	if err != nil || len(twice) != len(once) {
		t.Errorf("both ends' logs of the same SAs give %d keys, %v; want %d", len(twice), err, len(once))
	}
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, []byte(once[0]+"\n--help\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKeys(path); !errors.Is(err, ErrKeyLog) || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a line that is no key gives %v, want %v with its line", err, ErrKeyLog)
	}
	if _, err := ReadKeys(path + "-of-nobody"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there gives %v", err)
	}
}

func TestUnknownFieldsAndFiltersAreErrors(t *testing.T) {
	for _, q := range []Query{
		{Filter: "no.such.protocol == 1", Fields: []string{"frame.number"}},
		{Fields: []string{"no.such.field"}},
		{Keys: Keys{"uat:esp_sa:nonsense"}, Fields: []string{"frame.number"}},
	} {
		q.Frames = session(t)
		if packets, err := Run(t.Context(), q); err == nil {
			t.Errorf("%+v gives %v and no error", q, packets)
		}
	}
}

func TestHolding(t *testing.T) {
	frames := []lab.Frame{{Data: []byte("nothing")}, {Data: []byte("with the secret in it")}}
	if found := Holding(frames, []byte("secret")); len(found) != 1 || !bytes.Equal(found[0].Data, frames[1].Data) {
		t.Errorf("found %v, want the second frame", found)
	}
}
