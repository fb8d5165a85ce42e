package journal

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// Account is what a journal says of one serial number.
type Account struct {
	Intention Intention
	// Recorded is the number of the intention's record, Certified that of the certificate's, 0 without one.
	Recorded, Certified uint64
	// Digest is that of the certificate.
	Digest Digest
}

// Audit reads a journal record by record. The zero value is ready. After an error nothing more can be concluded.
type Audit struct {
	head     Head
	accounts map[string]*Account
	// expected are heads that somebody remembers, by their number.
	expected map[uint64]Digest
}

// Expect makes the audit hold the journal against a head that was remembered. It must be called before the first Add.
// Errors wrap ErrJournal: two heads with one number that differ.
func (a *Audit) Expect(h Head) error {
	if known, ok := a.expected[h.Number]; ok && known != h.Digest || h.Number == 0 && h.Digest != (Digest{}) {
		return fmt.Errorf("head %v contradicts another one with the number %d: %w", h, h.Number, ErrJournal)
	}
	if a.expected == nil {
		a.expected = map[uint64]Digest{}
	}
	if h.Number > 0 {
		a.expected[h.Number] = h.Digest
	}
	return nil
}

// Add reads the next line, without its line feed. Errors wrap ErrJournal and name the record.
func (a *Audit) Add(line []byte) (Record, error) {
	r, err := Parse(line)
	if err != nil {
		return Record{}, fmt.Errorf("after record %d: %w", a.head.Number, err)
	}
	if r.Number != a.head.Number+1 {
		return Record{}, fmt.Errorf("record %d follows record %d: one was taken out or put in: %w", r.Number, a.head.Number, ErrJournal)
	}
	if r.Previous != a.head.Digest {
		return Record{}, fmt.Errorf("record %d was written after a line with the digest %v, but the line before it has %v: record %d or an earlier one was changed: %w",
			r.Number, r.Previous, a.head.Digest, a.head.Number, ErrJournal)
	}
	if err := a.account(r); err != nil {
		return Record{}, err
	}
	a.head = Head{r.Number, Sum(line)}
	if want, ok := a.expected[r.Number]; ok {
		if want != a.head.Digest {
			return Record{}, fmt.Errorf("record %d has the digest %v, remembered was %v: it or an earlier one was changed: %w", r.Number, a.head.Digest, want, ErrJournal)
		}
		delete(a.expected, r.Number)
	}
	return r, nil
}

func (a *Audit) account(r Record) error {
	switch {
	case r.Intention != nil:
		if before, ok := a.accounts[r.Intention.Serial]; ok {
			return fmt.Errorf("record %d intends the serial number %s, which record %d did already: %w", r.Number, r.Intention.Serial, before.Recorded, ErrJournal)
		}
		if a.accounts == nil {
			a.accounts = map[string]*Account{}
		}
		a.accounts[r.Intention.Serial] = &Account{Intention: *r.Intention, Recorded: r.Number}
	case r.Certificate != nil:
		before, ok := a.accounts[r.Certificate.Serial]
		if !ok {
			return fmt.Errorf("record %d tells of a certificate with the serial number %s, which was never intended: %w", r.Number, r.Certificate.Serial, ErrJournal)
		}
		if before.Certified != 0 {
			return fmt.Errorf("record %d tells of a certificate with the serial number %s, which record %d did already: %w", r.Number, r.Certificate.Serial, before.Certified, ErrJournal)
		}
		before.Certified, before.Digest = r.Number, r.Certificate.Digest
	}
	return nil
}

// Head is that of the records read so far.
func (a *Audit) Head() Head { return a.head }

// End says that there are no more records. A head that was remembered and not reached is an error: the journal was cut.
func (a *Audit) End() error {
	if len(a.expected) == 0 {
		return nil
	}
	last := slices.Max(slices.Collect(maps.Keys(a.expected)))
	return fmt.Errorf("the journal ends with record %d, but a head of record %d is remembered: its end was cut off, or it is another journal: %w", a.head.Number, last, ErrJournal)
}

// Account is what the records say of a serial number.
func (a *Audit) Account(serial string) (Account, bool) {
	account, ok := a.accounts[serial]
	if !ok {
		return Account{}, false
	}
	return *account, true
}

// Accounts are all of them, in the order of their intentions.
func (a *Audit) Accounts() []Account {
	out := make([]Account, 0, len(a.accounts))
	for _, account := range a.accounts {
		out = append(out, *account)
	}
	slices.SortFunc(out, func(x, y Account) int { return cmp.Compare(x.Recorded, y.Recorded) })
	return out
}
