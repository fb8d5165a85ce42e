package ca

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
)

// Intention is a certificate that is about to be signed. It encodes as JSON.
type Intention struct {
	// Serial is the serial number in lower-case hexadecimal, and names the intention.
	Serial string `json:"serial"`
	// Issuer is the key that is to sign.
	Issuer pki.KeyID `json:"issuer"`
	// Profile is the kind of the profile, and Subject the identity URI.
	Profile string `json:"profile"`
	Subject string `json:"subject"`
	// Key is the key to be certified.
	Key       pki.KeyID `json:"key"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	// Prepared is when the certificate was prepared.
	Prepared time.Time `json:"prepared"`
	// TBS is the DER of the TBSCertificate: the octets to be signed.
	TBS []byte `json:"tbs"`
}

// Journal keeps what the CA signs. An intention without a certificate is one that may have been signed, and is
// treated as if it was.
type Journal interface {
	// Record keeps an intention durably before it returns. It fails, wrapping ErrSerialRecorded, where there is one
	// with the serial number already.
	Record(ctx context.Context, intention Intention) error
	// Complete keeps the DER certificate of a recorded intention.
	Complete(ctx context.Context, serial string, certificate []byte) error
}

// Entry is an intention and, once it was signed, its certificate.
type Entry struct {
	Intention   Intention
	Certificate []byte // DER; nil until complete
}

// MemoryJournal keeps entries for as long as the process lives: for tests, and for CAs that do. Safe for concurrent use.
type MemoryJournal struct {
	guarded struct {
		sync.Mutex
		entries entries
	}
}

// Record implements Journal.
func (j *MemoryJournal) Record(_ context.Context, intention Intention) error {
	j.guarded.Lock()
	defer j.guarded.Unlock()
	if err := j.guarded.entries.mayRecord(intention.Serial); err != nil {
		return err
	}
	j.guarded.entries.record(intention)
	return nil
}

// Complete implements Journal.
func (j *MemoryJournal) Complete(_ context.Context, serial string, certificate []byte) error {
	j.guarded.Lock()
	defer j.guarded.Unlock()
	if err := j.guarded.entries.mayComplete(serial); err != nil {
		return err
	}
	j.guarded.entries.complete(serial, certificate)
	return nil
}

// Entries returns all entries in the order of their recording.
func (j *MemoryJournal) Entries() []Entry {
	j.guarded.Lock()
	defer j.guarded.Unlock()
	return j.guarded.entries.list()
}

// entries is the state of a journal: what may follow what.
type entries struct {
	order    []string
	bySerial map[string]*Entry
}

func (e *entries) mayRecord(serial string) error {
	if serial == "" {
		return fmt.Errorf("intention without a serial number: %w", ErrJournal)
	}
	if _, ok := e.bySerial[serial]; ok {
		return fmt.Errorf("serial number %s: %w: %w", serial, ErrJournal, ErrSerialRecorded)
	}
	return nil
}

func (e *entries) record(intention Intention) {
	if e.bySerial == nil {
		e.bySerial = map[string]*Entry{}
	}
	e.bySerial[intention.Serial] = &Entry{Intention: intention}
	e.order = append(e.order, intention.Serial)
}

func (e *entries) mayComplete(serial string) error {
	entry, ok := e.bySerial[serial]
	if !ok {
		return fmt.Errorf("certificate with the serial number %s was never intended: %w", serial, ErrJournal)
	}
	if entry.Certificate != nil {
		return fmt.Errorf("certificate with the serial number %s is complete already: %w", serial, ErrJournal)
	}
	return nil
}

func (e *entries) complete(serial string, certificate []byte) {
	e.bySerial[serial].Certificate = append([]byte{}, certificate...)
}

func (e *entries) list() []Entry {
	out := make([]Entry, 0, len(e.order))
	for _, serial := range e.order {
		out = append(out, *e.bySerial[serial])
	}
	return out
}
