package node

import (
	"slices"
	"strings"
	"testing"
)

// TestRemoteAccessInterfaces: names that cannot be meant are refused, and an empty list is not the default.
func TestRemoteAccessInterfaces(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []string
		err  string
	}{
		{"stateDir: /x", DefaultRemoteAccess(), ""},
		{"remoteAccessInterfaces: []", []string{}, ""},
		{"remoteAccessInterfaces: [ppp*, eth1]", []string{"ppp*", "eth1"}, ""},
		{"remoteAccessInterfaces: ['eth 1']", nil, `remoteAccessInterfaces: "eth 1" is no name of an interface`},
		{"remoteAccessInterfaces: ['']", nil, `"" is no name`},
	} {
		c, err := parseConfig("node.yaml", []byte(tt.text))
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.validated()
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: error %v, want %q", tt.text, err, tt.err)
			}
			continue
		}
		if err != nil || !slices.Equal(got.RemoteAccessInterfaces, tt.want) {
			t.Errorf("%s: %v, %v, want %v", tt.text, got.RemoteAccessInterfaces, err, tt.want)
		}
	}
}
