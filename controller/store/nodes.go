package store

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bailiwick-net/bailiwick/directory"
)

// A NodeRecord is what the controller must know of a node after a restart.
type NodeRecord struct {
	Machine directory.UUID `json:"machine"`
	Name    string         `json:"name"`
	// Revision, Digest, Policy and Container are of the assignment that the node put into force last.
	Revision  uint64 `json:"revision"`
	Digest    string `json:"digest,omitempty"` // hex
	Policy    string `json:"policy,omitempty"`
	Container string `json:"container,omitempty"`
	// Acknowledged is when it did, on the controller's clock.
	Acknowledged time.Time `json:"acknowledged,omitzero"`
	// Error is why the node refused the latest assignment; empty when it did not.
	Error string `json:"error,omitempty"`
	// Version is that of the node's software.
	Version string `json:"version,omitempty"`
	// Address is the one from which it is connected, or was last; the zero value when that is not known.
	Address netip.Addr `json:"address,omitzero"`
	// Trust is the digest of the trust bundle that the node holds, in hexadecimal; empty when that is not known.
	Trust string `json:"trust,omitempty"`
	// Issuer is the authority key identifier of the certificate that its last session began with, in hexadecimal, and
	// CertificateEnds the end of that.
	Issuer          string    `json:"issuer,omitempty"`
	CertificateEnds time.Time `json:"certificateEnds,omitzero"`
	// LastSeen is when its last session began or ended.
	LastSeen time.Time `json:"lastSeen,omitzero"`
}

// PutNodes writes the records, each on its own: there is no relation between them that a crash could break.
func (s *Store) PutNodes(ctx context.Context, records []NodeRecord) error {
	for len(records) > 0 {
		n := min(len(records), s.maxOps)
		ops := make([]clientv3.Op, 0, n)
		for _, r := range records[:n] {
			value, err := encode("record of node "+r.Name, r)
			if err != nil {
				return err
			}
			ops = append(ops, clientv3.OpPut(s.key("nodes", r.Machine.String()), value))
		}
		if _, err := s.commit(ctx, fmt.Sprintf("writing the records of %d nodes", n), nil, ops); err != nil {
			return err
		}
		records = records[n:]
	}
	return nil
}

// Nodes lists all records by machine.
func (s *Store) Nodes(ctx context.Context) ([]NodeRecord, error) {
	var records []NodeRecord
	err := list(ctx, s, "node records", s.key("nodes", ""), func(r NodeRecord, _ int64) { records = append(records, r) })
	return records, err
}
