//go:build cgo

package pkcs11

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/miekg/pkcs11"
	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
)

// Module is a loaded module with a session at one token. It is safe for concurrent use; signatures are made one after the
// other.
type Module struct {
	config Config
	// turn has room for one: whoever put something in owns guarded. A call of the module that hangs keeps its turn.
	turn    chan struct{}
	guarded struct {
		module  *pkcs11.Ctx
		session pkcs11.SessionHandle
		open    bool
		// refused is what the token said to the PIN; nil while it did not refuse it.
		refused error
	}
}

// Load loads a module and opens a session at the token. Errors wrap ErrNoModule or ErrToken.
func Load(c Config) (*Module, error) {
	if c.Module == "" || c.Token == "" {
		return nil, fmt.Errorf("the path of a module and the label of a token are both needed: %w", ErrNoModule)
	}
	m := &Module{config: c, turn: make(chan struct{}, 1)}
	m.guarded.module = pkcs11.New(c.Module)
	if m.guarded.module == nil {
		return nil, fmt.Errorf("loading %s: it is not there, or no PKCS #11 module: %w", c.Module, ErrNoModule)
	}
	if err := m.guarded.module.Initialize(); err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)) {
		m.guarded.module.Destroy()
		return nil, fmt.Errorf("initializing %s: %w: %w", c.Module, ErrNoModule, err)
	}
	if err := m.loginLocked(); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// loginLocked opens a session at the token with the label. Once the token refused the PIN it does nothing: each attempt counts,
// and whatever asks for signatures would lock the token within seconds.
func (m *Module) loginLocked() error {
	if m.guarded.refused != nil {
		return m.guarded.refused
	}
	module := m.guarded.module
	present, err := module.GetSlotList(true)
	if err != nil {
		return fmt.Errorf("listing the tokens of %s: %w: %w", m.config.Module, ErrToken, err)
	}
	var found []uint
	var flags uint
	var labels []string
	for _, slot := range present {
		info, err := module.GetTokenInfo(slot)
		if err != nil {
			continue // a reader whose token was taken out meanwhile
		}
		label := strings.TrimRight(info.Label, " \x00")
		labels = append(labels, label)
		if label == m.config.Token {
			found, flags = append(found, slot), info.Flags
		}
	}
	if len(found) != 1 {
		return fmt.Errorf("%d tokens have the label %q, there are %q: %w", len(found), m.config.Token, labels, ErrToken)
	}
	if err := mayLogIn(flags); err != nil {
		return fmt.Errorf("logging in at the token %q: %w: %w", m.config.Token, ErrToken, err)
	}
	session, err := module.OpenSession(found[0], pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return fmt.Errorf("opening a session at the token %q: %w: %w", m.config.Token, ErrToken, err)
	}
	err = module.Login(session, pkcs11.CKU_USER, string(m.config.PIN))
	if err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN)) {
		refused := isAny(err, refusals)
		err = fmt.Errorf("logging in at the token %q: %w: %w", m.config.Token, ErrToken, errors.Join(err, module.CloseSession(session)))
		if refused {
			err = fmt.Errorf("%w: %w: put the right one into the PIN file, and restart the controller", err, ErrPIN)
			m.guarded.refused = err
		}
		return err
	}
	m.guarded.session, m.guarded.open = session, true
	return nil
}

// refusals are what a token says to a PIN that it will not take the next time either.
var refusals = []pkcs11.Error{
	pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE, pkcs11.CKR_PIN_EXPIRED, pkcs11.CKR_PIN_LOCKED,
}

func isAny(err error, of []pkcs11.Error) bool {
	return slices.ContainsFunc(of, func(e pkcs11.Error) bool { return errors.Is(err, e) })
}

// mayLogIn refuses the last attempt that a token allows (PKCS #11 3.1, CK_TOKEN_INFO): a controller that is started again and again
// with a wrong PIN must not lock the token.
func mayLogIn(flags uint) error {
	switch {
	case flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
		return fmt.Errorf("the token locked itself after too many wrong PINs, unlock it with the PIN of its security officer: %w", ErrPIN)
	case flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
		return fmt.Errorf("one more wrong PIN would lock the token: log in by hand with the right one (pkcs11-tool --login --list-objects), and put it into the PIN file: %w", ErrPIN)
	}
	return nil
}

// gone are the errors after which a session is to be opened anew: the token was taken out, or the service restarted.
var gone = []pkcs11.Error{
	pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_DEVICE_REMOVED, pkcs11.CKR_TOKEN_NOT_PRESENT,
	pkcs11.CKR_USER_NOT_LOGGED_IN, pkcs11.CKR_DEVICE_ERROR,
}

// The bounds of a call, with the wait for what was asked before: a token over a network that vanished hangs in foreign code,
// which nothing can end. Smart cards make an RSA key in minutes.
const (
	patience   = 10 * time.Second
	generating = 5 * time.Minute
)

// with runs something in the session, again in a new one where that one is gone. It returns when ctx ends, or wraps
// ErrSilent when the bound is over, and leaves what runs alone then: run must give away nothing but what its caller reads
// after a success.
func (m *Module) with(ctx context.Context, bound time.Duration, run func(*pkcs11.Ctx, pkcs11.SessionHandle) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, bound, ErrSilent)
	defer cancel()
	select {
	case m.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("waiting for what was asked before: %w", context.Cause(ctx))
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-m.turn }()
		done <- m.withLocked(run)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// withLocked is with for whoever has the turn.
func (m *Module) withLocked(run func(*pkcs11.Ctx, pkcs11.SessionHandle) error) error {
	if m.guarded.module == nil {
		return fmt.Errorf("the module was closed: %w", ErrNoModule)
	}
	if m.guarded.open {
		err := run(m.guarded.module, m.guarded.session)
		if !isAny(err, gone) {
			return err
		}
		m.guarded.open = false
		_ = m.guarded.module.CloseSession(m.guarded.session) // it is gone
	}
	if err := m.loginLocked(); err != nil {
		return err
	}
	return run(m.guarded.module, m.guarded.session)
}

// label is what people see of a key in the token.
const label = "bailiwick issuing CA"

var (
	oidP256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
	oidP384 = asn1.ObjectIdentifier{1, 3, 132, 0, 34}
)

// Generate makes a key in the token and returns its URI. ECDSA on P-256 and P-384 and RSA are known to tokens; Ed25519 is
// to few, and refused. Errors wrap ErrKey or ErrToken.
func (m *Module) Generate(ctx context.Context, algorithm ca.Algorithm) (string, crypto.Signer, error) {
	n := name{token: m.config.Token, id: make([]byte, 16)}
	_, _ = rand.Read(n.id) // never fails
	mechanism, public, err := generation(algorithm)
	if err != nil {
		return "", nil, err
	}
	both := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_ID, n.id), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
	}
	private := append(slices.Clone(both),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false), pkcs11.NewAttribute(pkcs11.CKA_SIGN, true))
	public = append(public, append(both, pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true))...)
	err = m.with(ctx, generating, func(module *pkcs11.Ctx, session pkcs11.SessionHandle) error {
		_, _, err := module.GenerateKeyPair(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, public, private)
		return err
	})
	if err != nil {
		return "", nil, fmt.Errorf("making a key (%v) in the token %q: %w: %w", algorithm, m.config.Token, ErrToken, err)
	}
	key, err := m.Open(ctx, n.String())
	return n.String(), key, err
}

func generation(algorithm ca.Algorithm) (mechanism uint, public []*pkcs11.Attribute, err error) {
	curve := func(oid asn1.ObjectIdentifier) (uint, []*pkcs11.Attribute, error) {
		parameters, err := asn1.Marshal(oid)
		return pkcs11.CKM_EC_KEY_PAIR_GEN, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, parameters)}, err
	}
	modulus := func(bits int) (uint, []*pkcs11.Attribute, error) {
		return pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, bits), pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
		}, nil
	}
	switch algorithm {
	case ca.ECDSAP256, 0:
		return curve(oidP256)
	case ca.ECDSAP384:
		return curve(oidP384)
	case ca.RSA3072:
		return modulus(3072)
	case ca.RSA4096:
		return modulus(4096)
	case ca.Ed25519:
	}
	return 0, nil, fmt.Errorf("%v is not used with tokens, wanted ecdsa-p256, ecdsa-p384, rsa-3072 or rsa-4096: %w", algorithm, ErrKey)
}

// Open finds the key of a URI. Errors wrap ErrKey or ErrToken.
func (m *Module) Open(ctx context.Context, uri string) (crypto.Signer, error) {
	n, err := parseURI(uri)
	if err != nil {
		return nil, err
	}
	if n.token != m.config.Token {
		return nil, fmt.Errorf("%s is in another token than %q, which is configured: %w", uri, m.config.Token, ErrKey)
	}
	s := &signer{module: m, name: n}
	err = m.with(ctx, patience, func(module *pkcs11.Ctx, session pkcs11.SessionHandle) error {
		if _, err := find(module, session, n, pkcs11.CKO_PRIVATE_KEY); err != nil {
			return err
		}
		handle, err := find(module, session, n, pkcs11.CKO_PUBLIC_KEY)
		if err != nil {
			return err
		}
		s.public, err = publicKey(module, session, handle)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", uri, err)
	}
	if err := pki.CheckKey(s.public); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", uri, ErrKey, err)
	}
	return s, nil
}

// find wants exactly one object of the class.
func find(module *pkcs11.Ctx, session pkcs11.SessionHandle, n name, class uint) (pkcs11.ObjectHandle, error) {
	if err := module.FindObjectsInit(session, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class), pkcs11.NewAttribute(pkcs11.CKA_ID, n.id)}); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrToken, err)
	}
	found, _, err := module.FindObjects(session, 2)
	if err := errors.Join(err, module.FindObjectsFinal(session)); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrToken, err)
	}
	if len(found) != 1 {
		return 0, fmt.Errorf("the token has %d such keys, wanted one: %w", len(found), ErrKey)
	}
	return found[0], nil
}

func publicKey(module *pkcs11.Ctx, session pkcs11.SessionHandle, handle pkcs11.ObjectHandle) (crypto.PublicKey, error) {
	got, err := module.GetAttributeValue(session, handle, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, nil), pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, nil)})
	if err == nil {
		return ecdsaKey(got[0].Value, got[1].Value)
	}
	got, err = module.GetAttributeValue(session, handle, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_MODULUS, nil), pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, nil)})
	if err != nil {
		return nil, fmt.Errorf("it is neither an EC nor an RSA key: %w: %w", ErrKey, err)
	}
	exponent := new(big.Int).SetBytes(got[1].Value)
	if !exponent.IsInt64() || exponent.Int64() > 1<<31-1 {
		return nil, fmt.Errorf("RSA exponent of %d bits: %w", exponent.BitLen(), ErrKey)
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(got[0].Value), E: int(exponent.Int64())}, nil
}

// ecdsaKey reads CKA_EC_PARAMS, an object identifier, and CKA_EC_POINT, an OCTET STRING of the uncompressed point.
func ecdsaKey(parameters, point []byte) (crypto.PublicKey, error) {
	var oid asn1.ObjectIdentifier
	if rest, err := asn1.Unmarshal(parameters, &oid); err != nil || len(rest) != 0 {
		return nil, fmt.Errorf("its curve is not named: %w", ErrKey)
	}
	var curve elliptic.Curve
	switch {
	case oid.Equal(oidP256):
		curve = elliptic.P256()
	case oid.Equal(oidP384):
		curve = elliptic.P384()
	default:
		return nil, fmt.Errorf("it is on the curve %v: %w", oid, ErrKey)
	}
	var octets []byte
	if rest, err := asn1.Unmarshal(point, &octets); err != nil || len(rest) != 0 {
		octets = point // some tokens leave the OCTET STRING out
	}
	key, err := ecdsa.ParseUncompressedPublicKey(curve, octets)
	if err != nil {
		return nil, fmt.Errorf("its point: %w: %w", ErrKey, err)
	}
	return key, nil
}

// signer is a key in the token.
type signer struct {
	module *Module
	name   name
	public crypto.PublicKey
}

// Public implements crypto.Signer.
func (s *signer) Public() crypto.PublicKey { return s.public }

// prefixes are the DER of DigestInfo up to the digest (RFC 8017 9.2).
var prefixes = map[crypto.Hash][]byte{
	crypto.SHA256: {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20},
	crypto.SHA384: {0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0x04, 0x30},
	crypto.SHA512: {0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03, 0x05, 0x00, 0x04, 0x40},
}

// Sign implements crypto.Signer: ECDSA, or RSASSA-PKCS1-v1_5. The token is the source of randomness.
func (s *signer) Sign(_ io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	hash := o.HashFunc()
	if hash == 0 || len(digest) != hash.Size() {
		return nil, fmt.Errorf("signing a digest of %d octets with %v: %w", len(digest), hash, ErrKey)
	}
	mechanism, input := uint(pkcs11.CKM_ECDSA), digest
	if _, ok := s.public.(*rsa.PublicKey); ok {
		prefix, known := prefixes[hash]
		if _, pss := o.(*rsa.PSSOptions); pss || !known {
			return nil, fmt.Errorf("signing in the token with %v: wanted PKCS #1 v1.5 with SHA-2: %w", hash, ErrKey)
		}
		mechanism, input = pkcs11.CKM_RSA_PKCS, append(slices.Clone(prefix), digest...)
	}
	var signature []byte
	err := s.module.with(context.Background(), patience, func(module *pkcs11.Ctx, session pkcs11.SessionHandle) error {
		handle, err := find(module, session, s.name, pkcs11.CKO_PRIVATE_KEY)
		if err != nil {
			return err
		}
		if err := module.SignInit(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, handle); err != nil {
			return err
		}
		signature, err = module.Sign(session, input)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("signing in the token %q: %w: %w", s.name.token, ErrToken, err)
	}
	if mechanism == pkcs11.CKM_RSA_PKCS {
		return signature, nil
	}
	// A token gives r and s, each half of the octets; X.509 wants a sequence of them (RFC 3279 2.2.3).
	half := len(signature) / 2
	if half == 0 || len(signature)%2 != 0 {
		return nil, fmt.Errorf("the token %q made an ECDSA signature of %d octets: %w", s.name.token, len(signature), ErrToken)
	}
	var out cryptobyte.Builder
	out.AddASN1(cryptobyte_asn1.SEQUENCE, func(seq *cryptobyte.Builder) {
		seq.AddASN1BigInt(new(big.Int).SetBytes(signature[:half]))
		seq.AddASN1BigInt(new(big.Int).SetBytes(signature[half:]))
	})
	return out.Bytes()
}

// Close ends the session and unloads the module. The error wraps ErrSilent where a call of it hangs: it stays loaded then.
func (m *Module) Close() error {
	over := time.NewTimer(patience)
	defer over.Stop()
	select {
	case m.turn <- struct{}{}:
		defer func() { <-m.turn }()
	case <-over.C:
		return fmt.Errorf("closing the PKCS #11 module: %w", ErrSilent)
	}
	if m.guarded.module == nil {
		return nil
	}
	err := m.guarded.module.Finalize()
	m.guarded.module.Destroy()
	m.guarded.module, m.guarded.open = nil, false
	if err != nil {
		return fmt.Errorf("closing the PKCS #11 module: %w: %w", ErrToken, err)
	}
	return nil
}
