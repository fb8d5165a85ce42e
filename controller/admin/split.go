package admin

import (
	"bytes"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/policies"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// Documents makes the change that writes every document of a file.
func Documents(name string, content []byte) (store.DocumentChange, error) {
	put, err := decodeSources([]*adminv1.Source{{Name: name, Content: content}})
	var change store.DocumentChange
	for _, w := range put {
		change.Put = append(change.Put, store.Document{DocumentKey: keyOf(w.doc), Content: w.text})
	}
	return change, err
}

// split cuts a file of YAML documents at its separators, so that each document is kept as it was written. The result
// has one text for each document, by the line that it was read at. Comments before a separator stay with the document
// that follows. unread are the lines at which something stands that no document was read from: YAML readers are known
// to drop what follows an empty document, and nothing that an administrator wrote may be dropped in silence.
func split(content []byte, docs []policies.Document) (texts [][]byte, unread []int) {
	content = bytes.ReplaceAll(content, []byte("\r\n"), []byte("\n"))
	type piece struct {
		first int // line, from 1
		text  []byte
	}
	pieces := []piece{{first: 1}}
	for n, line := range bytes.SplitAfter(content, []byte("\n")) {
		if separator(line) {
			pieces = append(pieces, piece{first: n + 2})
			continue
		}
		last := &pieces[len(pieces)-1]
		last.text = append(last.text, line...)
	}
	texts = make([][]byte, len(docs))
	var before []byte
	for i, p := range pieces {
		end := int(^uint(0) >> 1)
		if i+1 < len(pieces) {
			end = pieces[i+1].first
		}
		found := false
		for j, d := range docs {
			if line := d.Metadata().At.Line; line >= p.first && line < end {
				texts[j], found = append(before, p.text...), true
			}
		}
		before = nil
		if found {
			continue
		}
		if at := firstContent(p.text); at >= 0 {
			unread = append(unread, p.first+at)
		} else if len(bytes.TrimSpace(p.text)) > 0 {
			before = p.text
		}
	}
	return texts, unread
}

// firstContent returns the index of the first line that is neither empty nor a comment nor a directive; -1 for none.
func firstContent(text []byte) int {
	for n, line := range bytes.Split(text, []byte("\n")) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' && line[0] != '%' && !bytes.Equal(line, []byte("...")) {
			return n
		}
	}
	return -1
}

// separator tells a document separator (YAML 1.2.2, 9.1.3) that nothing follows but a comment.
func separator(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("---"))
	if !ok {
		return false
	}
	trimmed := bytes.TrimLeft(rest, " \t")
	return len(bytes.TrimSpace(rest)) == 0 || len(trimmed) < len(rest) && trimmed[0] == '#'
}
