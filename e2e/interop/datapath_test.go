package interop_test

import (
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/interop"
)

// TestDatapathRefuses lets the datapath refuse each step of a Child SA, whoever asked for it. Nothing of it is left on
// either side; as soon as there is room again, one is made.
func TestDatapathRefuses(t *testing.T) {
	interop.Shows(t, "interop", 62)
	for _, step := range []string{"inbound", "outbound", "switch"} {
		for _, by := range []string{"own", "charon"} {
			t.Run(step+"/"+by, func(t *testing.T) {
				p := start(t, setup{})
				p.record.fail(step)
				ask := func() {
					if by == "own" {
						p.acquire()
						return
					}
					_, _ = p.trySwanctl("--initiate", "--child", "lab", "--timeout", "5")
				}
				ask()
				p.eventually("neither side has a Child SA", func() bool {
					told := false
					p.record.mu.Lock()
					for _, line := range p.record.mu.trace {
						told = told || strings.Contains(line, "install") || strings.Contains(line, "refuse")
					}
					p.record.mu.Unlock()
					list := p.swanctl("--list-sas", "--raw")
					return told && p.record.count() == 0 && !strings.Contains(list, "state=INSTALLED")
				})
				p.record.fail("")
				ask()
				p.up()
			})
		}
	}
}
