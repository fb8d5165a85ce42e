package policies

import (
	"fmt"
	"slices"
	"strings"
)

// BlockApply is how grave a finding has to be to keep a change from being applied.
type BlockApply uint8

// The values; the zero value is the default.
const (
	BlockErrors BlockApply = iota
	BlockWarnings
	BlockNever
)

var blockNames = []string{"error", "warning", "never"}

// String prints the value as documents write it.
func (b BlockApply) String() string {
	if int(b) < len(blockNames) {
		return blockNames[b]
	}
	return fmt.Sprintf("blockApply(%d)", uint8(b))
}

func parseBlockApply(s string) (BlockApply, error) {
	i := slices.Index(blockNames, s)
	if i < 0 {
		return 0, fmt.Errorf("%q is not one of %s", printable(s), strings.Join(blockNames, ", "))
	}
	return BlockApply(i), nil
}

// Blocks reports whether a finding of a severity keeps a change from being applied.
func (b BlockApply) Blocks(s Severity) bool {
	switch b {
	case BlockErrors:
		return s >= Error
	case BlockWarnings:
		return s >= Warning
	case BlockNever:
	}
	return false
}

// BlockApply is what the settings of the fleet say.
func (d Documents) BlockApply() BlockApply {
	for _, s := range d.Settings {
		return s.BlockApply
	}
	return BlockErrors
}
