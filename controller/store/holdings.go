package store

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bailiwick-net/bailiwick/pki"
)

// A Holding is the latest certificate of a machine, and how the machine came by it.
type Holding struct {
	Machine  pki.UUID  `json:"machine"`
	Serial   string    `json:"serial"`
	Key      pki.KeyID `json:"key"`
	NotAfter time.Time `json:"notAfter"`
	// Issued is when, How by what: "token ...", "request approved by ...", "renewal", "administrator ...".
	Issued time.Time `json:"issued"`
	How    string    `json:"how"`
	// Since is the notBefore of the first certificate of the present enrolment: renewals leave it, a new enrolment sets
	// it. A certificate of the machine that is older belongs to an enrolment that was superseded.
	Since time.Time `json:"since"`
	// Superseded is the key that the machine held when it enrolled anew; zero when it never did.
	Superseded pki.KeyID `json:"superseded,omitzero"`
	// Barred is why the certificate was revoked, once the record of that has gone with its end: for CRLReasons after which no
	// rule lets the machine in again, but a person alone.
	Barred string `json:"barred,omitempty"`

	// revision is that of the last change, 0 before the first.
	revision int64
}

func (s *Store) holdingKey(u pki.UUID) string { return s.key("holdings", u.String()) }

// Holding reads what a machine holds; the error wraps ErrNotFound for one that never enrolled.
func (s *Store) Holding(ctx context.Context, u pki.UUID) (Holding, error) {
	h, revision, err := get[Holding](ctx, s, "certificate of machine "+u.String(), s.holdingKey(u))
	h.revision = revision
	return h, err
}

// PutHolding replaces what a machine holds, if the record is still as h was read; else the error wraps ErrConflict. A
// record that was not read must be the first.
func (s *Store) PutHolding(ctx context.Context, h Holding) error {
	what := "recording the certificate of machine " + h.Machine.String()
	value, err := encode(what, h)
	if err != nil {
		return err
	}
	key := s.holdingKey(h.Machine)
	_, err = s.together(ctx, what,
		[]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", h.revision)},
		[]clientv3.Op{clientv3.OpPut(key, value)}, nil)
	return err
}

// Holdings lists what all machines hold.
func (s *Store) Holdings(ctx context.Context) ([]Holding, error) {
	var all []Holding
	err := list(ctx, s, "certificates of machines", s.key("holdings", ""), func(h Holding, revision int64) {
		h.revision = revision
		all = append(all, h)
	})
	return all, err
}

// PruneHoldings removes the records of machines whose latest certificate ended before the given time, in batches; those of
// machines that are barred stay.
func (s *Store) PruneHoldings(ctx context.Context, before time.Time) (int, error) {
	return prune(ctx, s, "ended certificates of machines", s.key("holdings", ""), func(h Holding) bool { return h.NotAfter.Before(before) && h.Barred == "" })
}
