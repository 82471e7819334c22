package journal

import (
	"encoding/json"
	"fmt"

	"github.com/groundswell/groundswell/agent/task"
)

// entry is one record of the file. Fields may be added, never renamed or
// renumbered: an agent reads what an older one has written.
type entry struct {
	App string `json:"app"`
	// Record is a record of the target's task.
	Record *task.Record `json:"record,omitempty"`
	// Counter reserves report counters up to this one.
	Counter uint64 `json:"counter,omitempty"`
	// LastGood names the newest revision that was validated.
	LastGood *string `json:"lastGood,omitempty"`
	// Forget removes the target.
	Forget bool `json:"forget,omitempty"`
}

func (e entry) encode() ([]byte, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode journal entry: %w", err)
	}
	return data, nil
}

func decode(data []byte) (entry, error) {
	var e entry
	if err := json.Unmarshal(data, &e); err != nil {
		return e, fmt.Errorf("decode journal entry: %w", err)
	}
	return e, nil
}
