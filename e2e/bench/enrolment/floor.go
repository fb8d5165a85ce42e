package main

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"time"
)

// processor is the time that this process has used on all processors.
func processor() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("asking for the processor time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// operation is a kind of asymmetric operation of the controller, with the algorithms that it uses by default.
type operation int

const (
	// exchange is the server's part of X25519MLKEM768: a key pair and a shared secret of X25519, and an encapsulation to the
	// client's key of ML-KEM-768.
	exchange operation = iota
	// sign and verify are ECDSA on P-256 with SHA-256.
	sign
	verify
)

// A part is an operation that one certificate needs, and how often.
type part struct {
	what  string
	kind  operation
	times int
}

// joinParts are those of a machine that joins with a token, over one TLS connection.
var joinParts = []part{
	{"key exchange of TLS, X25519 with ML-KEM-768", exchange, 1},
	{"signature of TLS", sign, 1},
	{"verify the signature of the request", verify, 1},
	{"sign the certificate", sign, 1},
	{"verify that signature before it is given away", verify, 1},
}

// renewParts are those of a machine that renews its certificate, over one connection of mutual TLS.
var renewParts = append(joinParts[:len(joinParts):len(joinParts)],
	part{"verify the machine's signature of TLS", verify, 1},
	part{"verify the machine's certificate and its issuer's", verify, 2},
)

// A floor is what each kind of operation costs.
type floor [verify + 1]time.Duration

// of adds parts up.
func (f floor) of(parts []part) time.Duration {
	var sum time.Duration
	for _, p := range parts {
		sum += time.Duration(p.times) * f[p.kind]
	}
	return sum
}

// mean is that of two measurements.
func mean(a, b floor) floor {
	for i := range a {
		a[i] = (a[i] + b[i]) / 2
	}
	return a
}

var errSignature = errors.New("a signature of this process does not verify")

// measureFloor runs every operation by itself, on one thread.
func measureFloor() (floor, error) {
	const rounds = 500
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return floor{}, err
	}
	digest := sha256.Sum256([]byte("request"))
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		return floor{}, err
	}
	client, err := newClientShares()
	if err != nil {
		return floor{}, err
	}
	var f floor
	for kind, do := range map[operation]func() error{
		exchange: client.answer,
		sign: func() error {
			_, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
			return err
		},
		verify: func() error {
			if !ecdsa.VerifyASN1(&key.PublicKey, digest[:], signature) {
				return errSignature
			}
			return nil
		},
	} {
		start, err := processor()
		if err != nil {
			return floor{}, err
		}
		for range rounds {
			if err := do(); err != nil {
				return floor{}, err
			}
		}
		end, err := processor()
		if err != nil {
			return floor{}, err
		}
		f[kind] = (end - start) / rounds
	}
	return f, nil
}

// clientShares are what a client sends of both key exchanges.
type clientShares struct {
	x25519 []byte
	mlkem  []byte
}

func newClientShares() (clientShares, error) {
	x, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return clientShares{}, err
	}
	m, err := mlkem.GenerateKey768()
	if err != nil {
		return clientShares{}, err
	}
	return clientShares{x.PublicKey().Bytes(), m.EncapsulationKey().Bytes()}, nil
}

// answer is what a server does with them.
func (c clientShares) answer() error {
	own, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	peer, err := ecdh.X25519().NewPublicKey(c.x25519)
	if err != nil {
		return err
	}
	if _, err := own.ECDH(peer); err != nil {
		return err
	}
	to, err := mlkem.NewEncapsulationKey768(c.mlkem)
	if err != nil {
		return err
	}
	to.Encapsulate()
	return nil
}
