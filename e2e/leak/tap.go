package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/leak/judge"
)

// tap is the wiretap, a process of its own on the switch.
type tap struct {
	process *lab.Process
	in      io.WriteCloser
	answers chan tapLine

	mu struct {
		sync.Mutex
		leaks []judge.Leak
	}
}

// tapLine is what the wiretap writes; it is read by the names of its fields, so that nothing of it is shared.
type tapLine struct {
	Leak   *judge.Leak  `json:"leak"`
	Answer string       `json:"answer"`
	Counts judge.Counts `json:"counts"`
	Others []string     `json:"others"`
	Lost   uint64       `json:"lost"`
}

func (w *world) startTap() (*tap, error) {
	statement, err := w.writeStatement()
	if err != nil {
		return nil, err
	}
	cmd := w.bank.Switch().Command(filepath.Join(w.bin, "wiretap"), "-statement", statement, "-devices", "br0")
	t := &tap{answers: make(chan tapLine, 1)}
	if t.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = write, os.Stderr
	t.process, err = w.bank.Switch().Start(cmd)
	if err := errors.Join(err, write.Close()); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	go t.read(out)
	_, err = t.await(context.Background(), "listening")
	return t, err
}

func (t *tap) read(out io.ReadCloser) {
	defer out.Close()
	defer close(t.answers)
	for d := json.NewDecoder(bufio.NewReader(out)); ; {
		var l tapLine
		if d.Decode(&l) != nil {
			return
		}
		if l.Leak == nil {
			t.answers <- l
			continue
		}
		t.mu.Lock()
		t.mu.leaks = append(t.mu.leaks, *l.Leak)
		t.mu.Unlock()
	}
}

func (t *tap) await(ctx context.Context, answer string) (tapLine, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	select {
	case l, open := <-t.answers:
		if !open || l.Answer != answer {
			return l, fmt.Errorf("the wiretap says %q, want %q: has it ended?", l.Answer, answer)
		}
		if l.Lost > 0 {
			return l, fmt.Errorf("the wiretap lost %d frames: a capture with losses proves nothing", l.Lost)
		}
		return l, nil
	case <-ctx.Done():
		return tapLine{}, fmt.Errorf("waiting for the wiretap to answer %q: %w", answer, ctx.Err())
	}
}

// ask has the wiretap answer a command: everything that had arrived before is in the answer.
func (t *tap) ask(ctx context.Context, command string) (tapLine, error) {
	if _, err := fmt.Fprintln(t.in, command); err != nil {
		return tapLine{}, fmt.Errorf("ask the wiretap: %w", err)
	}
	l, err := t.await(ctx, command)
	if command == "reset" {
		t.mu.Lock()
		t.mu.leaks = nil
		t.mu.Unlock()
	}
	return l, err
}

// end ends the wiretap and returns its last word.
func (t *tap) end(ctx context.Context) (tapLine, error) {
	err := t.in.Close()
	l, last := t.await(ctx, "end")
	return l, errors.Join(err, last)
}

// leaks are those that were told since the last reset.
func (t *tap) leaks() []judge.Leak {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.leaks[:len(t.mu.leaks):len(t.mu.leaks)]
}
