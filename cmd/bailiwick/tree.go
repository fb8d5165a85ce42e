package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

func getTreeCommand(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "tree",
		Short: "Draw the directory with its links, and beside each machine the policy that applies",
		Args:  args(),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, _ []string) error {
			r, err := a.fleet.GetTree(ctx, &adminv1.GetTreeRequest{})
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
				t := newTree(r.GetContainers())
				t.rows.add("TREE", "POLICY", "FROM", "NODE")
				for _, root := range t.children[""] {
					t.container("", "", root, root.GetDn())
				}
				return t.rows.write(w)
			})
		}),
	}
}

// tree draws containers and machines as rows of a table.
type tree struct {
	children map[string][]*adminv1.Container
	base     string
	rows     rows
}

func newTree(containers []*adminv1.Container) *tree {
	t := &tree{children: map[string][]*adminv1.Container{}}
	for _, c := range containers {
		if c.GetDn() == c.GetParent() {
			continue // it would be drawn in itself without end
		}
		t.children[c.GetParent()] = append(t.children[c.GetParent()], c)
		if c.GetParent() == "" {
			t.base = c.GetDn()
		}
	}
	if len(t.children[""]) > 1 {
		t.base = "" // names are shortened by what all share
	}
	return t
}

// container draws a container and what is in it. branch is what stands before its name, indent what stands before the
// names in it.
func (t *tree) container(branch, indent string, c *adminv1.Container, name string) {
	var links []string
	for _, l := range c.GetLinks() {
		link := fmt.Sprintf("link %d: %s", l.GetOrder(), l.GetPolicy())
		if options := linkOptions(l); len(options) > 0 {
			link += " (" + strings.Join(options, ", ") + ")"
		}
		links = append(links, link)
	}
	if c.GetBlocksInheritance() {
		name += " [blocks inheritance]"
	}
	first := ""
	if len(links) > 0 {
		first = "<- " + links[0]
	}
	t.rows.add(branch+name, first)
	inside := t.children[c.GetDn()]
	entries := len(inside) + len(c.GetMachines())
	for _, more := range links[min(1, len(links)):] {
		bar := indent
		if entries > 0 {
			bar += "│"
		}
		t.rows.add(bar, "<- "+more)
	}
	n := 0
	next := func() (branch, deeper string) {
		if n++; n == entries {
			return indent + "└─ ", indent + "   "
		}
		return indent + "├─ ", indent + "│  "
	}
	for _, m := range c.GetMachines() {
		branch, _ := next()
		t.rows.add(branch+m.GetName(), policyOf(m), t.relative(m.GetContainer()), nodeOf(m))
	}
	for _, child := range inside {
		branch, deeper := next()
		rdn := strings.TrimSuffix(child.GetDn(), ","+c.GetDn())
		t.container(branch, deeper, child, rdn)
	}
}

// relative leaves the base away from the DN of a container below it.
func (t *tree) relative(dn string) string {
	return orDash(strings.TrimSuffix(dn, ","+t.base))
}
