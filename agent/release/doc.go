// Package release keeps an application's revisions on the host's disk and
// moves the host from one to another so that every move can be undone.
//
// Below <root>/<app>:
//
//	releases/<id>/   one complete, verified revision a folder
//	current          symlink to the folder that is installed; switched atomically
//	installed        clean-up list: what the current revision put outside
//	plan/            the last install until it is settled: plan and backups
//	staged/<id>      how much the revision holds; its time is when it was staged
//
// An install first decides everything (conflicts, owners, permissions) without
// touching anything, then makes the plan durable, then backs up whatever will
// be replaced or removed, then arms the plan, and only then acts. What was
// true of each path before is in the plan, so Undo makes it true again from
// any state in between, however often it is called; an install that was
// interrupted is undone and done anew.
//
// The methods for one application must not run concurrently. Nothing is pruned
// unless Prune is called.
package release
