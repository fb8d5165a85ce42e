package tpm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// DefaultDevice is the TPM behind Linux's resource manager, which keeps its users apart.
const DefaultDevice = "/dev/tpmrm0"

// patience is how long whoever needs the TPM waits, his turn included. A signature takes a hardware TPM some tenths of a
// second, a new key up to a few seconds.
const patience = 10 * time.Second

// Device is a TPM 2.0. It is opened when it is needed, and again after a failure. It is safe for concurrent use.
type Device struct {
	path     string
	patience time.Duration
	// turn holds a value while somebody talks to the TPM, who alone may touch connection.
	turn       chan struct{}
	connection *connection
	last       outcome
}

// outcome is how the last use of the TPM ended.
type outcome struct {
	mu  sync.Mutex
	err error
}

// New is the TPM at a path: a character device or a unix socket. Nothing happens before a key is needed.
func New(path string) *Device {
	return &Device{path: path, patience: patience, turn: make(chan struct{}, 1)}
}

// Path is where the TPM is.
func (d *Device) Path() string { return d.path }

// Present reports whether the machine has this TPM, without asking it anything.
func (d *Device) Present() (bool, error) {
	_, err := os.Stat(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for the TPM: %w", err)
	}
	return true, nil
}

// Failure is why the last use of the TPM failed; nil when it did not.
func (d *Device) Failure() error {
	d.last.mu.Lock()
	defer d.last.mu.Unlock()
	return d.last.err
}

// Close frees what this process has in the TPM. The device can be used again afterwards.
func (d *Device) Close() error {
	_, err := wait(d, "free the TPM", func() (struct{}, error) { return struct{}{}, d.disconnect() })
	return err
}

// disconnect is for whoever has the turn.
func (d *Device) disconnect() error {
	c := d.connection
	if c == nil {
		return nil
	}
	d.connection = nil
	return c.close()
}

// do has the turn at the TPM, opens it if need be, and repeats once what failed for a reason that a fresh start can mend: a
// TPM that was reset forgets sessions and loaded keys.
func do[T any](d *Device, what string, work func(*connection) (T, error)) (T, error) {
	result, err := wait(d, what, func() (result T, err error) {
		for attempt := range 2 {
			if d.connection == nil {
				if d.connection, err = connect(d.path); err != nil {
					return result, err
				}
			}
			if result, err = work(d.connection); err == nil {
				return result, nil
			}
			crowded := crowded(err)
			if final(err) && !crowded {
				return result, err
			}
			if crowded && attempt == 0 {
				d.connection.evict()
			}
			// What cannot be freed now is gone with the connection or the TPM's next start.
			_ = d.disconnect()
		}
		return result, err
	})
	if err != nil {
		err = d.explain(what, err)
	}
	d.last.mu.Lock()
	defer d.last.mu.Unlock()
	d.last.err = err
	return result, err
}

// wait runs work when it is its turn, and gives up waiting after patience. Work that hangs keeps the turn, so that nobody
// talks in between when the TPM comes back.
func wait[T any](d *Device, what string, work func() (T, error)) (none T, _ error) {
	timer := time.NewTimer(d.patience)
	defer timer.Stop()
	select {
	case d.turn <- struct{}{}:
	case <-timer.C:
		return none, fmt.Errorf("others waited for it for %v: %w", d.patience, ErrUnavailable)
	}
	type outcome struct {
		result T
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		defer func() {
			if r := recover(); r != nil { // an answer that is no TPM's concerns this use only
				o.err = fmt.Errorf("%s: its answer cannot be read (%v): %w", what, r, ErrUnavailable)
			}
			done <- o
			<-d.turn
		}()
		o.result, o.err = work()
	}()
	select {
	case o := <-done:
		return o.result, o.err
	case <-timer.C:
		return none, fmt.Errorf("it did not answer within %v: %w", d.patience, ErrUnavailable)
	}
}

// final reports whether a fresh start would end in the same way.
func final(err error) bool {
	return errors.Is(err, ErrOtherTPM) || errors.Is(err, ErrDamaged) || errors.Is(err, ErrPassword) || errors.Is(err, ErrLockout) || errors.Is(err, ErrFormat)
}

// crowded reports whether the TPM has no room for another key or session: a process that was killed has left its own, where
// no resource manager cleans up.
func crowded(err error) bool {
	return errors.Is(err, tpm2.TPMRCObjectMemory) || errors.Is(err, tpm2.TPMRCSessionMemory) || errors.Is(err, tpm2.TPMRCObjectHandles) || errors.Is(err, tpm2.TPMRCSessionHandles)
}

// explain says which TPM, and what to do.
func (d *Device) explain(what string, err error) error {
	advice := "see whether it is there and works (dmesg, tpm2_selftest); nothing else holds the machine's key"
	switch {
	case errors.Is(err, ErrOtherTPM):
		advice = "this machine has to enrol again: bailiwick-node leave, then bailiwick-node join"
	case errors.Is(err, ErrDamaged):
		advice = "restore credentials.pem from a copy of this machine, or enrol again: bailiwick-node leave, then bailiwick-node join"
	case errors.Is(err, ErrPassword):
		advice = "keep a storage key at the handle 0x81000001 (tpm2_createprimary, tpm2_evictcontrol), or set identity.key: file"
	case errors.Is(err, ErrLockout):
		advice = "wait until it lets go, or have its owner end it: tpm2_dictionarylockout --clear-lockout"
	case errors.Is(err, fs.ErrNotExist):
		advice = "attach it, or enable it in the firmware; a machine that is to do without sets identity.key: file and enrols again"
	case errors.Is(err, fs.ErrPermission):
		advice = "bailiwick-node must be root or in the group of the device"
	}
	return fmt.Errorf("%s with the TPM %s: %w; %s", what, d.path, err, advice)
}
