package controller

import (
	"errors"
	"testing"
)

// FuzzConfig reads any octets as the configuration of a controller, and checks what is read. Errors wrap ErrConfig.
func FuzzConfig(f *testing.F) {
	f.Add([]byte("stateDir: /srv/bailiwick\ntrustDomain: Bank.Example\nlisten: [\"0.0.0.0:7443\"]\ndirectory:\n  ldif: {path: /etc/bank.ldif}\n"))
	f.Add([]byte("directory:\n  ldap: {url: 'ldaps://ldap.bank.example', base: 'dc=bank,dc=example', interval: 10s}\n  guard: {share: 0.05, floor: 3}\n"))
	f.Add([]byte("store:\n  endpoints: [\"https://etcd1:2379\"]\n  caFile: /etc/etcd-ca.pem\nca:\n  keyFile: /etc/ca.secret\nreportInterval: 15s\n"))
	f.Add([]byte("unknown: 1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseConfig("controller.yaml", text)
		if err == nil {
			_, err = c.validate()
		}
		if err != nil && !errors.Is(err, ErrConfig) {
			t.Fatalf("%q gives %v, which does not wrap ErrConfig", text, err)
		}
	})
}
