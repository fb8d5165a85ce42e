//go:build !amd64 || purego

package aesgcm

import "crypto/cipher"

func vectorAvailable() bool { return false }

// newVector is never called.
func newVector(key []byte) cipher.AEAD { panic("aesgcm: no vector implementation in this build") }
