package ikeload

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"runtime"
	"slices"
	"time"
)

// Floor is what the primitives of a handshake cost alone, for one call each, in this process at this moment.
type Floor struct {
	X25519Generate, X25519Agree       time.Duration
	ECDSASign, ECDSAVerify            time.Duration // P-256
	RSASign, RSAVerify                time.Duration // 2048 bits
	KEMGenerate, KEMEncaps, KEMDecaps time.Duration // ML-KEM-768
}

// MeasureFloor runs each primitive on one locked thread and counts its processor time: the median of several rounds.
func MeasureFloor() (Floor, error) {
	var f Floor
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return f, fmt.Errorf("floor of X25519: %w", err)
	}
	public := private.PublicKey()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return f, fmt.Errorf("floor of ECDSA: %w", err)
	}
	digest := sha256.Sum256([]byte("floor"))
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		return f, fmt.Errorf("floor of ECDSA: %w", err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return f, fmt.Errorf("floor of RSA: %w", err)
	}
	pss := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	rsaSignature, err := rsa.SignPSS(rand.Reader, rsaKey, crypto.SHA256, digest[:], pss)
	if err != nil {
		return f, fmt.Errorf("floor of RSA: %w", err)
	}
	kem, err := mlkem.GenerateKey768()
	if err != nil {
		return f, fmt.Errorf("floor of ML-KEM: %w", err)
	}
	_, ciphertext := kem.EncapsulationKey().Encapsulate()
	for _, p := range []struct {
		cost  *time.Duration
		calls int
		call  func() error
	}{
		{&f.X25519Generate, 100, func() error { _, err := ecdh.X25519().GenerateKey(rand.Reader); return err }},
		{&f.X25519Agree, 100, func() error { _, err := private.ECDH(public); return err }},
		{&f.ECDSASign, 100, func() error { _, err := ecdsa.SignASN1(rand.Reader, key, digest[:]); return err }},
		{&f.ECDSAVerify, 100, func() error {
			if !ecdsa.VerifyASN1(&key.PublicKey, digest[:], signature) {
				return rsa.ErrVerification
			}
			return nil
		}},
		{&f.RSASign, 10, func() error { _, err := rsa.SignPSS(rand.Reader, rsaKey, crypto.SHA256, digest[:], pss); return err }},
		{&f.RSAVerify, 100, func() error {
			return rsa.VerifyPSS(&rsaKey.PublicKey, crypto.SHA256, digest[:], rsaSignature, pss)
		}},
		{&f.KEMGenerate, 100, func() error { _, err := mlkem.GenerateKey768(); return err }},
		{&f.KEMEncaps, 100, func() error { kem.EncapsulationKey().Encapsulate(); return nil }},
		{&f.KEMDecaps, 100, func() error { _, err := kem.Decapsulate(ciphertext); return err }},
	} {
		if *p.cost, err = medianCost(p.calls, p.call); err != nil {
			return f, err
		}
	}
	return f, nil
}

// medianCost is the processor time of one call, the median of rounds of so many.
func medianCost(calls int, call func() error) (time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var costs []time.Duration
	for range 7 {
		before, err := threadCPU()
		if err != nil {
			return 0, err
		}
		for range calls {
			if err := call(); err != nil {
				return 0, fmt.Errorf("measure a primitive: %w", err)
			}
		}
		after, err := threadCPU()
		if err != nil {
			return 0, err
		}
		costs = append(costs, (after-before)/time.Duration(calls))
	}
	slices.Sort(costs)
	return costs[len(costs)/2], nil
}

// Handshake is the floor of one handshake, both ends together: key exchanges, signatures, and with chains the signatures
// of the two leaves. chain tells that they are verified.
func (f Floor) Handshake(method Method, kind KeyKind, chain, kem bool) time.Duration {
	total := 2 * (f.X25519Generate + f.X25519Agree)
	if kem {
		total += f.KEMGenerate + f.KEMEncaps + f.KEMDecaps
	}
	if method != MethodCertificate {
		return total
	}
	sign, verify := f.ECDSASign, f.ECDSAVerify
	if kind == KeyRSA {
		sign, verify = f.RSASign, f.RSAVerify
	}
	total += 2 * (sign + verify)
	if chain {
		total += 2 * verify
	}
	return total
}

// Mean is the mean of two floors, measured before and after.
func (f Floor) Mean(o Floor) Floor {
	mean := func(a, b time.Duration) time.Duration { return (a + b) / 2 }
	return Floor{
		X25519Generate: mean(f.X25519Generate, o.X25519Generate), X25519Agree: mean(f.X25519Agree, o.X25519Agree),
		ECDSASign: mean(f.ECDSASign, o.ECDSASign), ECDSAVerify: mean(f.ECDSAVerify, o.ECDSAVerify),
		RSASign: mean(f.RSASign, o.RSASign), RSAVerify: mean(f.RSAVerify, o.RSAVerify),
		KEMGenerate: mean(f.KEMGenerate, o.KEMGenerate), KEMEncaps: mean(f.KEMEncaps, o.KEMEncaps),
		KEMDecaps: mean(f.KEMDecaps, o.KEMDecaps),
	}
}
