package revocation

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/bailiwick-net/bailiwick/pki/catest"
)

// However many wait for a signature that does not come, it is one that did not.
func TestSilenceIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		authority := &token{CA: catest.New(t)}
		release := authority.hangs()
		k, err := Open(t.Context(), Config{Store: &told{}, Issuers: func() []Issuer { return []Issuer{authority} }})
		if err != nil {
			t.Fatal(err)
		}
		const strangers = 20
		answers := make(chan error, strangers)
		for range strangers {
			go func() {
				_, err := k.List(context.WithoutCancel(t.Context()), whole(authority))
				answers <- err
			}()
		}
		for range strangers {
			if err := <-answers; !errors.Is(err, ErrSilent) {
				t.Errorf("a stranger was told %v, want ErrSilent", err)
			}
		}
		if h := k.Health(); h.Failing != 1 || h.Failures != 1 {
			t.Errorf("of one signature that hangs it is told %+v", h)
		}
		release()
		synctest.Wait()
	})
}
