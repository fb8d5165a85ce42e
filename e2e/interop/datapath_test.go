package interop_test

import (
	"slices"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/interop"
	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
)

// TestDatapathRefuses lets the datapath refuse each step of a Child SA, whoever asked for it. Nothing of it is left on
// either side; as soon as there is room again, one is made.
func TestDatapathRefuses(t *testing.T) {
	interop.Shows(t, "interop", 62)
	for _, step := range []string{"inbound", "outbound", "switch"} {
		for _, by := range pair.Sides {
			t.Run(step+"/"+by.String(), func(t *testing.T) {
				p := start(t, setup{ike: "aes256-sha256-x25519", esp: "aes256gcm16-x25519"})
				p.record.fail(step)
				p.ask(by)
				p.Until("neither side has a Child SA", func() (bool, error) {
					theirs, err := p.Charon.SAs(p.Ctx)
					return (p.record.told("install") || p.record.told("refuse")) && p.record.count() == 0 && !slices.ContainsFunc(theirs, func(s charon.SA) bool { return len(pair.Installed(s)) > 0 }), err
				})
				p.record.fail("")
				p.ask(by)
				p.up()
			})
		}
	}
}
