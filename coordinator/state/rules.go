package state

import (
	"errors"
	"fmt"

	"github.com/groundswell/groundswell/deploy"
)

// ErrBefore is state that was written before logs had rules.
var ErrBefore = errors.New("it was written before logs had rules, and no release reads it; begin anew: " +
	"stop every coordinator, move their folders away, bootstrap one, join the others, enrol hosts with a new token; " +
	"applications run on meanwhile")

// checkRules says whether a build that knows rules up to a level may apply what
// was written under the given ones.
func checkRules(rules, known int) error {
	switch {
	case rules < 1:
		return ErrBefore
	case rules > known:
		return fmt.Errorf("it has rules of level %d, this build knows %d; install the newer build again", rules, known)
	}
	return nil
}

// CheckEntry says whether a build that knows rules up to a level may apply an
// entry of the log.
func CheckEntry(data []byte, known int) error {
	e, err := Decode(data)
	if err != nil {
		return err
	}
	rules := e.Rules
	for _, ev := range e.Events {
		if r, ok := ev.(deploy.RulesRaised); ok && rules > 0 {
			rules = max(rules, r.Level)
		}
	}
	return checkRules(rules, known)
}
