package task

// Record is one line of a target's journal; exactly one field is set.
type Record struct {
	Base     *Base       `json:",omitempty"`
	Assigned *Assignment `json:",omitempty"`
	Begin    *Step       `json:",omitempty"`
	End      *End        `json:",omitempty"`
	Retried  *Retry      `json:",omitempty"`
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
	// Assigned is what a broken target was about, for a Retry.
	Assigned *Assignment `json:",omitempty"`
}

// Retry opens the generation of a broken target again: what kept it from going
// back is gone, such as a full disk. It needs no permit, since the application
// is out of service already. A target that is not broken ignores it.
type Retry struct {
	// Number is above that of every step of the generation so far.
	Number int
}

// End is how the step begun last has ended.
type End struct {
	Outcome Outcome
	// Detail is for people: why it failed. The executor bounds it.
	Detail string `json:",omitempty"`
}
