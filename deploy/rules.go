package deploy

// RulesKnown is the highest level of rules that this build knows.
//
// A restart replays the tail of the log, and coordinators of two builds apply
// the same entries. So wherever the meaning or the guard of a fact changes,
// Apply branches on State.Rules and keeps the former branch: every replica
// applies an entry by the rules that were in force when it was written. The
// level is raised by RulesRaised, one step at a time, once every voter has
// announced that it knows it; a fact that is new is proposed only at its level.
// A golden log of each level asserts its final state.
//
//	1  the first; state from before it is refused by name
//	2  ended deployments are kept whole by bytes, request ids by number
//	3  snapshots are written in parts; a group that is defined anew has no past;
//	   revisions can be pruned
//	4  a host runs scripts of a staged revision before it gets a permit; hosts can be
//	   drained; quorum groups bind permits; an answer about staging counts for its own
//	   question; requests are recorded with their effect; a deployment can be an
//	   emergency; ended deployments can be moved to a store; outlines are kept by bytes
const RulesKnown = 4

func (s *State) rulesRaised(e RulesRaised) error {
	if e.Level != s.Rules+1 {
		return refuse(Conflict, "rules are at level %d and cannot be raised to %d", s.Rules, e.Level)
	}
	s.Rules = e.Level
	return nil
}
