package trust

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"slices"
	"sync"
	"time"
)

// Paths remembers which chains lead to a root, so that the signatures on the certificates of a peer that comes again
// need not be computed again. It remembers nothing else: validity, usages, revocation and names are held against the
// clock and the options of every call, exactly as Bundle.Verify does, and only chains that were accepted are kept. What
// was found under one bundle is forgotten when another one comes, be it only of another revision. The zero value of
// *Paths, nil, remembers nothing. It is safe for concurrent use.
type Paths struct {
	limit int
	mu    struct {
		sync.Mutex
		bundle Digest
		pool   *x509.CertPool // of that bundle, which spares computing its digest
		known  map[chainKey]knownChain
	}
}

// chainKey is the SHA-256 of the certificates that a peer presented, each with its length before it.
type chainKey [sha256.Size]byte

// knownChain is a chain that was accepted once.
type knownChain struct {
	chain []*x509.Certificate
	paths [][]*x509.Certificate
}

// NewPaths remembers up to limit chains, each with a few kilobytes.
func NewPaths(limit int) *Paths { return &Paths{limit: limit} }

// Verify is ParseChain and Bundle.Verify.
func (p *Paths) Verify(b Bundle, now time.Time, ders [][]byte, o Options) (Verdict, error) {
	if p == nil || b.IsZero() || o.check() != nil {
		chain, err := ParseChain(ders)
		if err != nil {
			return Verdict{}, err
		}
		return b.Verify(now, chain, o)
	}
	key := keyOf(ders)
	if k, ok := p.find(b, key); ok {
		if paths := timely(now, k.paths); len(paths) > 0 {
			// A refusal is left to the whole verification: there may be another path by now.
			if verdict, err := judge(k.chain[0], paths, o); err == nil {
				return verdict, nil
			}
		}
	}
	chain, err := ParseChain(ders)
	if err != nil {
		return Verdict{}, err
	}
	if err := checkLimits(chain); err != nil {
		return Verdict{}, err
	}
	paths, err := b.paths(now, chain)
	if err != nil {
		return Verdict{}, err
	}
	verdict, err := judge(chain[0], paths, o)
	if err == nil {
		p.remember(b, key, knownChain{chain, paths})
	}
	return verdict, err
}

func keyOf(ders [][]byte) chainKey {
	h := sha256.New()
	for _, der := range ders {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(der))))
		h.Write(der)
	}
	return chainKey(h.Sum(nil))
}

// timely are the paths of which every certificate is valid now (RFC 5280 6.1.3 (a)(2)): a path that was found earlier
// proves its signatures, not the time.
func timely(now time.Time, paths [][]*x509.Certificate) [][]*x509.Certificate {
	return slices.DeleteFunc(slices.Clone(paths), func(path []*x509.Certificate) bool {
		return slices.ContainsFunc(path, func(c *x509.Certificate) bool { return now.Before(c.NotBefore) || now.After(c.NotAfter) })
	})
}

func (p *Paths) find(b Bundle, key chainKey) (knownChain, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.followLocked(b)
	k, ok := p.mu.known[key]
	return k, ok
}

func (p *Paths) remember(b Bundle, key chainKey, k knownChain) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.followLocked(b)
	if len(p.mu.known) >= p.limit {
		for old := range p.mu.known { // any one: which comes again nobody knows
			delete(p.mu.known, old)
			break
		}
	}
	if p.limit > 0 {
		p.mu.known[key] = k
	}
}

// followLocked forgets what was found under another bundle.
func (p *Paths) followLocked(b Bundle) {
	if p.mu.pool == b.rootPool {
		return
	}
	digest := b.Digest()
	if p.mu.bundle != digest || p.mu.known == nil {
		p.mu.known = make(map[chainKey]knownChain)
	}
	p.mu.pool, p.mu.bundle = b.rootPool, digest
}
