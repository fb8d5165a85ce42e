// Command wiretap reads Ethernet devices or a pcap file and judges what it sees, with package judge alone: it links nothing
// of what it judges.
//
// On devices it tells what they receive, one JSON object a line, as it happens; "counts" on its standard input asks for the
// counts up to now, "reset" has them begin anew, and the end of the input ends it.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/leak/judge"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "wiretap:", err)
		os.Exit(1)
	}
}

// errLeaks is the outcome of a capture with leaks.
var errLeaks = errors.New("something was in clear that must be protected")

// Line is one line of the output: a leak or an answer.
type Line struct {
	Leak   *judge.Leak   `json:"leak,omitempty"`
	Answer string        `json:"answer,omitempty"` // to which command
	Counts *judge.Counts `json:"counts,omitempty"`
	Others []string      `json:"others,omitempty"`
	// Lost is the number of frames that the kernel dropped: a capture with losses proves nothing.
	Lost uint64 `json:"lost"`
}

// tap is the judge and what it writes, shared by the readers of the devices.
type tap struct {
	mu struct {
		sync.Mutex
		judge *judge.Judge
		out   *json.Encoder
		told  int
		err   error
		lost  uint64
	}
	statement judge.Statement
}

// mostTold bounds the leaks that are told one by one; all are counted.
const mostTold = 1000

func run(args []string, in io.Reader, out io.Writer) error {
	flags := flag.NewFlagSet("wiretap", flag.ContinueOnError)
	statement := flags.String("statement", "", "JSON file that says what must be protected")
	devices := flags.String("devices", "", "devices to listen on, separated by commas")
	file := flags.String("read", "", "pcap file to judge instead")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if (*devices == "") == (*file == "") || *statement == "" {
		return errors.New("want -statement, and one of -devices and -read")
	}
	content, err := os.ReadFile(*statement)
	if err != nil {
		return err
	}
	t := &tap{}
	if t.statement, err = judge.ParseStatement(content); err != nil {
		return err
	}
	if err := t.reset(); err != nil {
		return err
	}
	t.mu.out = json.NewEncoder(out)
	if *file != "" {
		f, err := os.Open(*file)
		if err != nil {
			return err
		}
		defer f.Close()
		err = judge.ReadPcap(bufio.NewReader(f), func(at time.Time, data []byte) { t.observe(at, *file, data) })
		return errors.Join(err, t.finish())
	}
	readers, err := listen(strings.Split(*devices, ","))
	if err != nil {
		return err
	}
	var running sync.WaitGroup
	for _, r := range readers {
		running.Go(func() { r.read(t.observe) })
	}
	t.answer("listening", readers)
	for s := bufio.NewScanner(in); s.Scan(); {
		if s.Text() == "reset" {
			if err := t.reset(); err != nil {
				return err
			}
		}
		t.answer(s.Text(), readers)
	}
	for _, r := range readers {
		r.end()
	}
	running.Wait()
	t.count(readers)
	return t.finish()
}

func (t *tap) reset() error {
	j, err := judge.New(t.statement)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.judge, t.mu.told = j, 0
	return err
}

func (t *tap) observe(at time.Time, where string, data []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tellLocked(t.mu.judge.Observe(at, where, data))
}

func (t *tap) tellLocked(leaks []judge.Leak) {
	for _, l := range leaks {
		if t.mu.told++; t.mu.told <= mostTold {
			t.writeLocked(Line{Leak: &l})
		}
	}
}

func (t *tap) writeLocked(l Line) {
	l.Lost = t.mu.lost
	t.mu.err = errors.Join(t.mu.err, t.mu.out.Encode(l))
}

// count adds up what the kernel dropped; reading that number sets it to zero.
func (t *tap) count(readers []*reader) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range readers {
		n, err := r.lost()
		t.mu.lost += n
		t.mu.err = errors.Join(t.mu.err, err, r.failed())
	}
}

func (t *tap) answer(command string, readers []*reader) {
	t.count(readers)
	t.mu.Lock()
	defer t.mu.Unlock()
	counts := t.mu.judge.Counts()
	t.writeLocked(Line{Answer: command, Counts: &counts, Others: t.mu.judge.Others()})
}

func (t *tap) finish() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tellLocked(t.mu.judge.Finish())
	counts := t.mu.judge.Counts()
	t.writeLocked(Line{Answer: "end", Counts: &counts, Others: t.mu.judge.Others()})
	if counts.Leaks > 0 {
		t.mu.err = errors.Join(t.mu.err, errLeaks)
	}
	return t.mu.err
}
