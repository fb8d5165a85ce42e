package controllertest

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// findings are the sentences of what verify finds of a kind.
func (f *Fleet) findings(code string) (out []string) {
	f.t.Helper()
	r, err := adminv1.NewAnalysisServiceClient(f.Conn()).Verify(f.Context(), &adminv1.VerifyRequest{})
	if err != nil {
		f.t.Fatal(err)
	}
	for _, found := range r.GetFindings() {
		if found.GetCode() == code {
			out = append(out, found.GetSentence())
		}
	}
	return out
}

// Verify tells of certificates that end: of machines, the controller, and administrators, each by the latest that counts.
func TestVerifyTellsWhichCertificatesEnd(t *testing.T) {
	start := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	var offset atomic.Int64
	f := New(t, Bank)
	f.Config.Now = func() time.Time { return start.Add(time.Duration(offset.Load())) }
	f.NodeClock = f.Config.Now
	f.Start()
	f.Node("sql1")
	f.administrator("anna")
	f.administrator("ben")
	const day = 24 * time.Hour
	for _, step := range []struct {
		at   time.Duration
		do   func()
		want []string
	}{
		{0, nil, nil},
		{6 * day, nil, []string{"2 of the latest certificates of administrators end soon: anna (2026-07-08), ben (2026-07-08)"}},
		{6 * day, func() { f.administrator("anna") }, []string{"1 of the latest certificates of administrators end soon: ben (2026-07-08)"}},
		{8 * day, nil, nil}, // ben's has ended, which is his affair
		{29 * day, nil, []string{
			"1 of the latest certificates of controllers end soon and were not renewed: controller.bank.example (2026-07-31)",
			"1 of the latest certificates of machines end soon and were not renewed: sql1 (2026-07-31)",
		}},
		{31 * day, nil, []string{
			"1 of the latest certificates of controllers ended, so that nodes refuse these: controller.bank.example (2026-07-31)",
			"1 of the latest certificates of machines ended, so that nobody lets these in: sql1 (2026-07-31)",
		}},
	} {
		offset.Store(int64(step.at))
		if step.do != nil {
			step.do()
		}
		if got := f.findings("certificate"); !slices.Equal(got, step.want) {
			t.Errorf("after %v verify finds\n%q\nwant\n%q", step.at, got, step.want)
		}
	}
}
