package node

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// FuzzStoredDenials reads any octets as the file of those who are not believed.
func FuzzStoredDenials(f *testing.F) {
	set, err := trust.NewDenials([]pki.UUID{{1}, {2}}, trust.Revocations{})
	if err != nil {
		f.Fatal(err)
	}
	der, err := set.Append(nil)
	if err != nil {
		f.Fatal(err)
	}
	content, err := json.Marshal(storedDenials{Heard: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), Content: der})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content)
	f.Add([]byte(`{"heard":"2030-01-01T00:00:00Z"}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		set, _, err := parseDenials(content)
		if err != nil {
			return
		}
		if _, err := set.Append(nil); err != nil {
			t.Fatalf("%q is accepted, and cannot be written: %v", content, err)
		}
	})
}

// FuzzConfig reads any octets as the configuration of a node. What is accepted has every choice made.
func FuzzConfig(f *testing.F) {
	f.Add([]byte("stateDir: /var/lib/bailiwick/node\nencapsulation: nat\nonStop: release\nlogLevel: debug\nlogFormat: json\n"))
	f.Add([]byte("policy: /etc/bailiwick/policy.yaml\npolicyName: Server\ndevice: bw0\nauditFile: /var/log/bailiwick/audit.json\n"))
	f.Add([]byte("unknown: 1\n"))
	f.Add([]byte("stateDir: &a /x\nsocket: *a\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		c, err := parseConfig("node.yaml", content)
		if err != nil {
			return
		}
		if c, err = c.validated(); err != nil {
			return
		}
		if c.StateDir == "" || c.Socket == "" || c.SecretsDir == "" || (c.OnStop != "block" && c.OnStop != "release") ||
			(c.Encapsulation != "always" && c.Encapsulation != "nat") {
			t.Fatalf("%q is read as %+v", content, c)
		}
	})
}
