package controller

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/controller/mirror"
	"github.com/bailiwick-net/bailiwick/controller/store"
)

// flakyStore fails until it is mended.
type flakyStore struct {
	broken atomic.Bool
	texts  []string
}

func (f *flakyStore) AppendDirectoryEvent(_ context.Context, e store.DirectoryEvent) error {
	if f.broken.Load() {
		return errors.New("broken")
	}
	f.texts = append(f.texts, e.Source+" "+e.Kind+" "+e.Text)
	return nil
}

func TestEventsWaitForTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &flakyStore{}
		s.broken.Store(true)
		l := newEventLog(s, hclog.NewNullLogger())
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.run(ctx) }()
		tell := l.of("bank")
		for i := range maxWaitingEvents + 5 {
			tell(mirror.Event{Kind: mirror.HeldBack, At: time.Now(), Text: fmt.Sprint(i)})
		}
		synctest.Wait()
		if len(s.texts) > 0 {
			t.Fatal("a broken store stored something")
		}
		s.broken.Store(false)
		<-time.After(2 * eventRetry)
		synctest.Wait()
		if len(s.texts) != maxWaitingEvents || s.texts[0] != "bank held 0" || s.texts[1] != "bank held 1" {
			t.Fatalf("%d events stored, the first %v; wanted %d in their order", len(s.texts), s.texts[:2], maxWaitingEvents)
		}
		tell(mirror.Event{Kind: mirror.Released, By: "alice", At: time.Now(), Text: "last"})
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if got := s.texts[len(s.texts)-1]; got != "bank released last" {
			t.Errorf("the last event stored is %q", got)
		}
	})
}
