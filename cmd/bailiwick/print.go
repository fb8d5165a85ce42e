package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// print writes a response as JSON or YAML, whole, or calls table for people.
func (c *client) print(w io.Writer, m proto.Message, table func(w io.Writer) error) error {
	if c.output == "table" {
		return table(w)
	}
	text, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("printing the answer: %w", err)
	}
	// protojson varies its white space on purpose.
	var out bytes.Buffer
	if err := json.Indent(&out, text, "", "  "); err != nil {
		return fmt.Errorf("printing the answer: %w", err)
	}
	out.WriteByte('\n')
	if c.output == "yaml" {
		converted, err := yaml.JSONToYAML(out.Bytes())
		if err != nil {
			return fmt.Errorf("printing the answer: %w", err)
		}
		out.Reset()
		out.Write(converted)
	}
	_, err = w.Write(out.Bytes())
	return err
}

// rows is a table: the first row is its head.
type rows [][]string

// add appends a row.
func (r *rows) add(cells ...string) { *r = append(*r, cells) }

// write aligns the columns by characters; the last column is not padded. A cell that is empty stands as it is.
func (r rows) write(w io.Writer) error {
	var widths []int
	for _, row := range r {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var out strings.Builder
	for _, row := range r {
		line := ""
		for i, cell := range row {
			line += cell
			if i < len(row)-1 {
				line += strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2)
			}
		}
		out.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// oneLine shortens a text to what fits behind a table.
func oneLine(s string) string {
	const most = 80
	s, _, more := strings.Cut(strings.TrimSpace(s), "\n")
	if runes := []rune(s); len(runes) > most {
		s, more = string(runes[:most]), true
	}
	if more {
		s += "..."
	}
	return s
}

// orDash stands for nothing in a table.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// short abbreviates a digest.
func short(digest string) string { return orDash(digest[:min(len(digest), 12)]) }

// when writes a time for people: how long ago, or in how long.
func when(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return since(time.Until(t.AsTime()))
}

func since(d time.Duration) string {
	if d <= 0 {
		return span(-d) + " ago"
	}
	return "in " + span(d)
}

// span writes a duration with one unit.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Round(time.Minute).Minutes()))
	case d < 2*day:
		return fmt.Sprintf("%dh", int(d.Round(time.Hour).Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Round(day)/day))
}

// plural writes a number with its noun.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
