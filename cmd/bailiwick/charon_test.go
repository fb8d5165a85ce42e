package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
)

// loadPKCS12 starts a strongSwan of its own, lets it load a PKCS #12 file, and returns the certificates that it then has.
func loadPKCS12(file []byte, password string) (listed string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l, err := lab.New("bwenrol-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	host, err := l.Host("peer")
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "bwp12-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	d, err := charon.Start(ctx, charon.Config{
		Host: host, Dir: dir, Load: "pkcs7 pkcs12",
		Files:    map[string][]byte{"pkcs12/peer.p12": file},
		Sections: "secrets {\n  pkcs12-peer {\n    file = peer.p12\n    secret = \"" + password + "\"\n  }\n}\n",
	})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, d.Stop()) }()
	return d.Swanctl(ctx, "--list-certs")
}
