package driver

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// Signer gives the machine's private key as it is now; nil where there is none.
type Signer interface{ Signer() crypto.Signer }

// Verifier decides about a peer that authenticates with a certificate. It may be called from several goroutines.
type Verifier interface {
	VerifyPeer(now time.Time, v ike.Verify) ike.Verified
	// RejudgePeer decides about a peer whose signature was verified before.
	RejudgePeer(now time.Time, r ike.Rejudge) ike.Verified
}

// Jobs does the work that leaves the engine. It is safe for concurrent use.
type Jobs struct {
	signer   Signer
	verifier Verifier
}

// NewJobs returns the jobs of a machine with these credentials: its key signs, its trust bundle decides about peers.
func NewJobs(c Credentials) *Jobs {
	return NewJobsWith(c, BundleVerifier{Credentials: c, Paths: trust.NewPaths(rememberedChains)})
}

// rememberedChains bounds the chains of peers that are known to lead to a root; each takes some five kilobytes.
const rememberedChains = 1024

// NewJobsWith returns jobs with another judge of peers.
func NewJobsWith(s Signer, v Verifier) *Jobs { return &Jobs{signer: s, verifier: v} }

// slow tells which work takes longer than handing it to another goroutine: exponentiations, keys
// that are not in memory, and everything with certificates, whose keys and chains can be of any kind.
func (j *Jobs) slow(work ike.Work) bool {
	switch w := work.(type) {
	case ike.Generate:
		return slowGroup(w.Group)
	case ike.Agree:
		return slowGroup(w.Group)
	case ike.Encapsulate:
		return false
	case ike.Sign:
		switch j.signer.Signer().(type) {
		case nil, *ecdsa.PrivateKey, ed25519.PrivateKey:
			return false
		}
	}
	return true
}

// outside reports whether the work is done by a device, such as a TPM, and not by this machine's processors: it has a queue of
// its own and a bound, and a slow one must not keep processors from the work of others.
func (j *Jobs) outside(work ike.Work) bool {
	if _, sign := work.(ike.Sign); !sign {
		return false
	}
	switch j.signer.Signer().(type) {
	case nil, *ecdsa.PrivateKey, ed25519.PrivateKey, *rsa.PrivateKey:
		return false
	}
	return true
}

func slowGroup(g proposal.Group) bool {
	return g == proposal.GroupECP521 || g == proposal.GroupMODP2048 || g == proposal.GroupMODP3072 || g == proposal.GroupMODP4096
}

// run does the work. A panic in it becomes a failed result: it concerns one peer only.
func (j *Jobs) run(now time.Time, work ike.Work) (result ike.Result) {
	defer func() {
		if r := recover(); r != nil {
			result = failedResult(work, fmt.Errorf("the work ended with a panic: %v", r))
		}
	}()
	switch w := work.(type) {
	case ike.Generate:
		private, public, err := suite.NewKeyExchange(w.Group)
		return ike.Generated{Public: public, Private: private, Err: err}
	case ike.Agree:
		private, ok := w.Private.(*suite.PrivateValue)
		if !ok {
			return ike.Agreed{Err: fmt.Errorf("private value of type %T", w.Private)}
		}
		shared, err := suite.Agree(private, w.Peer)
		return ike.Agreed{Shared: shared, Err: err}
	case ike.Encapsulate:
		public, shared, err := suite.Encapsulate(w.Group, w.Peer)
		return ike.Encapsulated{Public: public, Shared: shared, Err: err}
	case ike.Sign:
		key := j.signer.Signer()
		if key == nil {
			return ike.Signed{Err: errNoKey}
		}
		method, data, err := suite.SignAmong(rand.Reader, key, hashes(w.Hashes), w.Accepted, w.Octets)
		return ike.Signed{Method: byte(method), Data: data, Err: err}
	case ike.Verify:
		return j.verifier.VerifyPeer(now, w)
	case ike.Rejudge:
		return j.verifier.RejudgePeer(now, w)
	}
	return failedResult(work, fmt.Errorf("unknown work %T", work))
}

func failedResult(work ike.Work, err error) ike.Result {
	switch work.(type) {
	case ike.Generate:
		return ike.Generated{Err: err}
	case ike.Agree:
		return ike.Agreed{Err: err}
	case ike.Encapsulate:
		return ike.Encapsulated{Err: err}
	case ike.Sign:
		return ike.Signed{Err: err}
	}
	return ike.Verified{Reason: ike.ReasonInternal, Detail: err.Error()}
}

func hashes(numbers []uint16) []wire.HashAlgorithm {
	var list []wire.HashAlgorithm
	for _, n := range numbers {
		list = append(list, wire.HashAlgorithm(n))
	}
	return list
}
