package ca

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// FileJournal keeps entries in a file of JSON lines that is only ever appended to, and synced before Record or Complete
// returns. One process has it open at a time. Safe for concurrent use.
type FileJournal struct {
	path    string
	guarded struct {
		sync.Mutex
		file    *os.File
		size    int64 // of the part of the file that is good
		entries entries
		list    *RootList // the last one, nil before the first
		failed  error     // set when a failed write could not be taken back; nothing is recorded after that
	}
}

// maxJournalLine bounds one line: an intention or a certificate, in base64, or what a list of a root has.
const maxJournalLine = 64 << 10

// journalLine is one line: an intention, a certificate, or the revocation list of a root.
type journalLine struct {
	Intention *Intention  `json:"intention,omitempty"`
	Complete  *completion `json:"complete,omitempty"`
	List      *RootList   `json:"list,omitempty"`
}

type completion struct {
	Serial      string `json:"serial"`
	Certificate []byte `json:"certificate"`
}

// OpenFileJournal opens the journal at path, or starts one, and reads it. A last line without its end was cut by a
// crash before Record returned, so nothing came of it, and it is removed; any other line that cannot be read is an
// error that names the line. Errors wrap ErrJournal.
func OpenFileJournal(path string) (*FileJournal, error) {
	j := &FileJournal{path: path}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the issuing journal: %w: %w", ErrJournal, err)
	}
	j.guarded.file = file
	if err := j.start(); err != nil {
		return nil, fmt.Errorf("opening the issuing journal %s: %w: %w", path, ErrJournal, errors.Join(err, file.Close()))
	}
	return j, nil
}

func (j *FileJournal) start() error {
	file := j.guarded.file
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); !info.Mode().IsRegular() || mode&0o077 != 0 {
		return fmt.Errorf("it has the mode %v, wanted a regular file of the mode 0600", info.Mode())
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("another process has it open: %w", err)
	}
	if err := j.read(); err != nil {
		return err
	}
	if j.guarded.size != info.Size() {
		if err := file.Truncate(j.guarded.size); err != nil {
			return fmt.Errorf("removing the cut last line: %w", err)
		}
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(j.path))
}

// read builds the entries from the file, and sets the size to the end of the last whole line.
func (j *FileJournal) read() error {
	r := bufio.NewReaderSize(j.guarded.file, maxJournalLine)
	for number := 1; ; number++ {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			return fmt.Errorf("line %d has more than %d octets", number, maxJournalLine)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
		if err := j.apply(line); err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
		j.guarded.size += int64(len(line))
	}
}

func (j *FileJournal) apply(text []byte) error {
	var line journalLine
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&line); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	entries := &j.guarded.entries
	switch {
	case line.List != nil && line.Intention == nil && line.Complete == nil:
		if err := j.mayListLocked(*line.List); err != nil {
			return err
		}
		j.guarded.list = line.List
	case line.List != nil:
		return errors.New("a revocation list and something else")
	case line.Intention != nil && line.Complete == nil:
		if err := entries.mayRecord(line.Intention.Serial); err != nil {
			return err
		}
		entries.record(*line.Intention)
	case line.Complete != nil && line.Intention == nil:
		if err := entries.mayComplete(line.Complete.Serial); err != nil {
			return err
		}
		entries.complete(line.Complete.Serial, line.Complete.Certificate)
	default:
		return errors.New("neither an intention nor a certificate nor a revocation list")
	}
	return nil
}

// Record implements Journal.
func (j *FileJournal) Record(_ context.Context, intention Intention) error {
	j.guarded.Lock()
	defer j.guarded.Unlock()
	if err := j.guarded.entries.mayRecord(intention.Serial); err != nil {
		return err
	}
	if err := j.appendLocked(journalLine{Intention: &intention}); err != nil {
		return err
	}
	j.guarded.entries.record(intention)
	return nil
}

// Complete implements Journal.
func (j *FileJournal) Complete(_ context.Context, serial string, certificate []byte) error {
	j.guarded.Lock()
	defer j.guarded.Unlock()
	if err := j.guarded.entries.mayComplete(serial); err != nil {
		return err
	}
	if err := j.appendLocked(journalLine{Complete: &completion{serial, certificate}}); err != nil {
		return err
	}
	j.guarded.entries.complete(serial, certificate)
	return nil
}

// appendLocked writes one line to the disk. A write that fails half-way is taken back, or the next line would be
// appended to its torso; where that fails too, the journal is of no more use.
func (j *FileJournal) appendLocked(line journalLine) error {
	if j.guarded.failed != nil {
		return fmt.Errorf("issuing journal %s failed before: %w: %w", j.path, ErrJournal, j.guarded.failed)
	}
	text, err := json.Marshal(line)
	if err != nil {
		return fmt.Errorf("encoding for the issuing journal %s: %w: %w", j.path, ErrJournal, err)
	}
	text = append(text, '\n')
	if len(text) > maxJournalLine {
		return fmt.Errorf("line of %d octets for the issuing journal %s, more than %d: %w", len(text), j.path, maxJournalLine, ErrJournal)
	}
	_, err = j.guarded.file.WriteAt(text, j.guarded.size)
	if err == nil {
		err = j.guarded.file.Sync()
	}
	if err != nil {
		// After a failed sync nobody knows what is on the disk, so the line is taken back in any case.
		if undo := errors.Join(j.guarded.file.Truncate(j.guarded.size), j.guarded.file.Sync()); undo != nil {
			j.guarded.failed = errors.Join(err, undo)
		}
		return fmt.Errorf("writing to the issuing journal %s: %w: %w", j.path, ErrJournal, err)
	}
	j.guarded.size += int64(len(text))
	return nil
}

// Entries returns all entries in the order of their recording.
func (j *FileJournal) Entries() []Entry {
	j.guarded.Lock()
	defer j.guarded.Unlock()
	return j.guarded.entries.list()
}

// Close gives the file free for another process. The journal fails afterwards.
func (j *FileJournal) Close() error {
	j.guarded.Lock()
	defer j.guarded.Unlock()
	if j.guarded.failed == nil {
		j.guarded.failed = os.ErrClosed
	}
	if err := j.guarded.file.Close(); err != nil {
		return fmt.Errorf("closing the issuing journal %s: %w: %w", j.path, ErrJournal, err)
	}
	return nil
}
