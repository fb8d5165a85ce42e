package ldap

import (
	"context"
	"sync"

	goldap "github.com/go-ldap/ldap/v3"
)

// wake tells that something changed, by change notification (MS-ADTS 3.1.1.3.4.1.9) over a connection of its own. It never
// says what: a notification is no more than a reason to ask.
type wake struct {
	signal chan struct{}
	end    context.CancelFunc
	done   sync.WaitGroup

	mu  sync.Mutex
	why string // why there are no notifications
}

// openWake starts listening; where that is not possible, the wake knows why and gives no signal.
func (t target) openWake(own context.Context, naming string) *wake {
	own, cancel := context.WithCancel(own)
	w := &wake{signal: make(chan struct{}, 1), end: cancel}
	session, closeSession, err := t.open(own)
	if err != nil {
		w.fail(err)
		return w
	}
	// The operation has no end, and the client's limit of time would give it one.
	session.conn.SetTimeout(0)
	// Only this filter, and this scope at the top of a naming context, may be asked for.
	request := goldap.NewSearchRequest(naming, goldap.ScopeWholeSubtree, goldap.NeverDerefAliases, 0, 0, false, "(objectClass=*)", []string{"objectGUID"},
		[]goldap.Control{goldap.NewControlString(goldap.ControlTypeMicrosoftNotification, true, "")})
	answers := session.conn.SearchAsync(own, request, streamBuffer)
	w.done.Go(func() {
		defer closeSession()
		for answers.Next() {
			select {
			case w.signal <- struct{}{}:
			default:
			}
		}
		w.fail(answers.Err())
	})
	return w
}

func (w *wake) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.why = "the server ended it"
	if err != nil {
		w.why = err.Error()
	}
}

// lost says why there are no notifications; "" while there are.
func (w *wake) lost() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.why
}

func (w *wake) close() {
	w.end()
	w.done.Wait()
}
