package main

// jsonRenderer writes one object when the watch has ended.
type jsonRenderer struct{ c *cli }

func (jsonRenderer) update(*story, update) {}

func (jsonRenderer) beat(*story) {}

func (j jsonRenderer) end(s *story) {
	_ = j.c.emit(object{ // a broken pipe ends the program anyway
		{"result", result(s.deployment)},
		{"deployment", s.deployment},
		{"records", messages(s.records)},
	})
}

// jsonlRenderer writes one object a record, and one at the end.
type jsonlRenderer struct{ c *cli }

func (j jsonlRenderer) update(_ *story, u update) {
	for _, r := range u.records {
		_ = j.c.emit(object{{"type", "record"}, {"record", r}})
	}
}

func (jsonlRenderer) beat(*story) {}

func (j jsonlRenderer) end(s *story) {
	_ = j.c.emit(object{{"type", "end"}, {"result", result(s.deployment)}, {"deployment", s.deployment}})
}
