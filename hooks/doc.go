// Package hooks parses an appspec and runs its lifecycle scripts safely.
//
// # The appspec
//
// [Parse] reads appspec.yml as CodeDeploy's agent 1.8 reads it, so that a file
// written for CodeDeploy works unchanged, and answers every mistake with file,
// line, column and field. [Load] finds the file in a revision first, [Lint]
// checks a whole revision the way a host would see it.
//
// # Running a script
//
// Nothing that a script does may hang on the agent's process. So the agent
// does not run scripts: it starts a small supervisor (its own binary again,
// see [MaybeSupervise]), one for each script that runs, which
//
//   - is the script's parent in an own session, process group and, where the
//     host has cgroup v2, an own cgroup, all outside the agent's;
//   - gives the script two plain files opened for appending as stdout and
//     stderr, never a pipe: whoever dies, a write never meets SIGPIPE;
//   - marks durably that the script is about to start, before it starts;
//   - enforces the timeout: TERM to the group, five seconds of grace, KILL to
//     the whole tree;
//   - copies both files, line by line and tagged, to a log of bounded size;
//   - leaves the exit status in a file, and ends unless the agent is there
//     and nothing is left of the script: then it waits for another.
//
// A run lives in one folder, <Runner.Dir>/<Env.ID>, and an id is started at
// most once. After a crash of the agent [Runner.Run] with the same id adopts:
// it waits for a supervisor that still runs, or reads the status of one that
// ended; a run that began and left no status has failed with [CodeRestart].
//
// A process that a successful script left behind is never killed. Its output
// goes on into the same files; [Runner.Trim], called by the agent about once
// a second, moves it to the log within the same bound and gives the space
// back by punching holes, so the writer never notices.
//
// # Limits that are known
//
// Without cgroup v2 a tree is found through process groups and, as the
// supervisor is a child subreaper, through parents; only a tree that forks
// faster than it is listed can then escape. Between two calls of Trim, or
// while no agent runs, a left-over process can fill the disk. Lines of stdout
// and of stderr keep their order each; between the two the order is right to
// about ten milliseconds.
package hooks
