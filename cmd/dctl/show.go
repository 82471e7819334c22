package main

import (
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/groundswell/groundswell/cmd/dctl/output"
)

// list prints rows for a person, or the messages for a program: one object
// {"name": [...]} with json, one object each with jsonl.
func list[M proto.Message](c *cli, name string, items []M, head string, row func(M) string) error {
	switch c.flags.output {
	case outputJSON:
		return c.emit(object{{name, messages(items)}})
	case outputJSONL:
		for _, m := range items {
			if err := c.emit(m); err != nil {
				return err
			}
		}
		return nil
	}
	rows := make([]string, len(items))
	for i, m := range items {
		rows[i] = row(m)
	}
	return output.Table(c.out, head, rows)
}

// show prints one message for a program, or calls text for a person.
func (c *cli) show(m any, text func(io.Writer)) error {
	if c.machine() {
		return c.emit(m)
	}
	text(c.out)
	return nil
}
