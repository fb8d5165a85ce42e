package node

import (
	"crypto/elliptic"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/node/tpm"
)

func TestIdentityConfig(t *testing.T) {
	for _, tt := range []struct {
		text   string
		place  identity.Place
		curve  elliptic.Curve
		device string
		err    string
	}{
		{"stateDir: /x", identity.InFile, elliptic.P256(), tpm.DefaultDevice, ""},
		{"identity: {key: tpm}", identity.InTPM, elliptic.P256(), tpm.DefaultDevice, ""},
		{"identity: {key: auto, device: /dev/tpm0, algorithm: ecdsa-p384}", identity.Auto, elliptic.P384(), "/dev/tpm0", ""},
		{"identity: {key: file, algorithm: ecdsa-p384}", identity.InFile, elliptic.P384(), tpm.DefaultDevice, ""},
		{"identity: {key: card}", 0, nil, "", `identity.key is "card", want one of file, tpm, auto`},
		{"identity: {algorithm: rsa-3072}", 0, nil, "", `identity.algorithm is "rsa-3072", want one of ecdsa-p256, ecdsa-p384`},
	} {
		c, err := parseConfig("node.yaml", []byte(tt.text))
		if err != nil {
			t.Fatal(err)
		}
		c, err = c.validated()
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: error %v, want %q", tt.text, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		if keys := c.Identity.keys(); keys.Place != tt.place || keys.Curve != tt.curve || keys.TPM.Path() != tt.device {
			t.Errorf("%s: keys are made in %v at %s on %s", tt.text, keys.Place, keys.TPM.Path(), keys.Curve.Params().Name)
		}
	}
}
