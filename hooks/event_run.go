package hooks

import (
	"context"
	"fmt"
)

// maxReruns bounds how often an idempotent script is run again after crashes
// that left its result unknown.
const maxReruns = 3

// RunEvent runs the scripts of one event in their order and stops at the
// first that does not succeed. The ids of the runs derive from env.ID, so a
// call with the same id after a crash goes on where the former one was: it
// takes known results over, adopts what runs, and starts what never started.
// An idempotent script whose result was lost is run again, at most three
// times. No scripts are a success. Ran, unless it is nil, is told the result
// of each script as it is known.
func (r *Runner) RunEvent(ctx context.Context, scripts []Script, env Env, ran func(Result)) Result {
	result := Result{Message: env.Event + " has no scripts"}
	id := env.ID
	for i, s := range scripts {
		env.ID = fmt.Sprintf("%s.%d", id, i)
		result = r.Run(ctx, s, env)
		for n := 1; s.Idempotent && result.Code == CodeRestart && n <= maxReruns; n++ {
			env.ID = fmt.Sprintf("%s.%d.r%d", id, i, n)
			result = r.Run(ctx, s, env)
		}
		if ran != nil {
			ran(result)
		}
		if !result.OK() {
			return result
		}
	}
	return result
}
