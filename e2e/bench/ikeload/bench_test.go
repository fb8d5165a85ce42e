package ikeload

import (
	"context"
	"testing"
)

// One operation is one handshake, both ends, among a hundred at a time.
func BenchmarkHandshake(b *testing.B) {
	for _, c := range []struct {
		name   string
		method Method
		kind   KeyKind
	}{
		{"shared-key", MethodSharedKey, 0},
		{"distinct-keys", MethodDistinctKeys, 0},
		{"ecdsa", MethodCertificate, KeyECDSA},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			const peers = 100
			for done := 0; done < b.N; done += peers {
				b.StopTimer()
				pair, err := NewPair(DefaultPlan(c.method, peers), c.kind, false)
				if err != nil {
					b.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(b.Context(), BurstLimit)
				b.StartTimer()
				if err := Burst(ctx, pair.Initiator, pair.Responder, 0, min(peers, b.N-done)); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				cancel()
				if err := pair.Stop(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
