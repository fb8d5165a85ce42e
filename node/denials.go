package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"github.com/bailiwick-net/bailiwick/node/statefile"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// denialsFile is where a node keeps whom it must not believe, so that a restart without the controller does not let them
// in again.
const denialsFile = "denials.json"

// denials are whom this node must not believe, and when that was last known to be so. They are safe for concurrent use.
type denials struct {
	path string
	now  struct {
		sync.Mutex
		set   trust.Denials
		heard time.Time
		// stored is when the file was written last.
		stored time.Time
	}
}

// storedDenials is the file.
type storedDenials struct {
	Heard   time.Time `json:"heard"`
	Content []byte    `json:"content"` // as trust.Denials.Append writes it
}

// refreshDenials is how often the time at which the denials were known to be current goes to the disk.
const refreshDenials = time.Hour

// loadDenials reads what was stored; nothing stored is nobody denied, and nothing ever heard.
func loadDenials(dir string) (*denials, error) {
	d := &denials{path: filepath.Join(dir, denialsFile)}
	content, err := statefile.Read(d.path, 2*trust.MaxDenialsSize)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err != nil {
		return nil, err
	}
	if d.now.set, d.now.heard, err = parseDenials(content); err != nil {
		return nil, fmt.Errorf("read whom not to believe from %s, remove the file to start without: %w", d.path, err)
	}
	d.now.stored = d.now.heard
	return d, nil
}

// parseDenials reads the content of the file.
func parseDenials(content []byte) (set trust.Denials, heard time.Time, err error) {
	var stored storedDenials
	if err := json.Unmarshal(content, &stored); err != nil {
		return trust.Denials{}, time.Time{}, err
	}
	set, err = trust.ParseDenials(stored.Content)
	return set, stored.Heard, err
}

// Denials are whom not to believe, and when that was last known to be so.
func (d *denials) Denials() (trust.Denials, time.Time) {
	d.now.Lock()
	defer d.now.Unlock()
	return d.now.set, d.now.heard
}

// SetDenials replaces the set, in memory in any case, and on the disk where it can.
func (d *denials) SetDenials(now time.Time, set trust.Denials) error {
	d.now.Lock()
	defer d.now.Unlock()
	d.now.set, d.now.heard = set, now
	return d.storeLocked()
}

// ConfirmDenials says that the set is current at now: a session with the controller that told it is open.
func (d *denials) ConfirmDenials(now time.Time) error {
	d.now.Lock()
	defer d.now.Unlock()
	d.now.heard = now
	if now.Sub(d.now.stored) < refreshDenials {
		return nil
	}
	return d.storeLocked()
}

func (d *denials) storeLocked() error {
	der, err := d.now.set.Append(nil)
	if err != nil {
		return err
	}
	content, err := json.Marshal(storedDenials{Heard: d.now.heard.UTC(), Content: der})
	if err != nil {
		return fmt.Errorf("encode whom not to believe: %w", err)
	}
	d.now.stored = d.now.heard // a full disk is not tried again at once
	return statefile.Write(d.path, content)
}
