package main

import (
	"io"

	"github.com/bailiwick-net/bailiwick/e2e/bench/ikeload"
)

// roleArgument makes the command run one machine, as told on its standard input.
const roleArgument = "role"

func serveRole(in io.Reader, out io.Writer) error { return ikeload.Obey(in, out) }
