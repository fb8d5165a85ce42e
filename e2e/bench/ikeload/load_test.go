package ikeload

import (
	"context"
	"testing"
)

func TestBurst(t *testing.T) {
	for _, c := range []struct {
		name   string
		method Method
		kind   KeyKind
	}{
		{"shared key", MethodSharedKey, 0},
		{"distinct keys", MethodDistinctKeys, 0},
		{"ECDSA", MethodCertificate, KeyECDSA},
		{"RSA", MethodCertificate, KeyRSA},
	} {
		t.Run(c.name, func(t *testing.T) {
			const peers = 100
			pair, err := NewPair(DefaultPlan(c.method, peers), c.kind, false)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), BurstLimit)
			defer cancel()
			if err := Burst(ctx, pair.Initiator, pair.Responder, 0, peers); err != nil {
				t.Error(err)
			}
			v, err := pair.Responder.Snapshot(ctx)
			if err != nil {
				t.Error(err)
			}
			if len(v.SAs) != peers {
				t.Errorf("the responder has %d IKE SAs, want %d", len(v.SAs), peers)
			}
			if err := pair.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
}
