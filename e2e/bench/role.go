package main

import "io"

const roleArgument = "role"

func serveRole(io.Reader, io.Writer) error { return nil }
