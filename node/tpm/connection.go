package tpm

import (
	"bytes"
	"crypto/elliptic"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"
)

// connection is an open TPM, with what this process has loaded there: one storage key, one session that is salted with it,
// and one key that signs, because a TPM has room for few.
type connection struct {
	tpm     transport.TPMCloser
	storage storageKey
	session tpm2.Session
	end     func() error // of the session
	loaded  loadedKey
}

type storageKey struct {
	handle    tpm2.TPMHandle
	parent    tpm2.TPMHandle // what a key file calls it
	name      []byte
	transient bool
}

type loadedKey struct {
	handle tpm2.TPMHandle
	name   []byte // empty where none is loaded
}

// storageHandle is where a storage key is kept (TCG TPM v2.0 Provisioning Guidance 7.8).
const storageHandle tpm2.TPMHandle = 0x81000001

func connect(path string) (*connection, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	open := linuxtpm.Open
	if info.Mode()&fs.ModeSocket != 0 {
		open = linuxudstpm.Open
	}
	tpm, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return &connection{tpm: tpm}, nil
}

func (c *connection) close() error {
	err := c.unload()
	return errors.Join(err, c.leaveStorage(), c.tpm.Close())
}

func (c *connection) flush(handle tpm2.TPMHandle) error {
	_, err := tpm2.FlushContext{FlushHandle: handle}.Execute(c.tpm)
	return err
}

func (c *connection) unload() error {
	l := c.loaded
	c.loaded = loadedKey{}
	if len(l.name) == 0 {
		return nil
	}
	return c.flush(l.handle)
}

func (c *connection) leaveStorage() (err error) {
	if c.session != nil {
		err = c.end()
	}
	if c.storage.transient {
		err = errors.Join(err, c.flush(c.storage.handle))
	}
	c.session, c.storage = nil, storageKey{}
	return err
}

// evict frees what a process before this one has left in a TPM without a resource manager. Behind one, nothing of others is
// to be seen.
func (c *connection) evict() {
	for _, first := range []tpm2.TPMHandle{0x80000000, 0x02000000} { // transient objects, HMAC sessions (TPM 2.0 Part 2, 7.2)
		answer, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: uint32(first), PropertyCount: 64}.Execute(c.tpm)
		if err != nil {
			return // the attempt that follows tells
		}
		handles, err := answer.CapabilityData.Data.Handles()
		if err != nil {
			return
		}
		for _, handle := range handles.Handle {
			_ = c.flush(handle) // one that is gone already needs no freeing
		}
	}
	c.loaded, c.session, c.storage = loadedKey{}, nil, storageKey{}
}

// use makes the storage key of this name ready, with a session; without a name, the one for new keys: that which every TPM
// makes from its seed by the TCG's template, or, where the owner has set a password, the one that he keeps.
func (c *connection) use(name []byte) error {
	if c.session != nil && (name == nil || bytes.Equal(name, c.storage.name)) {
		return nil
	}
	if err := errors.Join(c.unload(), c.leaveStorage()); err != nil {
		return refused("free the storage key", err)
	}
	err := c.primary(name)
	if errors.Is(err, ErrPassword) {
		return c.kept(name)
	}
	if errors.Is(err, ErrOtherTPM) && c.kept(name) == nil {
		return nil
	}
	return err
}

// primary uses the storage key that follows from the TPM's seed.
func (c *connection) primary(name []byte) error {
	made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(c.tpm)
	switch {
	case errors.Is(err, tpm2.TPMRCBadAuth), errors.Is(err, tpm2.TPMRCAuthFail):
		return fmt.Errorf("make the storage key: %w: %w", ErrPassword, err)
	case err != nil:
		return refused("make the storage key", err)
	}
	key := storageKey{handle: made.ObjectHandle, parent: tpm2.TPMRHOwner, transient: true}
	return c.enter(key, &made.OutPublic, name)
}

// kept uses the storage key that the owner keeps.
func (c *connection) kept(name []byte) error {
	read, err := tpm2.ReadPublic{ObjectHandle: storageHandle}.Execute(c.tpm)
	switch {
	case errors.Is(err, tpm2.TPMRCHandle):
		return fmt.Errorf("use the storage key at %#x: %w: there is none", uint32(storageHandle), ErrPassword)
	case err != nil:
		return refused("read the storage key", err)
	}
	return c.enter(storageKey{handle: storageHandle, parent: storageHandle}, &read.OutPublic, name)
}

// enter starts the session that is salted with the storage key: what the TPM answers under it comes from whoever has that
// key, and not from between.
func (c *connection) enter(key storageKey, public *tpm2.TPM2BPublic, want []byte) error {
	c.storage = key
	area, err := public.Contents()
	if err != nil {
		return errors.Join(fmt.Errorf("read the storage key: %w", err), c.leaveStorage())
	}
	name, err := tpm2.ObjectName(area)
	if err != nil {
		return errors.Join(fmt.Errorf("name the storage key: %w", err), c.leaveStorage())
	}
	c.storage.name = name.Buffer
	if want != nil && !bytes.Equal(want, name.Buffer) {
		return errors.Join(ErrOtherTPM, c.leaveStorage())
	}
	a := area.ObjectAttributes
	if !a.FixedTPM || !a.FixedParent || !a.Restricted || !a.Decrypt || a.SignEncrypt {
		return errors.Join(fmt.Errorf("use the key at %#x: %w, and that is no storage key", uint32(key.handle), ErrPassword), c.leaveStorage())
	}
	session, end, err := tpm2.HMACSession(c.tpm, tpm2.TPMAlgSHA256, 16, tpm2.Salted(key.handle, *area))
	if err != nil {
		return errors.Join(refused("start a session", err), c.leaveStorage())
	}
	c.session, c.end = session, end
	return nil
}

// parent authorizes the use of the storage key.
func (c *connection) parent() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: c.storage.handle, Name: tpm2.TPM2BName{Buffer: c.storage.name}, Auth: c.session}
}

// create makes a key under the storage key for new ones, and returns it with that one's name. It has no password, which would
// have to lie beside it, and so none to be guessed: a TPM that is locked after wrong guesses still signs with it.
func (c *connection) create(curve elliptic.Curve) (blob, []byte, error) {
	if err := c.use(nil); err != nil {
		return blob{}, nil, err
	}
	template, err := template(curve)
	if err != nil {
		return blob{}, nil, err
	}
	made, err := tpm2.Create{ParentHandle: c.parent(), InPublic: tpm2.New2B(template)}.Execute(c.tpm)
	if errors.Is(err, tpm2.TPMRCCurve) || errors.Is(err, tpm2.TPMRCValue) || errors.Is(err, tpm2.TPMRCHash) {
		return blob{}, nil, fmt.Errorf("this TPM makes no keys on %s: %w: %w; set another identity.algorithm", curve.Params().Name, ErrFormat, err)
	}
	if err != nil {
		return blob{}, nil, refused("make a key", err)
	}
	return blob{parent: c.storage.parent, public: made.OutPublic.Bytes(), private: made.OutPrivate.Buffer}, c.storage.name, nil
}

func template(curve elliptic.Curve) (tpm2.TPMTPublic, error) {
	for id, known := range curves {
		if known != curve {
			continue
		}
		return tpm2.TPMTPublic{
			Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, SignEncrypt: true},
			Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
				Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull},
				Scheme:    tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgNull},
				CurveID:   id,
				KDF:       tpm2.TPMTKDFScheme{Scheme: tpm2.TPMAlgNull},
			}),
			Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}),
		}, nil
	}
	return tpm2.TPMTPublic{}, fmt.Errorf("make a key on %s: %w", curve.Params().Name, ErrFormat)
}

// load makes the key ready to sign.
func (c *connection) load(k *Key) (tpm2.TPMHandle, error) {
	if len(c.loaded.name) > 0 && bytes.Equal(c.loaded.name, k.name) {
		return c.loaded.handle, nil
	}
	if err := c.use(k.storage); err != nil {
		return 0, err
	}
	if err := c.unload(); err != nil {
		return 0, refused("make room for a key", err)
	}
	loaded, err := tpm2.Load{
		ParentHandle: c.parent(),
		InPrivate:    tpm2.TPM2BPrivate{Buffer: k.blob.private},
		InPublic:     tpm2.BytesAs2B[tpm2.TPMTPublic](k.blob.public),
	}.Execute(c.tpm)
	// The storage key is the right one, so it is the blob that is wrong (TPM 2.0 Part 3, 12.2).
	for _, code := range []tpm2.TPMRC{tpm2.TPMRCIntegrity, tpm2.TPMRCSensitive, tpm2.TPMRCBinding, tpm2.TPMRCSize, tpm2.TPMRCInsufficient, tpm2.TPMRCAttributes, tpm2.TPMRCKey, tpm2.TPMRCECCPoint} {
		if errors.Is(err, code) {
			return 0, fmt.Errorf("load the machine key: %w: %w", ErrDamaged, err)
		}
	}
	if err != nil {
		return 0, refused("load the machine key", err)
	}
	c.loaded = loadedKey{handle: loaded.ObjectHandle, name: k.name}
	return loaded.ObjectHandle, nil
}

func (c *connection) sign(handle tpm2.TPMHandle, k *Key, digest []byte) (*tpm2.TPMSSignatureECC, error) {
	hash := tpm2.TPMAlgSHA256
	if k.public.Curve == elliptic.P384() {
		hash = tpm2.TPMAlgSHA384
	}
	answer, err := tpm2.Sign{
		KeyHandle:  tpm2.AuthHandle{Handle: handle, Name: tpm2.TPM2BName{Buffer: k.name}, Auth: c.session},
		Digest:     tpm2.TPM2BDigest{Buffer: fit(digest, k.public.Curve)},
		InScheme:   tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: hash})},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
	}.Execute(c.tpm)
	if err != nil {
		return nil, refused("sign", err)
	}
	signature, err := answer.Signature.Signature.ECDSA()
	if err != nil {
		return nil, fmt.Errorf("read the signature: %w: %w", ErrUnavailable, err)
	}
	return signature, nil
}

func integer(p tpm2.TPM2BECCParameter) *big.Int { return new(big.Int).SetBytes(p.Buffer) }

// refused is the error of a command that the TPM did not carry out, or that did not reach it.
func refused(what string, err error) error {
	if errors.Is(err, tpm2.TPMRCLockout) {
		return fmt.Errorf("%s: %w: %w", what, ErrLockout, err)
	}
	return fmt.Errorf("%s: %w: %w", what, ErrUnavailable, err)
}
