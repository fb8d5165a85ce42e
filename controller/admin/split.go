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
// has one text for each document, by the line that it was read at. Comments that stand alone between separators stay
// with the document that follows.
func split(content []byte, docs []policies.Document) [][]byte {
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
	texts := make([][]byte, len(docs))
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
		switch {
		case found:
			before = nil
		case comments(p.text):
			before = append(before, p.text...)
		}
	}
	return texts
}

// comments tells a text that holds nothing but comments.
func comments(text []byte) bool {
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			return false
		}
	}
	return len(bytes.TrimSpace(text)) > 0
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
