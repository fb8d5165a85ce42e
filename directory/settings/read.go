package settings

import (
	"errors"
	"fmt"
	"os"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxFile bounds what is read, in octets.
const maxFile = 1 << 20

// ReadFile reads the directory section of a controller's configuration file, and nothing else of it. The error names the
// place.
func ReadFile(path string) (Checked, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Checked{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if info.Size() > maxFile {
		return Checked{}, fmt.Errorf("%w: %s has %d octets, more than %d", ErrInvalid, path, info.Size(), maxFile)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return Checked{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return Parse(path, text)
}

// Parse reads the directory section of the configuration file at path, whose content is text.
func Parse(path string, text []byte) (Checked, error) {
	node, err := section(text, "$.directory")
	if err != nil {
		return Checked{}, fmt.Errorf("%w: %s: %w", ErrInvalid, path, err)
	}
	if node == nil {
		return Checked{}, fmt.Errorf("%w: %s has no section directory", ErrInvalid, path)
	}
	var d Directory
	if err := yaml.NodeToValue(node, &d, yaml.Strict()); err != nil {
		return Checked{}, fmt.Errorf("%w: %s: %w", ErrInvalid, path, err)
	}
	checked, err := d.Check()
	return checked, Locate(path, text, err)
}

// Locate adds file, line and column to every FieldError in err, for the text that the settings were read from.
func Locate(path string, text []byte, err error) error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		if _, single := err.(*FieldError); !single { //nolint:errorlint // one that wraps others is still one
			var located []error
			for _, e := range joined.Unwrap() {
				located = append(located, Locate(path, text, e))
			}
			return errors.Join(located...)
		}
	}
	var field *FieldError
	if !errors.As(err, &field) {
		return err
	}
	// A field that is missing has no place of its own: that of what it is missing from serves.
	for at := field.Field; at != ""; at = parent(at) {
		node, findErr := section(text, "$."+at)
		if findErr != nil || node == nil || node.GetToken() == nil {
			continue
		}
		p := begin(node).GetToken().Position
		return fmt.Errorf("%s:%d:%d: %w", path, p.Line, p.Column, err)
	}
	return fmt.Errorf("%s: %w", path, err)
}

// parent cuts the last step of a path off.
func parent(field string) string {
	for i := len(field) - 1; i >= 0; i-- {
		if field[i] == '.' || field[i] == '[' {
			return field[:i]
		}
	}
	return ""
}

// section finds a node; nil where there is none.
func section(text []byte, at string) (node ast.Node, err error) {
	// The parser is not ours: whatever it does with bad input, the controller only says that the file is bad.
	defer func() {
		if p := recover(); p != nil {
			node, err = nil, fmt.Errorf("the file cannot be parsed: %v", p)
		}
	}()
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, err
	}
	path, err := yaml.PathString(at)
	if err != nil {
		return nil, err
	}
	node, err = path.FilterFile(file)
	if errors.Is(err, yaml.ErrNotFoundNode) {
		return nil, nil
	}
	return node, err
}

// begin is where a node begins; a mapping does at its first key, not at its first colon.
func begin(n ast.Node) ast.Node {
	switch v := n.(type) {
	case *ast.MappingNode:
		if !v.IsFlowStyle && len(v.Values) > 0 {
			return begin(v.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return begin(v.Key)
	}
	return n
}
