package main

import "github.com/groundswell/groundswell/cmd/dctl/watch"

// jsonRenderer writes one object when the watch has ended.
type jsonRenderer struct{ c *cli }

// Update shows nothing before the end.
func (jsonRenderer) Update(*watch.Progress, watch.Update) {}

func (jsonRenderer) Beat(*watch.Progress) {}

func (j jsonRenderer) End(p *watch.Progress) {
	_ = j.c.emit(object{ // a broken pipe ends the program anyway
		{"result", result(p.Deployment)},
		{"deployment", p.Deployment},
		{"records", messages(p.Records)},
	})
}

// jsonlRenderer writes one object a record, and one at the end.
type jsonlRenderer struct{ c *cli }

func (j jsonlRenderer) Update(_ *watch.Progress, u watch.Update) {
	for _, r := range u.Records {
		_ = j.c.emit(object{{"type", "record"}, {"record", r}})
	}
}

func (jsonlRenderer) Beat(*watch.Progress) {}

func (j jsonlRenderer) End(p *watch.Progress) {
	_ = j.c.emit(object{{"type", "end"}, {"result", result(p.Deployment)}, {"deployment", p.Deployment}})
}
