package ldap

import (
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
)

// maxMessage bounds one message of a tapped search: an entry with more than a million values.
const maxMessage = 256 << 20

// batchSize is how many octets of messages are handed over at once while more are there.
const batchSize = 32 << 10

// A tap is the connection below the LDAP client. The client makes, sends and ends every operation; but the entries of the
// searches that were announced are taken out of the stream before it sees them, because it spends twenty times the memory
// of an entry, and most of the time of a first read, on a tree of values for each. Everything else passes.
//
// The client reads with one goroutine and writes with one; the tap's own state belongs to the former.
type tap struct {
	net.Conn
	searches struct {
		sync.Mutex
		announced *intake
		by        map[int64]*intake // by message ID
	}

	buf     []byte
	r, w    int     // the octets of buf that were read and not looked at yet
	passing int     // octets of a message from r on that are the client's, here already or not
	open    *intake // has messages that were not handed over
	failed  error   // of the connection
}

func newTap(c net.Conn) *tap {
	t := &tap{Conn: c}
	t.searches.by = map[int64]*intake{}
	return t
}

// An intake takes the messages of searches: each entry, reference and intermediate response, in the order in which they
// came. The end of a search is the client's to tell; everything before it is here by then.
type intake struct {
	batch []byte // of the reading goroutine
	// entries is how many entries have come; those of a search are counted before the client tells of its end.
	entries atomic.Int64

	// limit is how many octets may wait until the server has to; 0 for any number.
	limit int
	ready chan struct{} // has room for one: something is waiting
	room  chan struct{} // has room for one: something was taken
	gone  chan struct{} // closed when nobody takes any more
	queue struct {
		sync.Mutex
		batches [][]byte
		size    int
	}
}

func newIntake(limit int) *intake {
	return &intake{limit: limit, ready: make(chan struct{}, 1), room: make(chan struct{}, 1), gone: make(chan struct{})}
}

// announce says that the next search of a whole subtree that is written is to be tapped. Only one may be announced at a
// time.
func (t *tap) announce(i *intake) {
	t.searches.Lock()
	defer t.searches.Unlock()
	t.searches.announced = i
}

// abandon ends the taking of messages; those that still come are dropped. It is called once.
func (i *intake) abandon() { close(i.gone) }

// settle waits until no more than the given number of octets wait, or nobody takes any.
func (i *intake) settle(size int) {
	for {
		i.queue.Lock()
		waiting := i.queue.size
		i.queue.Unlock()
		if waiting <= size {
			return
		}
		select {
		case <-i.room:
		case <-i.gone:
			return
		}
	}
}

func (i *intake) abandoned() bool {
	select {
	case <-i.gone:
		return true
	default:
		return false
	}
}

// take returns what waits, nil when nothing does.
func (i *intake) take() [][]byte {
	i.queue.Lock()
	defer i.queue.Unlock()
	batches := i.queue.batches
	i.queue.batches, i.queue.size = nil, 0
	select {
	case i.room <- struct{}{}:
	default:
	}
	return batches
}

// hand hands the batch over. It waits while more waits than may.
func (i *intake) hand() {
	if len(i.batch) == 0 {
		return
	}
	batch := slices.Clone(i.batch)
	i.batch = i.batch[:0]
	for {
		i.queue.Lock()
		if i.limit == 0 || i.queue.size < i.limit {
			i.queue.batches = append(i.queue.batches, batch)
			i.queue.size += len(batch)
			i.queue.Unlock()
			select {
			case i.ready <- struct{}{}:
			default:
			}
			return
		}
		i.queue.Unlock()
		select {
		case <-i.room:
		case <-i.gone:
			return
		}
	}
}

// Write notes the message ID of a search that was announced.
func (t *tap) Write(p []byte) (int, error) {
	t.searches.Lock()
	if t.searches.announced != nil {
		if id, ok := subtreeSearch(p); ok {
			t.searches.by[id], t.searches.announced = t.searches.announced, nil
		}
	}
	t.searches.Unlock()
	return t.Conn.Write(p)
}

// Read returns what is for the client.
func (t *tap) Read(p []byte) (int, error) {
	for {
		if n := min(len(p), t.passing, t.w-t.r); n > 0 {
			copy(p, t.buf[t.r:t.r+n])
			t.r, t.passing = t.r+n, t.passing-n
			return n, nil
		}
		if t.passing == 0 && t.sort() {
			continue
		}
		t.hand(nil)
		if t.failed != nil {
			return 0, t.failed
		}
		t.fill()
	}
}

// sort looks at the next message. It returns false when more has to be read, or nothing can be made of it: what the client
// might read in it nonetheless must not slip past the intake.
func (t *tap) sort() bool {
	in := t.buf[t.r:t.w]
	header, length, ok := tlv(in, tagSequence)
	switch {
	case ok && length > maxMessage:
		t.failed = fmt.Errorf("%w: it has %d octets", errDecode, length)
		return false
	case !ok && (len(in) >= maxHeader || len(in) > 0 && in[0] != tagSequence):
		t.failed = errDecode
		return false
	case !ok:
		return false
	}
	whole := len(in) >= header+length
	id, op, ok := messageKind(in[header:min(len(in), header+length)])
	if !ok {
		if whole || len(in) >= maxHeader {
			t.failed = fmt.Errorf("%w: it has no message ID", errDecode)
		}
		return false
	}
	t.searches.Lock()
	i := t.searches.by[id]
	if i != nil && op == opSearchResultDone {
		delete(t.searches.by, id)
	}
	t.searches.Unlock()
	if i == nil || op != opSearchResultEntry && op != opSearchResultReference && op != opIntermediateResponse {
		t.hand(nil)
		t.passing = header + length
		return true
	}
	if !whole {
		return false
	}
	t.hand(i)
	if op == opSearchResultEntry {
		i.entries.Add(1)
	}
	if !i.abandoned() {
		i.batch = append(i.batch, in[:header+length]...)
		t.open = i
	}
	t.r += header + length
	if len(i.batch) >= batchSize {
		t.hand(nil)
	}
	return true
}

// hand hands over what another intake than next has gathered.
func (t *tap) hand(next *intake) {
	if t.open != nil && t.open != next {
		t.open.hand()
		t.open = nil
	}
}

// fill reads more behind what is here.
func (t *tap) fill() {
	const size = 64 << 10
	switch rest := t.w - t.r; {
	case rest == 0 && cap(t.buf) > 4*size:
		t.buf, t.r, t.w = make([]byte, size), 0, 0 // a large message is over
	case rest == 0 && len(t.buf) > 0:
		t.r, t.w = 0, 0
	case len(t.buf)-t.w < size/4:
		to := t.buf
		if len(to)-rest < size/2 {
			to = make([]byte, max(size, 2*len(t.buf)))
		}
		t.r, t.w = 0, copy(to, t.buf[t.r:t.w])
		t.buf = to
	}
	n, err := t.Conn.Read(t.buf[t.w:])
	t.w += n
	t.failed = err
}
