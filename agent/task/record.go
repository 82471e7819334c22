package task

// Record is one line of a target's journal; exactly one field is set.
type Record struct {
	Base     *Base       `json:",omitempty"`
	Assigned *Assignment `json:",omitempty"`
	Begin    *Step       `json:",omitempty"`
	End      *End        `json:",omitempty"`
}

// Base is what a closed history has come to. It begins a list of records.
type Base struct {
	// Running is the revision that is installed; empty is none.
	Running string
	// Generation is the highest acknowledged one and Result what closed it.
	Generation uint64
	Result     Result
	// World is set when the generation was closed over a target that is still
	// disturbed (broken, or a permit was withdrawn in the middle).
	World *World `json:",omitempty"`
}

// End is how the step begun last has ended.
type End struct {
	Outcome Outcome
	// Detail is for people: why it failed. The executor bounds it.
	Detail string `json:",omitempty"`
}
