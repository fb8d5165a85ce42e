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

func TestStar(t *testing.T) {
	const spokes = 200
	star, err := NewStar(spokes)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), BurstLimit)
	defer cancel()
	if err := star.Up(ctx); err != nil {
		t.Error(err)
	} else if err := star.Check(ctx); err != nil {
		t.Error(err)
	}
	if err := star.Stop(); err != nil {
		t.Error(err)
	}
}

func TestManyChildSAs(t *testing.T) {
	plan := DefaultPlan(MethodSharedKey, 1000)
	plan.Children = 100
	pair, err := NewPair(plan, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), BurstLimit)
	defer cancel()
	if err := Burst(ctx, pair.Initiator, pair.Responder, 0, plan.Peers); err != nil {
		t.Error(err)
	}
	v, err := pair.Responder.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	children := 0
	for _, s := range v.SAs {
		children += len(s.Children)
	}
	if len(v.SAs) != 10 || children != 1000 {
		t.Errorf("%d IKE SAs with %d Child SAs, want 10 with 1000", len(v.SAs), children)
	}
	if err := pair.Stop(); err != nil {
		t.Error(err)
	}
}
