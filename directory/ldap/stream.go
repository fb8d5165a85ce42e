package ldap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/ldap/contentsync"
)

// resultSyncRefreshRequired is e-syncRefreshRequired (RFC 4533 2.6): the server cannot go on from the cookie.
const resultSyncRefreshRequired = 4096

// streamBuffer is how many messages wait for the follower before the server has to.
const streamBuffer = 1024

// streamWaits is how many octets of messages wait to be read before the server has to.
const streamWaits = 1 << 20

// errNoSync says that the server does not do what content synchronization takes; the directory is polled then.
var errNoSync = errors.New("no content synchronization")

// event is one message of the server, or the end of the operation.
type event struct {
	message contentsync.Message
	err     error // the operation is over
}

// stream is one Content Synchronization Operation on a connection of its own.
type stream struct {
	*session
	// inner says that the base is below the top of what the server holds.
	inner  bool
	events chan event // closed after an err
	cancel context.CancelFunc
}

// openStream connects and starts the operation. It lives until life ends or it is closed; ctx bounds its beginning.
func (t target) openStream(ctx, life context.Context, cookie contentsync.Cookie) (*stream, error) {
	own, cancel := context.WithCancel(life)
	stop := context.AfterFunc(ctx, cancel)
	defer stop()
	session, closeSession, err := t.open(own)
	if err != nil {
		cancel()
		return nil, err
	}
	s := &stream{session: session, events: make(chan event, streamBuffer), cancel: cancel}
	if err := s.offered(); err != nil {
		cancel()
		closeSession()
		return nil, err
	}
	// A limit of time counts from the request in the client, which would end the operation, and drops answers that are
	// not taken fast enough: this operation has none, silence is noticed by the follower.
	s.conn.SetTimeout(0)
	request := goldap.NewSearchRequest(t.Base.String(), goldap.ScopeWholeSubtree, goldap.NeverDerefAliases, 0, 0, false,
		t.Schema.Filter(), t.Schema.Attributes(), nil)
	in := newIntake(streamWaits)
	s.tap.announce(in)
	answers := s.conn.Syncrepl(own, request, streamBuffer, goldap.SyncRequestModeRefreshAndPersist, []byte(cookie), false)
	go func() {
		defer closeSession()
		defer close(s.events)
		s.receive(own, answers, in)
	}()
	return s, nil
}

func (s *stream) close() { s.cancel() }

// offered reads the root DSE: does the server know the control (RFC 4533 2.2), and is the base all that it holds?
func (s *stream) offered() error {
	root, err := s.search("", goldap.ScopeBaseObject, "(objectClass=*)", []string{"supportedControl", "namingContexts"})
	if err != nil {
		return err
	}
	if len(root.Entries) != 1 {
		return fmt.Errorf("%w: the root DSE cannot be read", errNoSync)
	}
	e := root.Entries[0]
	if !slices.Contains(e.GetEqualFoldAttributeValues("supportedControl"), goldap.ControlTypeSyncRequest) {
		return fmt.Errorf("%w: the server does not offer control %s", errNoSync, goldap.ControlTypeSyncRequest)
	}
	s.inner = !slices.ContainsFunc(e.GetEqualFoldAttributeValues("namingContexts"), func(name string) bool {
		dn, err := directory.ParseDN(name)
		return err == nil && dn.Equal(s.Base)
	})
	return nil
}

// receive hands messages on until the operation ends. Its end is always an error: an operation that persists has none.
func (s *stream) receive(ctx context.Context, answers goldap.Response, in *intake) {
	defer in.abandon()
	ended := make(chan error, 1)
	go func() { ended <- s.end(answers) }()
	emit := func(e event) bool {
		select {
		case s.events <- e:
			return e.err == nil
		case <-ctx.Done():
			return false
		}
	}
	var d decoder
	for {
		var end error
		select {
		case <-ctx.Done():
			return
		case <-in.ready:
		case end = <-ended:
		}
		for _, batch := range in.take() {
			err := d.each(batch, func(r received) error {
				m, err := s.message(r)
				if m != nil || err != nil {
					if !emit(event{m, err}) {
						return errStopped
					}
				}
				return nil
			})
			if errors.Is(err, errStopped) {
				return
			}
			if err != nil {
				emit(event{err: fmt.Errorf("%w: %w", errMessage, err)})
				return
			}
		}
		if end != nil {
			emit(event{err: end})
			return
		}
	}
}

// errStopped ends the reading of a batch.
var errStopped = errors.New("nobody listens any more")

// end waits for the end of the operation, which the client tells; everything before it is in the intake then.
func (s *stream) end(answers goldap.Response) error {
	for answers.Next() {
		if answers.Entry() != nil || answers.Referral() != "" {
			return fmt.Errorf("%w: it came by another way than expected", errMessage)
		}
	}
	if err := answers.Err(); err != nil {
		return err
	}
	return errors.New("the server ended the operation")
}

func (s *stream) message(r received) (contentsync.Message, error) {
	if r.op == opSearchResultReference {
		if s.SkipReferences {
			return nil, nil
		}
		return nil, s.wrapAs(ErrReferral, duringSync, fmt.Errorf("part of the tree is at %s", r.uri))
	}
	m, err := syncMessage(*s.Schema, r)
	if err != nil && !errors.Is(err, errMessage) {
		return nil, s.wrapAs(ErrContent, duringBuild, err)
	}
	return m, err
}

// ended says what the end of an operation calls for: errNoSync to poll, contentsync.ErrAnew to start again without
// cookie, or an Error. An operation is young until its refresh is complete.
func (s *stream) ended(err error, resumed, young bool) error {
	var code *goldap.Error
	coded := errors.As(err, &code) && code.ResultCode < goldap.ErrorNetwork || code != nil && code.ResultCode == resultSyncRefreshRequired
	switch {
	case coded && code.ResultCode == resultSyncRefreshRequired,
		// OpenLDAP answers unwillingToPerform to a cookie that is newer than what it holds: it was restored from a backup.
		coded && resumed && young:
		return fmt.Errorf("%w: %w", contentsync.ErrAnew, err)
	case errors.Is(err, errMessage):
		return fmt.Errorf("%w: %w", errNoSync, err)
	case coded && young && slices.Contains(noSyncResults, code.ResultCode):
		return fmt.Errorf("%w: %w", errNoSync, err)
	}
	return s.wrap(duringSync, err)
}

// noSyncResults are the answers to a first refresh that say that polling, which reads in pages, may do better.
var noSyncResults = []uint16{
	goldap.LDAPResultUnavailableCriticalExtension, goldap.LDAPResultUnwillingToPerform, goldap.LDAPResultProtocolError,
	goldap.LDAPResultSizeLimitExceeded, goldap.LDAPResultTimeLimitExceeded, goldap.LDAPResultAdminLimitExceeded,
	goldap.LDAPResultInsufficientAccessRights, goldap.LDAPResultOperationsError,
}

// probe asks on the stream's own connection how far the server is. A server that does not answer in time loses it.
func (s *stream) probe() ([]string, error) {
	late := time.AfterFunc(s.Timeout, s.cancel)
	m, err := s.marker()
	if !late.Stop() && err != nil {
		return nil, s.wrapAs(ErrTimeout, duringSync, fmt.Errorf("no answer within %v", s.Timeout))
	}
	if err != nil || !m.known() {
		return nil, err
	}
	return strings.Fields(m.text), nil
}
