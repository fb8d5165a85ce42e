package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bailiwick-net/bailiwick/pki/journal"
)

// The journal of the CA is one record for each key below journal/records/, and the head in journal/head. A record is
// written in the transaction that changes what it tells of, and compares the head, so that there is one order, whoever
// writes. Records that are wanted at the same time go into one transaction: each costs a write to the disk. Other changes that
// every enrolment makes go along without a record.

// commitTime bounds one transaction of the journal. It belongs to several callers, so none of theirs ends it.
const commitTime = 10 * time.Second

// An entry waits to be written: what must hold, what changes, and the record of it, nil for none. Nobody waits for it any more
// once its context has ended.
type entry struct {
	waits   context.Context
	compare []clientv3.Cmp
	ops     []clientv3.Op
	record  *journal.Record
	done    chan outcome // room for one
}

// An outcome is the revision of the transaction, or why there is none.
type outcome struct {
	revision int64
	err      error
}

// appender writes the journal. Its zero value is ready.
type appender struct {
	sync.Mutex
	waiting []*entry
	writing bool // somebody empties waiting

	// Owned by whoever writes.
	head     journal.Head
	revision int64 // of the key of the head
	known    bool
}

func (s *Store) journalHeadKey() string { return s.key("journal", "head") }

func (s *Store) journalRecordKey(number uint64) string {
	return s.key("journal", "records", fmt.Sprintf("%016x", number))
}

// record commits a change together with its record in the journal. The error is that of commit, as is the revision.
func (s *Store) record(ctx context.Context, what string, compare []clientv3.Cmp, ops []clientv3.Op, r journal.Record) (int64, error) {
	if r.Time.IsZero() {
		r.Time = s.now()
	}
	return s.together(ctx, what, compare, ops, &r)
}

// together commits a change in one transaction with what others want to be written at the same time. Each holds or fails by
// itself. The journal may be nil.
func (s *Store) together(ctx context.Context, what string, compare []clientv3.Cmp, ops []clientv3.Op, r *journal.Record) (int64, error) {
	e := &entry{ctx, compare, ops, r, make(chan outcome, 1)}
	s.journal.Lock()
	s.journal.waiting = append(s.journal.waiting, e)
	if !s.journal.writing {
		s.journal.writing = true
		go s.writeJournal()
	}
	s.journal.Unlock()
	select {
	case o := <-e.done:
		if o.err != nil {
			return 0, fmt.Errorf("%s: %w", what, o.err)
		}
		return o.revision, nil
	case <-ctx.Done():
		// It may still be written, which is what every caller must reckon with whenever a write fails.
		return 0, fmt.Errorf("%s: %w", what, ctx.Err())
	}
}

// writeJournal writes until nobody waits.
func (s *Store) writeJournal() {
	for {
		s.journal.Lock()
		batch := s.takeLocked()
		if len(batch) == 0 {
			s.journal.writing = false
			s.journal.Unlock()
			return
		}
		s.journal.Unlock()
		s.writeBatch(batch)
	}
}

// takeLocked takes as many as fit into a transaction, in which no key may be written twice. What nobody waits for is left
// unwritten: while the store is away it would only become more.
func (s *Store) takeLocked() []*entry {
	s.journal.waiting = slices.DeleteFunc(s.journal.waiting, func(e *entry) bool { return e.waits.Err() != nil })
	const own = 3 // the head, the next record, and the claim
	compares, ops := own, own
	n := 0
	written := map[string]struct{}{}
	for _, e := range s.journal.waiting {
		compares, ops = compares+len(e.compare), ops+len(e.ops)+1
		again := slices.ContainsFunc(e.ops, func(op clientv3.Op) bool { _, ok := written[string(op.KeyBytes())]; return ok })
		if n > 0 && (again || max(compares, ops) > s.maxOps) {
			break
		}
		for _, op := range e.ops {
			written[string(op.KeyBytes())] = struct{}{}
		}
		n++
	}
	batch := s.journal.waiting[:n:n]
	s.journal.waiting = s.journal.waiting[n:]
	return batch
}

func (s *Store) writeBatch(batch []*entry) {
	o := s.tryBatch(batch)
	if !ofOne(o.err) || len(batch) == 1 {
		for _, e := range batch {
			e.done <- o
		}
		return
	}
	// The others must not suffer for it.
	for _, e := range batch {
		e.done <- s.tryBatch([]*entry{e})
	}
}

// ofOne reports whether an error may be the fault of one entry in a batch: it compares something that is not so, its record is
// none, or together they are too large.
func ofOne(err error) bool {
	return errors.Is(err, ErrConflict) || errors.Is(err, ErrTooLarge) || errors.Is(err, journal.ErrJournal)
}

// A lost is a transaction without an answer: it may have been made, and may be made yet while nobody else writes. The number and
// the line are those of its first record, which nothing but that transaction writes there.
type lost struct {
	number   uint64
	line     []byte
	revision int64 // of the head that it compares
}

// tryBatch commits a batch. A head that another writer moved on is read again. A transaction without an answer is made again: as
// both compare the head, at most one of them is, and its record tells which.
func (s *Store) tryBatch(batch []*entry) outcome {
	ctx, cancel := context.WithTimeout(context.Background(), commitTime)
	defer cancel()
	if !slices.ContainsFunc(batch, func(e *entry) bool { return e.record != nil }) {
		var compare []clientv3.Cmp
		var ops []clientv3.Op
		for _, e := range batch {
			compare, ops = append(compare, e.compare...), append(ops, e.ops...)
		}
		revision, err := s.commit(ctx, "writing several changes", compare, ops)
		return outcome{revision, err}
	}
	var without *lost
	for allowed := tryTime; ; {
		if !s.journal.known {
			if err := s.readHead(ctx); err != nil {
				return outcome{err: err}
			}
		}
		if without != nil && without.revision != s.journal.revision {
			// The head was moved on since: the lost transaction was made, or never will be.
			if revision, err := s.made(ctx, *without); err != nil || revision != 0 {
				return outcome{revision, err}
			}
			without = nil
		}
		compare := []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(s.journalHeadKey()), "=", s.journal.revision)}
		var ops []clientv3.Op
		attempt, head := lost{revision: s.journal.revision}, s.journal.head
		for _, e := range batch {
			compare, ops = append(compare, e.compare...), append(ops, e.ops...)
			if e.record == nil {
				continue
			}
			line, next, err := journal.Append(head, *e.record)
			if err != nil {
				return outcome{err: err}
			}
			head = next
			if attempt.line == nil {
				attempt.number, attempt.line = next.Number, line
			}
			// Nothing may stand there: a record is never overwritten, whatever the head says.
			ops = append(ops, clientv3.OpPut(s.journalRecordKey(next.Number), string(line)))
		}
		compare = append(compare, clientv3.Compare(clientv3.CreateRevision(s.journalRecordKey(attempt.number)), "=", 0))
		value, err := encode("head of the issuing journal", head)
		if err != nil {
			return outcome{err: err}
		}
		ops = append(ops, clientv3.OpPut(s.journalHeadKey(), value))
		try, cancel := context.WithTimeout(ctx, allowed)
		revision, err := s.commit(try, "writing the issuing journal", compare, ops)
		cancel()
		if err == nil {
			s.journal.head, s.journal.revision = head, revision
			return outcome{revision: revision}
		}
		// After any failure nobody knows where the head is.
		s.journal.known = false
		switch {
		case errors.Is(err, ErrConflict):
			if err := s.readHead(ctx); err != nil {
				return outcome{err: err}
			}
			if s.journal.revision == attempt.revision {
				return outcome{err: err}
			}
		case uncertain(err) && breathe(ctx):
			without, allowed = &attempt, 2*allowed
		default:
			return outcome{err: err}
		}
	}
}

// breathe waits a moment for the members to elect a leader. It reports false when ctx ended.
func breathe(ctx context.Context) bool {
	timer := time.NewTimer(100 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// made returns the revision at which a transaction without an answer was made, 0 if another one was in its place.
func (s *Store) made(ctx context.Context, l lost) (int64, error) {
	resp, err := s.client.Get(ctx, s.journalRecordKey(l.number))
	if err != nil {
		return 0, fmt.Errorf("reading record %d of the issuing journal: %w", l.number, err)
	}
	if len(resp.Kvs) == 0 || !bytes.Equal(resp.Kvs[0].Value, l.line) {
		return 0, nil
	}
	return resp.Kvs[0].ModRevision, nil
}

func (s *Store) readHead(ctx context.Context) error {
	head, revision, err := get[journal.Head](ctx, s, "the head of the issuing journal", s.journalHeadKey())
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	if err != nil {
		return err
	}
	s.journal.head, s.journal.revision, s.journal.known = head, revision, true
	return nil
}

// JournalHead reads the head of the journal; the zero Head is that of an empty one.
func (s *Store) JournalHead(ctx context.Context) (journal.Head, error) {
	head, _, err := get[journal.Head](ctx, s, "the head of the issuing journal", s.journalHeadKey())
	if errors.Is(err, ErrNotFound) {
		return journal.Head{}, nil
	}
	return head, err
}

// RecordEvent appends something to the journal that no transaction of its own tells of.
func (s *Store) RecordEvent(ctx context.Context, e journal.Event) error {
	_, err := s.record(ctx, "recording an event in the issuing journal", nil, nil, journal.Record{Event: &e})
	return err
}

// ReadJournal calls each with every line from the record with the given number on, in order, all at one revision of the
// store, until it fails. The lines are as they are stored: whoever reads them audits them. The head is the one that is
// stored at that revision.
func (s *Store) ReadJournal(ctx context.Context, from uint64, each func(line []byte) error) (journal.Head, error) {
	const what = "reading the issuing journal"
	resp, err := s.client.Get(ctx, s.journalHeadKey())
	if err != nil {
		return journal.Head{}, fmt.Errorf("%s: %w", what, err)
	}
	var head journal.Head
	if len(resp.Kvs) > 0 {
		if err := json.Unmarshal(resp.Kvs[0].Value, &head); err != nil {
			return journal.Head{}, fmt.Errorf("%s: its head: %w: %w", what, ErrCorrupt, err)
		}
	}
	at := resp.Header.Revision
	next, end := s.journalRecordKey(max(from, 1)), clientv3.GetPrefixRangeEnd(s.key("journal", "records", ""))
	for {
		page, err := s.client.Get(ctx, next, clientv3.WithRange(end), clientv3.WithLimit(pageSize), clientv3.WithRev(at))
		if err != nil {
			return journal.Head{}, fmt.Errorf("%s: %w", what, err)
		}
		for _, kv := range page.Kvs {
			if err := each(kv.Value); err != nil {
				return journal.Head{}, err
			}
		}
		if !page.More {
			return head, nil
		}
		next = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
	}
}
